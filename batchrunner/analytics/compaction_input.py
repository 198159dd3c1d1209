"""Selects the input of one compaction round: the written files that it takes, and which of their rows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from batchrunner.analytics.layout import file_key, stem_in
from batchrunner.analytics.record import RUNS
from batchrunner.analytics.snapshot import Snapshot
from batchrunner.analytics.table_files import UnreadableFileError, arrow_schema, open_parquet
from batchrunner.analytics.written_files import FILE, WrittenRuns, rows_written, runs_written

if TYPE_CHECKING:
    import pyarrow as pa

FULL_BYTES = 8 << 20
"""A payload file as large as this is not copied: the catalog names it as it is."""


@dataclass(frozen=True, slots=True)
class RoundLimits:
    """How much one round may do.

    Attributes:
        files: Most written files of `runs` in one round: its catalog names each of them.
        size: Most bytes to copy, about: the round holds their rows in memory.
        growth: Merge compacted files of up to so many times the rows of the input; None merges
            all that are not full.
    """

    files: int
    size: float
    growth: int | None


@dataclass(frozen=True, slots=True)
class CompactionInput:
    """What one round makes compacted files of.

    Attributes:
        rows: By table, without the rows that an earlier compaction took.
        adopted: Keys of payload files that are large enough to count as they are, by table.
        replaced: Keys of the files that hold `rows`, or only copies of runs that other files hold.
        left: Count of written files of `runs` that remain for later rounds.
    """

    rows: Mapping[str, pa.Table]
    adopted: Mapping[str, tuple[str, ...]]
    replaced: frozenset[str]
    left: int


def select_input(snapshot: Snapshot, limits: RoundLimits) -> CompactionInput:
    """Return what a round within *limits* compacts. An unreadable file keeps all of its runs.

    Raises:
        ObjectNotFoundError: Another compaction removed a file meanwhile: try again.
    """
    snapshot, left = _within(snapshot, limits)
    unreadable: frozenset[str] = frozenset()
    # That a file cannot be read shows only when its rows are. Then begin anew without it: its runs
    # may be in a set as well, which is their home from then on.
    while True:
        runs = runs_written(snapshot, whole=True, without=unreadable)
        adopted = {table: tuple(keys) for table, keys in _adopted(snapshot, runs).items()}
        rows = dict(_rows_of_each(snapshot, _without_adopted(runs, adopted)))
        more = frozenset(stem_in(key) for key in snapshot.passed_over) & runs.tables.keys()
        if not more:
            break
        unreadable |= more
    keys = {file_key(t, stem) for stem, tables in runs.tables.items() for t in (RUNS, *tables)}
    replaced = frozenset(keys).difference(*adopted.values())
    return CompactionInput(rows, adopted, replaced, left)


def _within(snapshot: Snapshot, limits: RoundLimits) -> tuple[Snapshot, int]:
    """Return *snapshot* with as much of `runs` as *limits* allow, and the count of the others.

    The first by name: where several files hold a run, the first of them is its home.
    """
    sizes = _bytes_to_copy(snapshot)
    chosen: dict[str, None] = {}
    written, size = sorted(snapshot.written(RUNS)), 0
    for key in written[: limits.files]:
        size += sizes[stem_in(key)]
        if chosen and size > limits.size:
            break
        chosen[key] = None
    later = set(written) - chosen.keys()
    runs = {key: entry for key, entry in snapshot.files[RUNS].items() if key not in later}
    return replace(snapshot, files={**snapshot.files, RUNS: runs}), len(later)


def _bytes_to_copy(snapshot: Snapshot) -> dict[str, int]:
    """Return the bytes to copy for each stem, over all tables."""
    sizes: dict[str, int] = {}
    for files in snapshot.files.values():
        for key, entry in files.items():
            size = entry.size if entry.size < FULL_BYTES else 0
            sizes[stem_in(key)] = sizes.get(stem_in(key), 0) + size
    return sizes


def _adopted(snapshot: Snapshot, runs: WrittenRuns) -> dict[str, list[str]]:
    """Return the keys of large payload files, by table, of which every run is at home.

    A file with runs of other homes is copied: named as it is, it would show these runs twice.
    """
    adopted: dict[str, list[str]] = {}
    mixed = runs.stems_with_other_homes()
    for stem, tables in runs.tables.items():
        for table in tables if stem not in mixed else ():
            if _is_large(snapshot, table, file_key(table, stem)):
                adopted.setdefault(table, []).append(file_key(table, stem))
    return adopted


def _is_large(snapshot: Snapshot, table: str, key: str) -> bool:
    """Return whether the file at *key* is large. Pass over it if it cannot be read."""
    entry = snapshot.files[table].get(key)
    if entry is None or entry.size < FULL_BYTES:
        return False
    try:
        # Now, as its rows are not read: once a catalog names a torn file, only a copy helps.
        known = arrow_schema(snapshot.schemas[table])
        open_parquet(snapshot.storage, entry, known=known).close()
    except UnreadableFileError as error:
        snapshot.passed_over[key] = str(error)
    return True


def _without_adopted(runs: WrittenRuns, adopted: Mapping[str, tuple[str, ...]]) -> WrittenRuns:
    """Return *runs* without payload in the *adopted* files, so that these are not read."""
    keys = {key for each in adopted.values() for key in each}
    tables = {
        stem: {table for table in names if file_key(table, stem) not in keys}
        for stem, names in runs.tables.items()
    }
    return replace(runs, tables=tables)


def _rows_of_each(snapshot: Snapshot, runs: WrittenRuns) -> Iterator[tuple[str, pa.Table]]:
    for table in (RUNS, *sorted(set().union(*runs.tables.values()))):
        rows = rows_written(snapshot, table, runs=runs).drop_columns([FILE])
        if len(rows):
            yield table, rows
