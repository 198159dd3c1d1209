"""Selects what one compaction round merges: files that `write` made, and the rows to take."""

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
"""A payload file of this size or more is not copied: the catalog names the file itself."""


@dataclass(frozen=True, slots=True)
class RoundLimits:
    """Limits of one compaction round.

    Attributes:
        files: Most files of `runs` to replace: the catalog of the round names each of them.
        size: About the most bytes to copy: the round holds their rows in memory.
        growth: Merge a compacted file that is not full only if it has at most this many times the
            rows collected so far; None merges all that are not full.
    """

    files: int
    size: float
    growth: int | None


@dataclass(frozen=True, slots=True)
class CompactionInput:
    """The rows and files that one compaction round merges.

    Attributes:
        rows: Rows to copy, by table; runs that an earlier compaction took are left out.
        adopted: Keys of payload files that the catalog names as they are, being large; by table.
        replaced: Keys of the files that hold `rows`, or only copies of runs that other files hold.
        left: Number of files of `runs`, made by `write`, that remain for later rounds.
    """

    rows: Mapping[str, pa.Table]
    adopted: Mapping[str, tuple[str, ...]]
    replaced: frozenset[str]
    left: int


def select_input(snapshot: Snapshot, limits: RoundLimits) -> CompactionInput:
    """Return the input of a round within *limits*.

    The files of a write are left out if one of them cannot be read.

    Raises:
        ObjectNotFoundError: Another compaction removed a file meanwhile: try again.
    """
    snapshot, left = _within(snapshot, limits)
    unreadable: frozenset[str] = frozenset()
    # Only reading its rows shows that a file is unreadable. Then begin again without it: its runs
    # may also be in a set, from which they are then read.
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
    """Return *snapshot* with only the files of `runs` within *limits*, and the number left out.

    Takes files in the order of their names: a run in several files is read from the first one.
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
    """Return how many bytes to copy for each stem, added over the files with it in all tables."""
    sizes: dict[str, int] = {}
    for files in snapshot.files.values():
        for key, entry in files.items():
            size = entry.size if entry.size < FULL_BYTES else 0
            sizes[stem_in(key)] = sizes.get(stem_in(key), 0) + size
    return sizes


def _adopted(snapshot: Snapshot, runs: WrittenRuns) -> dict[str, list[str]]:
    """Return the keys of large payload files from which all of their runs are read, by table.

    A file that shares a run with another is copied: named as it is, it would show the run twice.
    """
    adopted: dict[str, list[str]] = {}
    mixed = runs.stems_with_other_homes()
    for stem, tables in runs.tables.items():
        for table in tables if stem not in mixed else ():
            if _is_large(snapshot, table, file_key(table, stem)):
                adopted.setdefault(table, []).append(file_key(table, stem))
    return adopted


def _is_large(snapshot: Snapshot, table: str, key: str) -> bool:
    """Return whether the file at *key* is large; if it is and cannot be read, pass over it."""
    entry = snapshot.files[table].get(key)
    if entry is None or entry.size < FULL_BYTES:
        return False
    try:
        # Check now, as its rows are not read: once a catalog names a torn file, only a copy helps.
        known = arrow_schema(snapshot.schemas[table])
        open_parquet(snapshot.storage, entry, known=known).close()
    except UnreadableFileError as error:
        snapshot.passed_over[key] = str(error)
    return True


def _without_adopted(runs: WrittenRuns, adopted: Mapping[str, tuple[str, ...]]) -> WrittenRuns:
    """Return *runs* without the payload in *adopted* files, so that these files are not read."""
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
