"""Compaction: few large files in place of many small ones, whatever dies and whoever reads."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from math import inf
from typing import TYPE_CHECKING

from batchrunner.analytics.catalog import Catalog, publish_catalog
from batchrunner.analytics.intake import Effort, Intake, take_in
from batchrunner.analytics.layout import compacted_stem, compaction_in, file_key
from batchrunner.analytics.schemas import Schemas
from batchrunner.analytics.snapshot import CompactedFiles, Memory, Snapshot, take_snapshot
from batchrunner.analytics.soundness import check_catalogs, damage_named, look_for_losses
from batchrunner.analytics.table_files import arrow_schema, to_parquet
from batchrunner.storage import Storage

if TYPE_CHECKING:
    import pyarrow as pa

THOROUGH = Effort(files=50_000, size=inf, growth=None)
"""Of a round that somebody asked for: of each table, one file at most is not full afterwards."""

LIGHT = Effort(files=1024, size=16 << 20, growth=2)
"""Of a round that a writer does by the way. While a table grows a thousandfold, a row is copied
some ten times, and there are about as many files that are not full."""

_FILE_BYTES = 64 << 20
"""Bytes of rows in memory that make a compacted file full: some 10 MB of Parquet."""


@dataclass(frozen=True, slots=True)
class CompactionReport:
    """What a compaction did.

    Attributes:
        replaced: Files that no longer count.
        created: Files that count in their place.
        deleted: Files removed that earlier compactions had replaced, or left half done.
        left: Written files of `runs` that are for another round.
        lost_race: Another compaction was first, and nothing was replaced by this one.
        passed_over: Files left as they are since they cannot be read, and why, by key.
    """

    replaced: int = 0
    created: int = 0
    deleted: int = 0
    left: int = 0
    lost_race: bool = False
    passed_over: Mapping[str, str] = field(default_factory=dict)

    def and_then(self, other: CompactionReport) -> CompactionReport:
        """Return what both have done, *other* after this one."""
        return CompactionReport(
            self.replaced + other.replaced,
            self.created + other.created,
            self.deleted + other.deleted,
            other.left,
            other.lost_race,
            {**self.passed_over, **other.passed_over},
        )


def compact_once(
    storage: Storage, schemas: Schemas, *, memory: Memory, effort: Effort
) -> CompactionReport:
    """Do one round of a compaction. *memory* is kept for the next try.

    Its files are seen by nobody before the catalog names them, which one object decides, created
    only if absent. What they replace is deleted by the next compaction, not by this one.

    Raises:
        ObjectNotFoundError: Another compaction removed a file meanwhile: try again.
        StorageError: It could not be done; whatever was done is harmless.
    """
    with (
        take_snapshot(storage, schemas, memory=memory, held=False) as snapshot,
        damage_named(snapshot),
    ):
        check_catalogs(snapshot, newest=True)
        look_for_losses(snapshot, thorough=effort.growth is None)
        # What is replaced may be all that there is of a run, or be recorded again; and what was
        # recorded again would be there twice when the lost file is restored.
        if snapshot.damaged:
            return CompactionReport(passed_over=snapshot.passed_over)
        return _compact(snapshot, effort)


def _compact(snapshot: Snapshot, effort: Effort) -> CompactionReport:
    intake = take_in(snapshot, effort)
    catalog, created = _write(snapshot, intake, effort)
    # Not before what is there was read: if it is torn, what it replaced may be all that is left.
    report = CompactionReport(deleted=_clear(snapshot), passed_over=snapshot.passed_over)
    if not catalog.replaced:
        return report
    if not publish_catalog(snapshot.storage, catalog):
        snapshot.storage.delete(created)
        return replace(report, lost_race=True)
    replaced, left = len(catalog.replaced), intake.left
    return replace(report, replaced=replaced, created=len(created), left=left)


def _clear(snapshot: Snapshot) -> int:
    """Delete what does not count any more, and what compactions left that died or lost a race.

    Only by the catalog that counts now: a compaction that is at work has a higher number.
    """
    counting = {key for keys in snapshot.catalog.files.values() for key in keys}
    listed = [key for files in snapshot.files.values() for key in files]
    useless = [key for key in listed if key in snapshot.catalog.replaced]
    for key in listed:
        number = compaction_in(key)
        if number is not None and number <= snapshot.catalog.number and key not in counting:
            useless.append(key)
    useless = list(dict.fromkeys(useless))
    snapshot.storage.delete(useless)
    return len(useless)


def _write(snapshot: Snapshot, intake: Intake, effort: Effort) -> tuple[Catalog, list[str]]:
    """Write the new files; return the catalog that would name them, and their keys."""
    old, number = snapshot.catalog, snapshot.catalog.number + 1
    files, small = dict(old.files), dict(old.small)
    replaced, created = set(intake.replaced), list[str]()
    for table in sorted({*intake.rows, *small}):
        merged, rows = _merged(snapshot, table, intake.rows.get(table), effort)
        new = []
        for index, data in enumerate(_full_files(rows)):
            new.append(file_key(table, compacted_stem(number, index)))
            snapshot.storage.put_if_absent({new[-1]: data})
        files[table] = (*_without(merged, files.get(table, ())), *new)
        small[table] = (*_without(merged, small.get(table, ())), *new[-1:])  # the last is not full
        replaced |= merged
        created += new
    for table, keys in intake.adopted.items():
        files[table] = (*files.get(table, ()), *keys)
    return Catalog(number, files, frozenset(replaced), small), created


def _without(merged: frozenset[str], keys: Iterable[str]) -> Iterator[str]:
    return (key for key in keys if key not in merged)


def _merged(
    snapshot: Snapshot, table: str, rows: pa.Table | None, effort: Effort
) -> tuple[frozenset[str], pa.Table]:
    """Put *rows* together with those of compacted files that are not full.

    Returns:
        The keys of these files, all of them whole, and the rows.
    """
    import pyarrow as pa

    nothing = arrow_schema(snapshot.schemas[table]).empty_table()
    new = nothing if rows is None else rows
    with ExitStack() as opened:
        small = _small_files(snapshot, table, opened)
        keys = _to_merge({key: rows for key, (rows, _) in small.items()}, len(new), effort)
        if not len(new) and len(keys) < 2:  # it would be the same again
            return frozenset(), nothing
        pieces = [small[key][1].dataset().to_table() for key in keys]
    return frozenset(keys), pa.concat_tables([*pieces, new])


def _small_files(
    snapshot: Snapshot, table: str, opened: ExitStack
) -> dict[str, tuple[int, CompactedFiles]]:
    """Return the rows in each compacted file of *table* that is not full, and the file."""
    found = {}
    for key in snapshot.catalog.small.get(table, ()):
        one = opened.enter_context(snapshot.compacted(table, keys=[key]))
        if len(one):  # it is whole
            found[key] = one.dataset().count_rows(), one
    return found


def _to_merge(sizes: Mapping[str, int], total: int, effort: Effort) -> list[str]:
    """Return which of the files to merge with *total* rows, the smallest first."""
    chosen = []
    for key, size in sorted(sizes.items(), key=lambda item: item[1]):
        if effort.growth is not None and size > effort.growth * total:
            break
        chosen.append(key)
        total += size
    return chosen


def _full_files(rows: pa.Table) -> Iterator[bytes]:
    """Yield Parquet files of *rows*, full but the last; no run is in two of them.

    So whoever reads the folder without the catalog may take each run from one file of those that
    hold it, and has it whole.
    """
    step = max(1, len(rows) * _FILE_BYTES // max(rows.nbytes, 1))
    start = 0
    while start < len(rows):
        stop = _end_of_run(rows, min(start + step, len(rows)))
        yield to_parquet(rows.slice(start, stop - start).combine_chunks())
        start = stop


def _end_of_run(rows: pa.Table, stop: int) -> int:
    """Return the first place from *stop* on where the rows of another run begin."""
    import pyarrow.compute as pc

    if stop == len(rows):
        return stop
    last = rows["run_uid"][stop - 1]
    others = pc.not_equal(rows["run_uid"].slice(stop), last)
    further = pc.index(others, value=True).as_py()
    return len(rows) if further < 0 else stop + further
