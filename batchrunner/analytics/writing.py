"""Writes runs: payload first, `runs` last, and each file only if it is absent."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from batchrunner.analytics.completed_run import RUN_COLUMNS, RunRows
from batchrunner.analytics.layout import file_key, stem_of
from batchrunner.analytics.record import RUNS, CapabilityRunRef, Columns, RecordLike, columns_of_all
from batchrunner.analytics.reports import report_key
from batchrunner.analytics.schemas import Schemas
from batchrunner.analytics.table_files import is_torn, table_of_rows, to_parquet
from batchrunner.errors import InvalidRecordError, StorageError
from batchrunner.storage import Storage

MOST_FILES = 16
"""Up to this many runs of a call get files of their own; more runs share one file per table."""

DAMAGED = "_damaged"
"""Torn files are moved here, under their key, so that the user can examine them."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class WriteReceipt:
    """Names the runs that a call of `write_with_receipt` recorded durably.

    Attributes:
        refs: One for each run, in the order given, also for runs that were recorded before.
        new_files: Keys of the files that this call created; empty if all were there.
    """

    refs: tuple[CapabilityRunRef, ...]
    new_files: frozenset[str]

    def resolve_run_uri(self, run_uid: str) -> str | None:
        """Return the URI of a run of this call; None for other runs."""
        return next((ref.store_uri for ref in self.refs if ref.run_uid == run_uid), None)


def write_rows(runs: Sequence[RunRows], *, storage: Storage, schemas: Schemas) -> frozenset[str]:
    """Write *runs*, each once; return the keys of the files that this call created.

    Checks all runs before it writes anything. If the process dies in between, it leaves payload
    that no reader sees, and that the same call uses when it is repeated.

    Raises:
        InvalidRecordError: A value does not fit its column.
        SchemaConflictError: A column has another type in the store.
    """
    groups = _groups(runs)
    payload, commits = {}, {}
    columns = _payload_columns(runs)
    for group in groups:
        payload.update(_payload_of(group, columns))
        commits.update(_commit_of(group))
    # Before any row: a reader that sees a file finds its columns in the schemas.
    for table, known in {**columns, RUNS: RUN_COLUMNS}.items():
        schemas.claim(table, known)
    reports = {
        report_key(run.run_uid): run.report.encode(errors="backslashreplace")
        for run in runs
        if run.report
    }
    new = storage.put_if_absent(reports) if reports else frozenset()
    new |= put_whole(storage, payload)
    # Last, as the rows of `runs` commit a run: from then on readers see it, and expect its payload.
    return new | put_whole(storage, commits)


def _groups(runs: Iterable[RunRows]) -> list[list[RunRows]]:
    unique: dict[str, RunRows] = {}
    for run in runs:
        unique.setdefault(run.run_uid, run)
    if len(unique) <= MOST_FILES:
        return [[run] for run in unique.values()]
    return [list(unique.values())]


def _payload_columns(runs: Sequence[RunRows]) -> dict[str, Columns]:
    tables = dict.fromkeys(table for run in runs for table in run.records)
    payload: dict[str, Columns]
    payload = {table: columns_of_all(_records(runs, table)) for table in tables}
    for table, columns in payload.items():
        if "run_uid" not in columns:
            raise InvalidRecordError(
                f"the records of table {table!r} have no field run_uid; declare it in their class"
            )
    return payload


def _records(runs: Sequence[RunRows], table: str) -> list[RecordLike]:
    return [record for run in runs for record in run.records.get(table, ())]


def _payload_of(group: Sequence[RunRows], columns: Mapping[str, Columns]) -> dict[str, bytes]:
    stem = stem_of(run.run_uid for run in group)
    files = {}
    for table, known in columns.items():
        rows = [record.model_dump() for record in _records(group, table)]
        if rows:
            _check_declared(known, rows, table=table)
            files[file_key(table, stem)] = to_parquet(table_of_rows(table, rows, columns=known))
    return files


def _check_declared(columns: Columns, rows: Iterable[Mapping[str, object]], *, table: str) -> None:
    for row in rows:
        if extra := row.keys() - columns.keys():
            raise InvalidRecordError(
                f"table {table!r}: {min(extra)!r} is not declared in the record's class, so it would "
                "be lost: add the field"
            )


def _commit_of(group: Sequence[RunRows]) -> dict[str, bytes]:
    rows = table_of_rows(RUNS, [row for run in group for row in run.runs], columns=RUN_COLUMNS)
    return {file_key(RUNS, stem_of(run.run_uid for run in group)): to_parquet(rows)}


def put_whole(storage: Storage, objects: Mapping[str, bytes]) -> frozenset[str]:
    """Put each of *objects* if its key is absent or holds a torn file; return the keys put.

    Like `put_if_absent`: atomic and durable for each object. Reads only files that existed before;
    whole ones stay as they are. If the process dies in between, a torn file may have been moved to
    `DAMAGED` and not yet replaced.

    Raises:
        StorageError: A request failed. Call again.
    """
    if not objects:
        return frozenset()
    new = storage.put_if_absent(objects)
    torn = {key: objects[key] for key in objects if key not in new and _move_if_torn(storage, key)}
    return new | storage.put_if_absent(torn) if torn else new


def _move_if_torn(storage: Storage, key: str) -> bool:
    """Move the file at *key* to `DAMAGED` if it is torn; return whether it was."""
    try:
        entry = storage.head(key)
        if entry is None or not is_torn(storage, entry):
            return False
    except (
        StorageError
    ) as error:  # a writer without permission to read records its runs all the same
        _log.info("cannot check %s: %s", key, error, extra={"action": "file_not_checked"})
        return False
    # Exactly this entry: of several writers that found it torn, all but the first would otherwise
    # move the whole file that the first wrote in its place.
    storage.move(entry, f"{DAMAGED}/{key}")
    _log.warning(
        "%s/%s was torn: moved it to %s, and wrote it again",
        storage.uri,
        key,
        DAMAGED,
        extra={"action": "torn_file_replaced", "key": key},
    )
    return True
