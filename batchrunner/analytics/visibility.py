"""Which written file a run is read from, when several hold it, and its rows there."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from batchrunner.analytics.layout import file_key, stem_in
from batchrunner.analytics.record import RUNS
from batchrunner.analytics.snapshot import Snapshot
from batchrunner.analytics.written_files import FILE, read_files
from batchrunner.storage import Entry

if TYPE_CHECKING:
    import pyarrow as pa

_NEEDED = ("run_uid", "capability_table")


@dataclass(frozen=True, slots=True)
class WrittenRuns:
    """What the written files of the `runs` table say.

    Attributes:
        rows: Their rows, each with its `FILE`; when asked for, all columns of them.
        home: The file that a run is read from, by `run_uid`; without those that were compacted.
        tables: Where the runs of a file have payload, by its name; files without any too.
    """

    rows: pa.Table
    home: Mapping[str, str]
    tables: Mapping[str, AbstractSet[str]]

    def strays(self) -> set[str]:
        """Return the names of files that also hold runs which are read from elsewhere."""
        pairs = zip(_texts(self.rows, FILE), _texts(self.rows, "run_uid"), strict=True)
        return {stem for stem, uid in pairs if self.home.get(uid) != stem}


def runs_written(
    snapshot: Snapshot, *, whole: bool = False, without: AbstractSet[str] = frozenset()
) -> WrittenRuns:
    """Return what the written files of `runs` say, less those named in *without*.

    *whole* rows are needed by who reads the table, not by who looks for payload.

    A run that was compacted is read from the compacted file; else from the file that holds it
    alone, which only its first writer made; else from the first by name of the sets it is in.
    """
    files = snapshot.written(RUNS)
    files = {key: entry for key, entry in files.items() if stem_in(key) not in without}
    rows = read_files(snapshot, files, table=RUNS, only=None if whole else _NEEDED)
    home = _homes(snapshot, RUNS, rows)
    tables: dict[str, set[str]] = {stem: set() for stem in rows[FILE].unique().to_pylist()}
    for stem, table in zip(_texts(rows, FILE), _texts(rows, "capability_table"), strict=True):
        if table is not None:
            tables[stem].add(table)
    return WrittenRuns(rows, home, tables)


def rows_written(snapshot: Snapshot, table: str, *, runs: WrittenRuns) -> pa.Table:
    """Return the rows of *table* in written files, each run's from its home; with `FILE`.

    Raises:
        ObjectNotFoundError: A compaction removed one since: take another snapshot.
    """
    rows = runs.rows
    if table != RUNS:
        # Where a compacted file is lost, a run may be compacted in `runs` and recorded again in
        # this table, or the other way round: each table is looked at by itself.
        if snapshot.damaged:
            runs = replace(runs, home=_homes(snapshot, table, runs.rows))
        rows = read_files(snapshot, _payload_files(snapshot, table, runs), table=table)
    pairs = zip(_texts(rows, FILE), _texts(rows, "run_uid"), strict=True)
    at_home = [runs.home.get(uid) == stem for stem, uid in pairs]
    return rows if all(at_home) else rows.filter(at_home)


def all_rows(snapshot: Snapshot, *, table: str) -> pa.Table:
    """Return the rows of *table*, of every run once.

    Raises:
        ObjectNotFoundError: A compaction removed a file since: take another snapshot.
    """
    import pyarrow as pa

    runs = runs_written(snapshot, whole=table == RUNS)
    written = rows_written(snapshot, table, runs=runs).drop_columns([FILE])
    with snapshot.compacted(table) as compacted:
        return pa.concat_tables([compacted.dataset().to_table(), written])


def _homes(snapshot: Snapshot, table: str, rows: pa.Table) -> dict[str, str]:
    """Return the file that each run in *rows* is read from, if *table* has not compacted it."""
    compacted = set(_compacted_among(snapshot, table, rows["run_uid"].unique()))
    home: dict[str, str] = {}
    for stem, uid in sorted(set(zip(_texts(rows, FILE), _texts(rows, "run_uid"), strict=True))):
        if uid not in compacted:
            home.setdefault(uid, stem)
    return home


def _payload_files(snapshot: Snapshot, table: str, runs: WrittenRuns) -> dict[str, Entry]:
    there, found = snapshot.written(table), {}
    for stem in sorted(set(runs.home.values())):
        key = file_key(table, stem)
        if table in runs.tables[stem] and key in there:
            found[key] = there[key]
        elif table in runs.tables[stem]:
            snapshot.explain_loss(key)
    return found


def _compacted_among(snapshot: Snapshot, table: str, wanted: pa.Array) -> Iterator[str]:
    import pyarrow.compute as pc

    if not len(wanted) or not snapshot.catalog.files.get(table):
        return
    with snapshot.compacted(table) as compacted:
        for place in range(len(compacted)):
            found = compacted.rows(place, ["run_uid"])["run_uid"]
            yield from found.filter(pc.is_in(found, wanted)).unique().to_pylist()


def _texts(rows: pa.Table, column: str) -> list[Any]:
    return list(rows[column].to_pylist())
