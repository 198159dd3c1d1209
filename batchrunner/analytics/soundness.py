"""What a store has lost: compacted files that the catalog names, and catalogs that named others."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from batchrunner.analytics.catalog import newest_catalog
from batchrunner.analytics.layout import CATALOGS, compaction_in
from batchrunner.analytics.record import RUNS
from batchrunner.analytics.snapshot import CompactedFiles, Snapshot
from batchrunner.analytics.table_files import is_torn
from batchrunner.analytics.written_files import runs_written
from batchrunner.errors import BatchRunnerError, ObjectNotFoundError, QueryError, StorageError

_OF_ARROW = ("IOError", "OSError", "ArrowInvalid", "deserialize", "Parquet")
"""What DuckDB passes on when Arrow cannot read a file; a word of the SQL costs a look, no more."""


@contextmanager
def damage_named(snapshot: Snapshot) -> Iterator[None]:
    """Find the compacted files that cannot be read, when the block could not read one.

    Their footers are whole, or they would not have been opened; what is torn is between.

    Raises:
        ObjectNotFoundError: Some are torn: take another snapshot, which passes over them.
    """
    try:
        yield
    except (OSError, ValueError) as error:
        if isinstance(error, BatchRunnerError) and not _is_of_a_scan(error):
            raise
        found = {key: f"{snapshot.storage.uri}/{key} is torn: {error}" for key in _torn(snapshot)}
        if not found:
            raise
        snapshot.memory.torn.update(found)
        raise ObjectNotFoundError("; ".join(found.values())) from error


def _is_of_a_scan(error: BatchRunnerError) -> bool:
    return isinstance(error, QueryError) and any(word in str(error) for word in _OF_ARROW)


def _torn(snapshot: Snapshot) -> Iterator[str]:
    for key in (key for keys in snapshot.catalog.files.values() for key in keys):
        entry = None if key in snapshot.memory.torn else snapshot.storage.head(key)
        if entry is not None and is_torn(snapshot.storage, entry):
            yield key


def look_for_losses(snapshot: Snapshot, *, thorough: bool) -> None:
    """Pass over the compacted files that are not there, or torn; of full ones if *thorough*.

    Raises:
        ObjectNotFoundError: A compaction replaced one meanwhile: try again.
    """
    catalog = snapshot.catalog
    for table, keys in catalog.files.items():
        unlisted = [key for key in keys if key not in snapshot.files.get(table, {})]
        every = thorough or table == RUNS
        opened = keys if every else {*unlisted, *catalog.small.get(table, ())}
        with snapshot.compacted(table, keys=opened):
            pass


def check_catalogs(snapshot: Snapshot, *, newest: bool = False) -> None:
    """Look whether compacted files count that no catalog tells of any more.

    A compaction that is at work, or died, has the number after the catalog's, and all of its runs
    are still elsewhere. Of those that died after the first catalog only a compaction looks at
    the runs, for the *newest* catalog alone may be gone: it would delete them next time.

    Raises:
        StorageError: Catalogs are gone: what is read without them is not what was written.
        ObjectNotFoundError: A compaction was faster: take another snapshot.
    """
    number = snapshot.catalog.number
    listed = (key for key in snapshot.files[RUNS] if "/compacted-" in key)
    unnamed = [key for key in listed if (compaction_in(key) or 0) > number]
    later = [key for key in unnamed if (compaction_in(key) or 0) > number + 1]
    if not later and unnamed and (newest or not number):
        later = unnamed if _holds_others(snapshot, unnamed) else []
    if not later:
        return
    if newest_catalog(snapshot.storage).number != number:
        raise ObjectNotFoundError(f"{snapshot.storage.uri}: a compaction was faster")
    raise StorageError(
        f"{snapshot.storage.uri}/{later[0]} holds runs, and no catalog says so: some of "
        f"{snapshot.storage.uri}/{CATALOGS}/ is missing; restore that folder from where the store "
        "was copied. Until then nothing here is put together or deleted"
    )


def _holds_others(snapshot: Snapshot, unnamed: list[str]) -> bool:
    """Tell whether a file of those *unnamed* holds a run that is nowhere else."""
    # Listed now: a run may have been written, and put together, while the folder was listed.
    listed = {entry.key: entry for entry in snapshot.storage.list(RUNS)}
    now = replace(snapshot, files={**snapshot.files, RUNS: listed}, passed_over={})
    known = set(runs_written(now).rows["run_uid"].unique().to_pylist())
    with now.compacted(RUNS) as named:
        known |= _uids(named)
    with now.compacted(RUNS, keys=unnamed) as files:
        return not _uids(files) <= known


def _uids(files: CompactedFiles) -> set[str]:
    each = (files.rows(place, ["run_uid"])["run_uid"] for place in range(len(files)))
    return {uid for found in each for uid in found.unique().to_pylist()}
