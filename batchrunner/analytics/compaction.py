"""Compaction: few large files in place of many small ones, whatever dies and whoever reads."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from batchrunner.analytics.catalog import Catalog, publish_catalog
from batchrunner.analytics.layout import compacted_stem, compaction_in, file_key, stem_in
from batchrunner.analytics.record import RUNS
from batchrunner.analytics.schemas import Schemas
from batchrunner.analytics.snapshot import Memory, Snapshot, take_snapshot
from batchrunner.analytics.table_files import to_parquet
from batchrunner.analytics.visibility import rows_written, runs_written
from batchrunner.analytics.written_files import FILE
from batchrunner.storage import Storage

if TYPE_CHECKING:
    import pyarrow as pa

MOST_AT_ONCE = 50_000
"""Written files of `runs` that one round takes in: its catalog names them all, and its memory holds
their rows."""

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


@dataclass(frozen=True, slots=True)
class _Intake:
    """What goes into the new files.

    Attributes:
        rows: By table, less those that were compacted before.
        replaced: Keys of the files that hold them, or nothing but copies of runs in others.
    """

    rows: Mapping[str, pa.Table]
    replaced: frozenset[str]


def compact_once(storage: Storage, schemas: Schemas, *, memory: Memory) -> CompactionReport:
    """Do one round of a compaction. *memory* is kept for the next try.

    Its files are seen by nobody before the catalog names them, which one object decides, created
    only if absent. What they replace is deleted by the next compaction, not by this one.

    Raises:
        ObjectNotFoundError: Another compaction removed a file meanwhile: try again.
        StorageError: It could not be done; whatever was done is harmless.
    """
    with take_snapshot(storage, schemas, memory=memory) as snapshot:
        return _compact(snapshot)


def _compact(snapshot: Snapshot) -> CompactionReport:
    report = CompactionReport(deleted=_clear(snapshot), passed_over=snapshot.passed_over)
    some, left = _first_files(snapshot)
    intake = _intake(some)
    if not intake.replaced:
        return report
    catalog, created = _write(some, intake)
    if not publish_catalog(snapshot.storage, catalog):
        snapshot.storage.delete(created)
        return replace(report, lost_race=True)
    return replace(report, replaced=len(catalog.replaced), created=len(created), left=left)


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


def _first_files(snapshot: Snapshot) -> tuple[Snapshot, int]:
    """Return *snapshot* with so much of `runs` as one round takes, and how much is left.

    The first by name: where a run is in several files, the first of them is its home.
    """
    written = sorted(snapshot.written(RUNS))
    late = set(written[MOST_AT_ONCE:])
    runs = {key: entry for key, entry in snapshot.files[RUNS].items() if key not in late}
    return replace(snapshot, files={**snapshot.files, RUNS: runs}), len(late)


def _intake(snapshot: Snapshot) -> _Intake:
    """Return the written files that are whole; one that is not stays, and keeps all of its runs."""
    broken: frozenset[str] = frozenset()
    while True:
        runs = runs_written(snapshot, whole=True, without=broken)
        tables = [RUNS, *sorted(set().union(*runs.tables.values()))]
        rows = {table: rows_written(snapshot, table, runs=runs) for table in tables}
        found = frozenset(stem_in(key) for key in snapshot.passed_over) & runs.tables.keys()
        if not found:
            break
        broken |= found
    keys = {
        file_key(table, stem) for stem, others in runs.tables.items() for table in (RUNS, *others)
    }
    return _Intake({table: rows[table].drop_columns([FILE]) for table in tables}, frozenset(keys))


def _write(snapshot: Snapshot, intake: _Intake) -> tuple[Catalog, list[str]]:
    """Write the new files; return the catalog that would name them, and their keys."""
    number = snapshot.catalog.number + 1
    files, replaced, created = dict(snapshot.catalog.files), set(intake.replaced), []
    for table, rows in intake.rows.items():
        if not len(rows):
            continue
        kept, last, all_rows = _with_last(snapshot, table, rows)
        new = []
        for index, data in enumerate(_full_files(all_rows)):
            new.append(file_key(table, compacted_stem(number, index)))
            snapshot.storage.put_if_absent({new[-1]: data})
        files[table] = (*kept, *new)
        replaced.update(last)
        created += new
    return Catalog(number, files, frozenset(replaced)), created


def _with_last(
    snapshot: Snapshot, table: str, rows: pa.Table
) -> tuple[tuple[str, ...], tuple[str, ...], pa.Table]:
    """Put *rows* after those of the last compacted file: of each table, it alone is not full.

    Returns:
        The keys that stay, the one that is replaced (if any, and whole), and the rows.
    """
    import pyarrow as pa

    keys = snapshot.catalog.files.get(table, ())
    with snapshot.compacted(table, keys=keys[-1:]) as last:
        if not len(last):
            return keys, (), rows
        return keys[:-1], keys[-1:], pa.concat_tables([last.dataset().to_table(), rows])


def _full_files(rows: pa.Table) -> Iterator[bytes]:
    """Yield Parquet files of *rows*, full but the last."""
    step = max(1, len(rows) * _FILE_BYTES // max(rows.nbytes, 1))
    for start in range(0, len(rows), step):
        yield to_parquet(rows.slice(start, step).combine_chunks())
