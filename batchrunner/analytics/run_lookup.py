"""Finds one run by its `run_uid`, if possible without reading the files of other runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from batchrunner.analytics.catalog import newest_catalog
from batchrunner.analytics.integrity import check_catalogs, torn_files_named
from batchrunner.analytics.layout import file_key, stem_of
from batchrunner.analytics.record import RUNS, Row
from batchrunner.analytics.schemas import Schemas
from batchrunner.analytics.snapshot import ReadCache, Snapshot, take_snapshot
from batchrunner.analytics.written_files import FILE, WrittenRuns, rows_written, runs_written
from batchrunner.errors import BatchRunnerError, RunNotFoundError, StorageError
from batchrunner.storage import Entry, Storage

if TYPE_CHECKING:
    import pyarrow as pa

_RECORD_AGAIN = "record the run again, which writes its files anew"


@dataclass(frozen=True, slots=True)
class RecordedRun:
    """A run as read back from the store.

    Attributes:
        run_uid: Name of the run.
        runs: Its rows of the `runs` table, at least one.
        records: Its records as rows, by table.
    """

    run_uid: str
    runs: tuple[Row, ...]
    records: Mapping[str, tuple[Row, ...]]

    @property
    def capability_id(self) -> str:
        """Name of the capability."""
        return str(self.runs[0]["capability_id"])

    @property
    def outputs_uri(self) -> str | None:
        """URI of its files, else of its report, else None."""
        uri: str | None = self.runs[0]["outputs_uri"]
        return uri


def find_run(
    storage: Storage, schemas: Schemas, run_uid: str, *, cache: ReadCache, records: bool
) -> RecordedRun:
    """Return run *run_uid* from the same files as queries; with its records if *records* is true.

    Raises:
        RunNotFoundError: There is no such run.
        ObjectNotFoundError: A compaction removed a file meanwhile: try again.
        StorageError: A file with rows of the run is torn or missing.
    """
    alone = _snapshot_of_one(storage, schemas, run_uid, cache)
    with torn_files_named(alone):
        run = _find(alone, run_uid, records=records)
    if run is not None and all(run.records.values()):
        return run
    # The run may be in a set, whose name is a hash of all its runs: only a listing finds that file.
    with take_snapshot(storage, schemas, cache=cache) as snapshot, torn_files_named(snapshot):
        check_catalogs(snapshot)
        run = _find(snapshot, run_uid, records=records)
        if run is None:
            raise _not_found(snapshot, run_uid)
        _check_complete(snapshot, run)
        return run


def _not_found(snapshot: Snapshot, run_uid: str) -> BatchRunnerError:
    place = snapshot.storage.uri
    own = snapshot.passed_over.get(file_key(RUNS, stem_of([run_uid])))
    if own is not None:
        return StorageError(f"{place}: run {run_uid!r} cannot be read: {own}; or {_RECORD_AGAIN}")
    others = [why for key, why in snapshot.passed_over.items() if _may_hold_any_run(key)]
    hint = f"; it may be in what cannot be read: {'; '.join(others)}" if others else ""
    return RunNotFoundError(
        f"{place} has no run {run_uid!r}{hint}; `batchrunner runs list --store {place}` shows those it has"
    )


def _may_hold_any_run(key: str) -> bool:
    folder, _, name = key.partition("/")
    return folder == RUNS and not name.startswith("run-")


def _snapshot_of_one(
    storage: Storage, schemas: Schemas, run_uid: str, cache: ReadCache
) -> Snapshot:
    """Return a snapshot of the compacted files and of the file that holds this run alone."""
    files = {RUNS: _file_of(storage, RUNS, run_uid)}
    # Not the cache of the caller: these listings are not of the whole table.
    own = ReadCache(torn=cache.torn)
    return Snapshot(storage, files, newest_catalog(storage), schemas.all(), own)


def _file_of(storage: Storage, table: str, run_uid: str) -> dict[str, Entry]:
    entry = storage.head(file_key(table, stem_of([run_uid])))
    return {} if entry is None else {entry.key: entry}


def _find(snapshot: Snapshot, run_uid: str, *, records: bool) -> RecordedRun | None:
    rows = _compacted_rows(snapshot, RUNS, run_uid)
    # If a compacted file is lost, the run may have been recorded again since: then its rows may be
    # in compacted files of one table and in written files of another.
    compacted, damaged = bool(rows), snapshot.damaged
    written = None if compacted and not damaged else _written(snapshot, run_uid)
    if written is not None:
        rows = rows or _dicts(rows_written(snapshot, RUNS, runs=written))
    if not rows:
        return None
    payload: dict[str, tuple[Row, ...]] = {}
    tables = dict.fromkeys(row["capability_table"] for row in rows if row["capability_table"])
    for table in tables if records else ():
        merged = _compacted_rows(snapshot, table, run_uid) if compacted or damaged else ()
        payload[table] = merged or (_payload(snapshot, table, run_uid, written) if written else ())
    return RecordedRun(run_uid, rows, payload)


def _written(snapshot: Snapshot, run_uid: str) -> WrittenRuns:
    """Return the rows of this run in files of `runs` that `write` made, and its home."""
    import pyarrow.compute as pc

    runs = runs_written(snapshot, whole=True)
    own = runs.rows.filter(pc.field("run_uid") == run_uid)
    home = {run_uid: runs.home[run_uid]} if run_uid in runs.home else {}
    return WrittenRuns(own, home, runs.tables)


def _check_complete(snapshot: Snapshot, run: RecordedRun) -> None:
    """Check that *run* has records in each table that its rows of `runs` name.

    Raises:
        StorageError: A table has none: the file that holds them cannot be read.
    """
    for table in (name for name, rows in run.records.items() if not rows):
        reasons = [why for key, why in snapshot.passed_over.items() if key.startswith(f"{table}/")]
        why = "; ".join(reasons) or "no file holds them; restore the files from a copy"
        raise StorageError(
            f"{snapshot.storage.uri}: the records of run {run.run_uid!r} in table {table!r} cannot "
            f"be read: {why}; or {_RECORD_AGAIN}"
        )


def _payload(snapshot: Snapshot, table: str, run_uid: str, runs: WrittenRuns) -> tuple[Row, ...]:
    if table not in snapshot.files:
        files = {**snapshot.files, table: _file_of(snapshot.storage, table, run_uid)}
        snapshot = replace(snapshot, files=files)
    return _dicts(rows_written(snapshot, table, runs=runs))


def _compacted_rows(snapshot: Snapshot, table: str, run_uid: str) -> tuple[Row, ...]:
    import pyarrow.dataset as ds

    if not snapshot.catalog.files.get(table):
        return ()
    with snapshot.compacted(table) as files:
        rows = files.dataset().to_table(filter=ds.field("run_uid") == run_uid)
    return tuple(rows.to_pylist())


def _dicts(rows: pa.Table) -> tuple[Row, ...]:
    return tuple(rows.drop_columns([FILE]).to_pylist())
