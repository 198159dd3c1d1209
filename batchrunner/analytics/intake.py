"""What one round of a compaction takes in: which written files, and which of their rows."""

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
"""A file of payload as large as this is not copied: it counts as it is, under its own name."""


@dataclass(frozen=True, slots=True)
class Effort:
    """How much one round does.

    Attributes:
        files: Written files of `runs` that it takes in, at most: its catalog names them all.
        size: Bytes of files that it copies, about, at most: its memory holds their rows.
        growth: It takes in compacted files of up to so many times the rows that it adds; None:
            all that are not full.
    """

    files: int
    size: float
    growth: int | None


@dataclass(frozen=True, slots=True)
class Intake:
    """What goes into the new files.

    Attributes:
        rows: By table, less those that were compacted before.
        adopted: Keys of files that are large enough to count as they are, by table.
        replaced: Keys of the files that hold `rows`, or nothing but copies of runs in others.
        left: Written files of `runs` that are for another round.
    """

    rows: Mapping[str, pa.Table]
    adopted: Mapping[str, tuple[str, ...]]
    replaced: frozenset[str]
    left: int


def take_in(snapshot: Snapshot, effort: Effort) -> Intake:
    """Return the written files that are whole; one that is not stays, and keeps all of its runs.

    Raises:
        ObjectNotFoundError: Another compaction removed one meanwhile: try again.
    """
    some, left = _first_files(snapshot, effort)
    broken: frozenset[str] = frozenset()
    while True:
        runs = runs_written(some, whole=True, without=broken)
        adopted = {table: tuple(keys) for table, keys in _adopted(some, runs).items()}
        rows = _rows(some, _less(runs, adopted))
        found = frozenset(stem_in(key) for key in some.passed_over) & runs.tables.keys()
        if not found:
            break
        broken |= found
    keys = {file_key(t, stem) for stem, tables in runs.tables.items() for t in (RUNS, *tables)}
    return Intake(rows, adopted, frozenset(keys).difference(*adopted.values()), left)


def _first_files(snapshot: Snapshot, effort: Effort) -> tuple[Snapshot, int]:
    """Return *snapshot* with so much of `runs` as *effort* allows, and how much is left.

    The first by name: where a run is in several files, the first of them is its home.
    """
    sizes = _sizes(snapshot)
    kept: dict[str, None] = {}
    written, size = sorted(snapshot.written(RUNS)), 0
    for key in written[: effort.files]:
        size += sizes[stem_in(key)]
        if kept and size > effort.size:
            break
        kept[key] = None
    late = set(written) - kept.keys()
    runs = {key: entry for key, entry in snapshot.files[RUNS].items() if key not in late}
    return replace(snapshot, files={**snapshot.files, RUNS: runs}), len(late)


def _sizes(snapshot: Snapshot) -> dict[str, int]:
    """Return the bytes that would be copied, by the name that files share in every table."""
    sizes: dict[str, int] = {}
    for files in snapshot.files.values():
        for key, entry in files.items():
            size = entry.size if entry.size < FULL_BYTES else 0
            sizes[stem_in(key)] = sizes.get(stem_in(key), 0) + size
    return sizes


def _adopted(snapshot: Snapshot, runs: WrittenRuns) -> dict[str, list[str]]:
    """Return the keys of large files of payload, by table: those whose runs are all at home."""
    found: dict[str, list[str]] = {}
    strays = runs.strays()
    for stem, tables in runs.tables.items():
        for table in tables if stem not in strays else ():
            if _is_large(snapshot, table, file_key(table, stem)):
                found.setdefault(table, []).append(file_key(table, stem))
    return found


def _is_large(snapshot: Snapshot, table: str, key: str) -> bool:
    """Tell whether the file at *key* is large, and can be read; if it cannot, pass over it."""
    entry = snapshot.files[table].get(key)
    if entry is None or entry.size < FULL_BYTES:
        return False
    try:
        known = arrow_schema(snapshot.schemas[table])
        open_parquet(snapshot.storage, entry, known=known).close()
    except UnreadableFileError as error:
        snapshot.passed_over[key] = str(error)
    return True


def _less(runs: WrittenRuns, adopted: Mapping[str, tuple[str, ...]]) -> WrittenRuns:
    """Return *runs* without payload in the *adopted* files, which are not read."""
    own = {key for keys in adopted.values() for key in keys}
    tables = {
        stem: {table for table in names if file_key(table, stem) not in own}
        for stem, names in runs.tables.items()
    }
    return replace(runs, tables=tables)


def _rows(snapshot: Snapshot, runs: WrittenRuns) -> dict[str, pa.Table]:
    return dict(_rows_of_each(snapshot, runs))


def _rows_of_each(snapshot: Snapshot, runs: WrittenRuns) -> Iterator[tuple[str, pa.Table]]:
    for table in (RUNS, *sorted(set().union(*runs.tables.values()))):
        rows = rows_written(snapshot, table, runs=runs).drop_columns([FILE])
        if len(rows):
            yield table, rows
