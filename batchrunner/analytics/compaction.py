"""Compaction: replaces many small files with few large ones, while others write and read."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from math import inf
from typing import TYPE_CHECKING

from batchrunner.analytics.catalog import Catalog, publish_catalog
from batchrunner.analytics.compaction_input import CompactionInput, RoundLimits, select_input
from batchrunner.analytics.integrity import check_catalogs, check_compacted_files, torn_files_named
from batchrunner.analytics.layout import compacted_stem, compaction_in, file_key
from batchrunner.analytics.schemas import Schemas
from batchrunner.analytics.snapshot import CompactedFiles, ReadCache, Snapshot, take_snapshot
from batchrunner.analytics.table_files import arrow_schema, to_parquet
from batchrunner.storage import Storage

if TYPE_CHECKING:
    import pyarrow as pa

THOROUGH = RoundLimits(files=50_000, size=inf, growth=None)
"""Limits of a round of `compact()`: it leaves at most one file of each table that is not full."""

LIGHT = RoundLimits(files=1024, size=16 << 20, growth=2)
"""Limits of a round in the background of a writer. While a table grows a thousandfold, a row is
copied some ten times, and about ten files are not full."""

_FILE_BYTES = 64 << 20
"""A compacted file is full when its rows take this many bytes in memory: some 10 MB of Parquet."""


@dataclass(frozen=True, slots=True)
class CompactionReport:
    """Counts the files that a compaction replaced, created and deleted.

    Attributes:
        replaced: Files that readers ignore from now on.
        created: New files that readers read instead.
        deleted: Files removed that earlier compactions had replaced, or left when they died.
        left: Files of `runs`, made by `write`, that remain for later rounds.
        lost_race: Whether another compaction published first, so that this one replaced nothing.
        passed_over: Files left as they are because they cannot be read: the reason, by key.
    """

    replaced: int = 0
    created: int = 0
    deleted: int = 0
    left: int = 0
    lost_race: bool = False
    passed_over: Mapping[str, str] = field(default_factory=dict)

    def and_then(self, other: CompactionReport) -> CompactionReport:
        """Return one report of two rounds: this one, then *other*."""
        return CompactionReport(
            self.replaced + other.replaced,
            self.created + other.created,
            self.deleted + other.deleted,
            other.left,
            other.lost_race,
            {**self.passed_over, **other.passed_over},
        )


def compact_once(
    storage: Storage, schemas: Schemas, *, cache: ReadCache, limits: RoundLimits
) -> CompactionReport:
    """Run one compaction round within *limits*. Pass the same *cache* to a retry.

    Atomic: readers ignore the new files until the new catalog, one object that is put if absent,
    names them. Replaced files stay until the next compaction, for readers that still read them.

    Raises:
        ObjectNotFoundError: Another compaction removed a file meanwhile: try again.
        StorageError: A request failed. Readers still see every run once.
    """
    with (
        take_snapshot(storage, schemas, cache=cache, open_all=False) as snapshot,
        torn_files_named(snapshot),
    ):
        check_catalogs(snapshot, newest=True)
        check_compacted_files(snapshot, thorough=limits.growth is None)
        # If a compacted file is lost, compact nothing: the files that it replaced may be all that
        # is left of a run. And a run that was recorded again would be compacted a second time, and
        # appear twice once the user restores the lost file.
        if snapshot.damaged:
            return CompactionReport(passed_over=snapshot.passed_over)
        return _compact(snapshot, limits)


def _compact(snapshot: Snapshot, limits: RoundLimits) -> CompactionReport:
    selected = select_input(snapshot, limits)
    catalog, created = _write(snapshot, selected, limits)
    # Delete only after the compacted files were read: if one is torn, the files that it replaced
    # may be all that is left of its runs.
    report = CompactionReport(deleted=_collect_garbage(snapshot), passed_over=snapshot.passed_over)
    if not catalog.replaced:
        return report
    if not publish_catalog(snapshot.storage, catalog):
        snapshot.storage.delete(created)  # no catalog will ever name them
        return replace(report, lost_race=True)
    replaced, left = len(catalog.replaced), selected.left
    return replace(report, replaced=replaced, created=len(created), left=left)


def _collect_garbage(snapshot: Snapshot) -> int:
    """Delete replaced files, and those of compactions that died or lost a race; return the count.

    Compacted files with a number above the catalog's stay: a running compaction may be making them.
    """
    named = {key for keys in snapshot.catalog.files.values() for key in keys}
    listed = [key for files in snapshot.files.values() for key in files]
    garbage = [key for key in listed if key in snapshot.catalog.replaced]
    for key in listed:
        number = compaction_in(key)
        if number is not None and number <= snapshot.catalog.number and key not in named:
            garbage.append(key)
    garbage = list(dict.fromkeys(garbage))
    snapshot.storage.delete(garbage)
    return len(garbage)


def _write(
    snapshot: Snapshot, selected: CompactionInput, limits: RoundLimits
) -> tuple[Catalog, list[str]]:
    """Write the new files; return the catalog that is to name them, and their keys."""
    old, number = snapshot.catalog, snapshot.catalog.number + 1
    files, small = dict(old.files), dict(old.small)
    replaced, created = set(selected.replaced), list[str]()
    for table in sorted({*selected.rows, *small}):
        merged, rows = _merged(snapshot, table, selected.rows.get(table), limits)
        new = []
        for index, data in enumerate(_full_files(rows)):
            new.append(file_key(table, compacted_stem(number, index)))
            snapshot.storage.put_if_absent({new[-1]: data})
        files[table] = (*_without(merged, files.get(table, ())), *new)
        small[table] = (*_without(merged, small.get(table, ())), *new[-1:])  # the others are full
        replaced |= merged
        created += new
    for table, keys in selected.adopted.items():
        files[table] = (*files.get(table, ()), *keys)
    return Catalog(number, files, frozenset(replaced), small), created


def _without(merged: frozenset[str], keys: Iterable[str]) -> Iterator[str]:
    return (key for key in keys if key not in merged)


def _merged(
    snapshot: Snapshot, table: str, rows: pa.Table | None, limits: RoundLimits
) -> tuple[frozenset[str], pa.Table]:
    """Add the rows of compacted files that are not full to *rows*.

    Returns:
        The keys of these files, none of them torn, and all the rows.
    """
    import pyarrow as pa

    nothing = arrow_schema(snapshot.schemas[table]).empty_table()
    new = nothing if rows is None else rows
    with ExitStack() as opened:
        small = _small_files(snapshot, table, opened)
        keys = _to_merge({key: rows for key, (rows, _) in small.items()}, len(new), limits)
        if not len(new) and len(keys) < 2:  # it would copy one file, unchanged
            return frozenset(), nothing
        pieces = [small[key][1].dataset().to_table() for key in keys]
    return frozenset(keys), pa.concat_tables([*pieces, new])


def _small_files(
    snapshot: Snapshot, table: str, opened: ExitStack
) -> dict[str, tuple[int, CompactedFiles]]:
    """Return each compacted file of *table* that is not full, with the count of its rows."""
    small = {}
    for key in snapshot.catalog.small.get(table, ()):
        file = opened.enter_context(snapshot.compacted(table, keys=[key]))
        if len(file):  # else it could not be opened, and was passed over
            small[key] = file.dataset().count_rows(), file
    return small


def _to_merge(sizes: Mapping[str, int], total: int, limits: RoundLimits) -> list[str]:
    """Return the keys of the files, with row counts in *sizes*, to merge with *total* new rows.

    The smallest first: each chosen file raises the size limit for the next one.
    """
    chosen = []
    for key, size in sorted(sizes.items(), key=lambda item: item[1]):
        if limits.growth is not None and size > limits.growth * total:
            break
        chosen.append(key)
        total += size
    return chosen


def _full_files(rows: pa.Table) -> Iterator[bytes]:
    """Yield *rows* as Parquet files, all but the last of them full.

    No run is split: a reader without the catalog can take it whole from any file that holds it.
    """
    step = max(1, len(rows) * _FILE_BYTES // max(rows.nbytes, 1))
    start = 0
    while start < len(rows):
        stop = _end_of_run(rows, min(start + step, len(rows)))
        yield to_parquet(rows.slice(start, stop - start).combine_chunks())
        start = stop


def _end_of_run(rows: pa.Table, stop: int) -> int:
    """Return the first position at or after *stop* where the rows of another run begin."""
    import pyarrow.compute as pc

    if stop == len(rows):
        return stop
    last = rows["run_uid"][stop - 1]
    others = pc.not_equal(rows["run_uid"].slice(stop), last)
    further = pc.index(others, value=True).as_py()
    return len(rows) if further < 0 else stop + further
