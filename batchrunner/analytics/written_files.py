"""Reading many small files of a table, and never one of them twice."""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from batchrunner.analytics.completed_run import RUN_COLUMNS
from batchrunner.analytics.layout import file_key, stem_in
from batchrunner.analytics.record import RUNS
from batchrunner.analytics.snapshot import Snapshot
from batchrunner.analytics.table_files import UnreadableFileError, arrow_schema, parse_rows
from batchrunner.errors import ObjectChangedError, ObjectNotFoundError
from batchrunner.storage import Entry

if TYPE_CHECKING:
    import pyarrow as pa


_READERS = 16
_AT_ONCE = 1000
"""Files read before their rows are put together: thousands of tiny tables need much memory."""

FILE = "_file"
"""The column that says which file a row came from, by name. No field of a record begins with _."""


def read_files(
    snapshot: Snapshot,
    files: Mapping[str, Entry],
    *,
    table: str,
    only: Sequence[str] | None = None,
) -> pa.Table:
    """Return the rows of *files* of *table*, with `FILE`; what cannot be read is passed over.

    What the same read has read before is not read again.

    Args:
        snapshot: Which files these are of.
        files: By key.
        table: Theirs.
        only: The columns to read; by default, all.

    Raises:
        ObjectNotFoundError: A compaction removed one since: take another snapshot, which has it.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    columns = snapshot.columns(table) if files else snapshot.schemas.get(table, RUN_COLUMNS)
    schema = arrow_schema({name: columns[name] for name in (columns if only is None else only)})
    schema = schema.append(pa.field(FILE, pa.string()))
    wanted = {stem_in(key): entry for key, entry in files.items()}
    kept = snapshot.memory.rows.get(table)
    if kept is None or kept.schema != schema:
        kept = pa.Table.from_batches([], schema)
    if len(kept):
        kept = kept.filter(pc.is_in(kept[FILE], pa.array(wanted, pa.string())))
    missing = wanted.keys() - set(kept[FILE].unique().to_pylist())
    reading = _Reading(snapshot, table, schema)
    rows = pa.concat_tables([kept, *reading.of([wanted[stem] for stem in sorted(missing)])])
    snapshot.memory.rows[table] = rows
    if reading.gone:
        snapshot.memory.gone.update(reading.gone)
        raise ObjectNotFoundError(f"{snapshot.storage.uri}/{reading.gone[0]} is gone")
    return rows


class _Reading:
    """Reads files of one table.

    Attributes:
        gone: Keys of those that are not there any more.
    """

    def __init__(self, snapshot: Snapshot, table: str, schema: pa.Schema) -> None:
        self.gone: list[str] = []
        self._snapshot = snapshot
        self._table = arrow_schema(snapshot.schemas.get(table, RUN_COLUMNS))
        self._schema = schema
        self._wanted = schema.remove(schema.get_field_index(FILE))

    def of(self, entries: Sequence[Entry]) -> list[pa.Table]:
        """Return the rows of the files of *entries*."""
        import pyarrow as pa

        pieces = []
        with ThreadPoolExecutor(min(_READERS, len(entries)) or 1) as pool:
            for start in range(0, len(entries), _AT_ONCE):
                some = entries[start : start + _AT_ONCE]
                # Fetched side by side, parsed one by one: that is work for one thread only.
                fetched = zip(some, self._fetched(some, pool), strict=True)
                rows = [self._rows(entry, data) for entry, data in fetched]
                pieces.append(pa.concat_tables(rows).combine_chunks())
        return pieces

    def _fetched(self, entries: Sequence[Entry], pool: ThreadPoolExecutor) -> list[bytes | None]:
        """Return what is in the files.

        Each thread is given a share of them: to hand them out one by one costs more than they do.
        """
        shares = [entries[first::_READERS] for first in range(_READERS)]
        try:
            found = list(pool.map(self._fetch_each, shares))
        except RuntimeError:  # the interpreter is about to end, and no pool takes work any more
            return self._fetch_each(entries)
        return [found[place % _READERS][place // _READERS] for place in range(len(entries))]

    def _fetch_each(self, entries: Sequence[Entry]) -> list[bytes | None]:
        return [self._fetch(entry) for entry in entries]

    def _fetch(self, entry: Entry) -> bytes | None:
        try:
            with self._snapshot.storage.open(entry) as file:
                return file.read()
        except (ObjectNotFoundError, ObjectChangedError):
            self.gone.append(entry.key)
            return None

    def _rows(self, entry: Entry, data: bytes | None) -> pa.Table:
        import pyarrow as pa

        if data is None:
            return pa.Table.from_batches([], self._schema)
        place = f"{self._snapshot.storage.uri}/{entry.key}"
        try:
            rows = parse_rows(data, table=self._table, wanted=self._wanted, place=place)
        except UnreadableFileError as error:
            self._snapshot.passed_over[entry.key] = str(error)
            return pa.Table.from_batches([], self._schema)
        name = _repeated(stem_in(entry.key), len(rows))
        return pa.Table.from_arrays([*rows.columns, name], schema=self._schema)


def _repeated(text: str, count: int) -> pa.Array:
    """Return *text* so many times.

    From buffers: `pa.scalar` imports pandas where it is there, which is longer than a short read.
    """
    import pyarrow as pa

    data = text.encode()
    ends = array("i", range(0, (count + 1) * len(data), len(data)))
    buffers = pa.py_buffer(ends), pa.py_buffer(data * count)
    return pa.StringArray.from_buffers(count, *buffers)


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
