"""Reads a snapshot: checks for lost and torn files, and retries if a compaction removed one."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import TypeVar

from batchrunner.analytics.catalog import newest_catalog
from batchrunner.analytics.layout import CATALOGS, compaction_in
from batchrunner.analytics.record import RUNS
from batchrunner.analytics.schemas import Schemas
from batchrunner.analytics.snapshot import CompactedFiles, ReadCache, Snapshot, take_snapshot
from batchrunner.analytics.table_files import is_torn
from batchrunner.analytics.written_files import runs_written
from batchrunner.errors import (
    BatchRunnerError,
    ObjectChangedError,
    ObjectNotFoundError,
    QueryError,
    StorageError,
)
from batchrunner.storage import Storage

T = TypeVar("T")

_MOST_TRIES = 10
"""A read fails if a compaction removed one of its files in each of so many tries."""

_OF_ARROW = ("IOError", "OSError", "ArrowInvalid", "deserialize", "Parquet")
"""Words in DuckDB's errors when Arrow cannot read a file. If a failing query contains one itself,
that costs one needless check."""

_log = logging.getLogger(__name__)


def read_snapshot(
    storage: Storage,
    schemas: Schemas,
    read: Callable[[Snapshot], T],
    *,
    tables: Iterable[str] | None,
) -> T:
    """Return the result of *read* on a snapshot of *tables*, or of all tables if None.

    Logs a warning for each file that is passed over because it cannot be read.

    Raises:
        StorageError: Catalogs are missing.
        ObjectNotFoundError: In each of ten tries a compaction removed a file.
    """
    cache = ReadCache()

    def once() -> T:
        with (
            take_snapshot(storage, schemas, cache=cache, tables=tables) as snapshot,
            torn_files_named(snapshot),
        ):
            check_catalogs(snapshot)
            result = read(snapshot)
            log_passed_over(snapshot.passed_over)
            return result

    return retry_when_replaced(once)


def retry_when_replaced(read: Callable[[], T]) -> T:
    """Return the result of *read*; retry it if a file is gone, which a compaction has replaced."""
    for _ in range(_MOST_TRIES - 1):
        try:
            return read()
        except (ObjectNotFoundError, ObjectChangedError) as error:
            _log.info("retried a read: %s", error, extra={"action": "snapshot_retried"})
    return read()


def log_passed_over(passed_over: Mapping[str, str]) -> None:
    """Log a warning for each file in *passed_over*, which has the reason by key."""
    for key, why in passed_over.items():
        _log.warning("%s", why, extra={"action": "file_passed_over", "key": key})


@contextmanager
def torn_files_named(snapshot: Snapshot) -> Iterator[None]:
    """Find the torn compacted files if the block fails to read one.

    Arrow's error names no file. The footers were readable when the files were opened, so the damage
    is elsewhere, and only reading each file to its end finds it.

    Raises:
        ObjectNotFoundError: Files are torn: take another snapshot, which passes over them.
    """
    try:
        yield
    except (OSError, ValueError) as error:
        if isinstance(error, BatchRunnerError) and not _is_of_a_scan(error):
            raise
        torn = {
            key: f"{snapshot.storage.uri}/{key} is torn: {error}; restore it from a copy"
            for key in _torn(snapshot)
        }
        if not torn:
            raise
        snapshot.cache.torn.update(torn)
        raise ObjectNotFoundError("; ".join(torn.values())) from error


def _is_of_a_scan(error: BatchRunnerError) -> bool:
    return isinstance(error, QueryError) and any(word in str(error) for word in _OF_ARROW)


def _torn(snapshot: Snapshot) -> Iterator[str]:
    for key in (key for keys in snapshot.catalog.files.values() for key in keys):
        entry = None if key in snapshot.cache.torn else snapshot.storage.head(key)
        if entry is not None and is_torn(snapshot.storage, entry):
            yield key


def check_compacted_files(snapshot: Snapshot, *, thorough: bool) -> None:
    """Pass over missing and torn compacted files; check all files if *thorough*.

    Else check only the files of `runs`, those that are not full, and those that the listing lacks.

    Raises:
        ObjectNotFoundError: A compaction removed one meanwhile: try again.
    """
    catalog = snapshot.catalog
    for table, keys in catalog.files.items():
        unlisted = [key for key in keys if key not in snapshot.files.get(table, {})]
        every = thorough or table == RUNS
        opened = keys if every else {*unlisted, *catalog.small.get(table, ())}
        with snapshot.compacted(table, keys=opened):
            pass  # opening passes over files that cannot be read


def check_catalogs(snapshot: Snapshot, *, newest: bool = False) -> None:
    """Check by the numbers of the compacted files that no catalog is missing.

    Files with the number after the catalog's belong to a compaction that still runs or died: all of
    their runs are still in other files. Files with later numbers were named by a catalog that is
    gone. If only the newest catalog is gone, the numbers do not show it; files with runs that no
    other file holds do. These are looked for if *newest* is true or the store has no catalog.
    Compactions need that, since the next one would delete those files; reads do without.

    Raises:
        StorageError: Catalogs are missing: without them a read would return wrong rows.
        ObjectNotFoundError: A compaction published a newer catalog: take another snapshot.
    """
    number = snapshot.catalog.number
    listed = (key for key in snapshot.files[RUNS] if "/compacted-" in key)
    unnamed = [key for key in listed if (compaction_in(key) or 0) > number]
    later = [key for key in unnamed if (compaction_in(key) or 0) > number + 1]
    if not later and unnamed and (newest or not number):
        later = unnamed if _hold_other_runs(snapshot, unnamed) else []
    if not later:
        return
    if newest_catalog(snapshot.storage).number != number:
        raise ObjectNotFoundError(f"{snapshot.storage.uri}: a compaction was faster; read again")
    raise StorageError(
        f"{snapshot.storage.uri}/{later[0]} holds runs, and no catalog names it: some of "
        f"{snapshot.storage.uri}/{CATALOGS}/ is missing; restore that folder from where the store "
        "was copied. Until then nothing here is compacted or deleted"
    )


def _hold_other_runs(snapshot: Snapshot, unnamed: list[str]) -> bool:
    """Return whether one of the *unnamed* files holds a run that no other file holds."""
    # Listed again: a run may have been written, and compacted, while the folder was listed.
    listed = {entry.key: entry for entry in snapshot.storage.list(RUNS)}
    now = replace(snapshot, files={**snapshot.files, RUNS: listed}, passed_over={})
    elsewhere = set(runs_written(now).rows["run_uid"].unique().to_pylist())
    with now.compacted(RUNS) as named:
        elsewhere |= _uids(named)
    with now.compacted(RUNS, keys=unnamed) as files:
        return not _uids(files) <= elsewhere


def _uids(files: CompactedFiles) -> set[str]:
    columns = (files.rows(place, ["run_uid"])["run_uid"] for place in range(len(files)))
    return {uid for column in columns for uid in column.unique().to_pylist()}
