"""Writing runs: payload first, `runs` last, each file created if there is none that is whole."""

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
"""Up to so many runs of a call get files of their own; more share one per table."""


@dataclass(frozen=True, slots=True)
class WriteReceipt:
    """What a call of `write_with_receipt` has seen to: all of it is durable.

    Attributes:
        refs: One for each run, in the order given, whoever wrote it first.
        new_files: Keys of the files that this call created. Empty when everything was there.
    """

    refs: tuple[CapabilityRunRef, ...]
    new_files: frozenset[str]

    def resolve_run_uri(self, run_uid: str) -> str | None:
        """Return the URI of a run of this call, None for others."""
        return next((ref.store_uri for ref in self.refs if ref.run_uid == run_uid), None)


def write_rows(runs: Sequence[RunRows], *, storage: Storage, schemas: Schemas) -> frozenset[str]:
    """Write *runs*, each once; return the keys that were free.

    Everything is checked before anything is written. A death anywhere leaves payload that nobody
    sees, and that the same call adopts when it is repeated.

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
    for table, known in {**columns, RUNS: RUN_COLUMNS}.items():
        schemas.claim(table, known)
    reports = {
        report_key(run.run_uid): run.report.encode(errors="backslashreplace")
        for run in runs
        if run.report
    }
    new = storage.put_if_absent(reports) if reports else frozenset()
    new |= put_whole(storage, payload)
    # Last: a run is there for readers from the moment that its rows of `runs` are.
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
    found: dict[str, Columns]
    found = {table: columns_of_all(_records(runs, table)) for table in tables}
    for table, columns in found.items():
        if "run_uid" not in columns:
            raise InvalidRecordError(f"the records of table {table!r} have no field run_uid")
    return found


def _records(runs: Sequence[RunRows], table: str) -> list[RecordLike]:
    return [record for run in runs for record in run.records.get(table, ())]


def _payload_of(group: Sequence[RunRows], columns: Mapping[str, Columns]) -> dict[str, bytes]:
    stem = stem_of(run.run_uid for run in group)
    files = {}
    for table, known in columns.items():
        rows = [record.model_dump() for record in _records(group, table)]
        if rows:
            _no_more_than(known, rows, table=table)
            files[file_key(table, stem)] = to_parquet(table_of_rows(table, rows, columns=known))
    return files


def _no_more_than(columns: Columns, rows: Iterable[Mapping[str, object]], *, table: str) -> None:
    for row in rows:
        if extra := row.keys() - columns.keys():
            raise InvalidRecordError(
                f"table {table!r}: {min(extra)!r} is no field of the records' class; declare "
                "it, or it would be lost"
            )


def _commit_of(group: Sequence[RunRows]) -> dict[str, bytes]:
    rows = table_of_rows(RUNS, [row for run in group for row in run.runs], columns=RUN_COLUMNS)
    return {file_key(RUNS, stem_of(run.run_uid for run in group)): to_parquet(rows)}


DAMAGED = "_damaged"
"""Where torn files go, under the key that they had: somebody may want to look at them."""

_log = logging.getLogger(__name__)


def put_whole(storage: Storage, objects: Mapping[str, bytes]) -> frozenset[str]:
    """Write each of *objects* whose key is free, or holds a torn file; return their keys.

    As `put_if_absent`: atomic and durable, one by one. Only what was there before is read, and
    whole files stay as they are. Dying in between leaves what a deleted file would.

    Raises:
        StorageError: It could not be done. Call again.
    """
    if not objects:
        return frozenset()
    new = storage.put_if_absent(objects)
    torn = {key: objects[key] for key in objects if key not in new and _moved_away(storage, key)}
    return new | storage.put_if_absent(torn) if torn else new


def _moved_away(storage: Storage, key: str) -> bool:
    """Move the file at *key* to `DAMAGED` if it is torn; tell whether that was so."""
    try:
        entry = storage.head(key)
        if entry is None or not is_torn(storage, entry):
            return False
    except StorageError as error:  # whoever may only write goes on as ever
        _log.info("cannot look at %s: %s", key, error, extra={"action": "file_not_checked"})
        return False
    # Exactly this one: of several writers that find it, the others meet the whole file of the first.
    storage.move(entry, f"{DAMAGED}/{key}")
    _log.warning(
        "%s/%s was torn: moved it to %s, and wrote it again",
        storage.uri,
        key,
        DAMAGED,
        extra={"action": "file_mended", "key": key},
    )
    return True
