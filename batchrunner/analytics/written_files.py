"""Reads the files that `write` made: many small ones, each once, and each run from one of them."""

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


FILE = "_file"
"""Name of the column with the stem of each row's file. No field of a record begins with `_`."""

_READERS = 16
_AT_ONCE = 1000
"""Files whose rows are read and then made one table: thousands of tiny tables need much memory."""

_NEEDED = ("run_uid", "capability_table")


def read_files(
    snapshot: Snapshot,
    files: Mapping[str, Entry],
    *,
    table: str,
    only: Sequence[str] | None = None,
) -> pa.Table:
    """Return the rows of *files*, with the column `FILE`. Passes over files that cannot be read.

    Rows that the snapshot's cache holds are not read again.

    Args:
        snapshot: The snapshot that lists the files.
        files: Listed files, by key.
        table: Their table.
        only: The columns to read; by default, all.

    Raises:
        ObjectNotFoundError: A compaction removed a file: take another snapshot to find its rows.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    columns = snapshot.columns(table) if files else snapshot.schemas.get(table, RUN_COLUMNS)
    schema = arrow_schema({name: columns[name] for name in (columns if only is None else only)})
    schema = schema.append(pa.field(FILE, pa.string()))
    wanted = {stem_in(key): entry for key, entry in files.items()}
    cached = snapshot.cache.rows.get(table)
    if cached is None or cached.schema != schema:
        cached = pa.Table.from_batches([], schema)
    if len(cached):
        cached = cached.filter(pc.is_in(cached[FILE], pa.array(wanted, pa.string())))
    missing = wanted.keys() - set(cached[FILE].unique().to_pylist())
    reader = _FileReader(snapshot, table, schema)
    rows = pa.concat_tables([cached, *reader.tables([wanted[stem] for stem in sorted(missing)])])
    # Kept before the error is raised, so that the retry does not read these rows again.
    snapshot.cache.rows[table] = rows
    if reader.deleted:
        snapshot.cache.deleted.update(reader.deleted)
        raise ObjectNotFoundError(
            f"{snapshot.storage.uri}/{reader.deleted[0]} was deleted; read again"
        )
    return rows


class _FileReader:
    """Reads files of one table.

    Attributes:
        deleted: Keys of the files that a compaction deleted since they were listed.
    """

    def __init__(self, snapshot: Snapshot, table: str, schema: pa.Schema) -> None:
        self.deleted: list[str] = []
        self._snapshot = snapshot
        self._table = arrow_schema(snapshot.schemas.get(table, RUN_COLUMNS))
        self._schema = schema
        self._wanted = schema.remove(schema.get_field_index(FILE))

    def tables(self, entries: Sequence[Entry]) -> list[pa.Table]:
        """Return the rows of the files in *entries*, as tables of up to 1,000 files each."""
        import pyarrow as pa

        tables = []
        with ThreadPoolExecutor(min(_READERS, len(entries)) or 1) as pool:
            for start in range(0, len(entries), _AT_ONCE):
                some = entries[start : start + _AT_ONCE]
                # Fetched in parallel, parsed one by one: threads gain nothing on tiny files.
                fetched = zip(some, self._fetch_parallel(some, pool), strict=True)
                rows = [self._rows(entry, data) for entry, data in fetched]
                tables.append(pa.concat_tables(rows).combine_chunks())
        return tables

    def _fetch_parallel(
        self, entries: Sequence[Entry], pool: ThreadPoolExecutor
    ) -> list[bytes | None]:
        """Return the bytes of the files, in order; None for a deleted one."""
        # One task for each thread: a task for each tiny file costs more than reading it.
        shares = [entries[first::_READERS] for first in range(_READERS)]
        try:
            fetched = list(pool.map(self._fetch_each, shares))
        except RuntimeError:  # the interpreter is shutting down: pools take no more work
            return self._fetch_each(entries)
        return [fetched[at % _READERS][at // _READERS] for at in range(len(entries))]

    def _fetch_each(self, entries: Sequence[Entry]) -> list[bytes | None]:
        return [self._fetch(entry) for entry in entries]

    def _fetch(self, entry: Entry) -> bytes | None:
        try:
            with self._snapshot.storage.open(entry) as file:
                return file.read()
        except (ObjectNotFoundError, ObjectChangedError):
            self.deleted.append(entry.key)
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
    """Return an array that repeats *text* *count* times."""
    import pyarrow as pa

    # From buffers: `pa.scalar` imports pandas if it is installed, which is slower than a short read.
    data = text.encode()
    ends = array("i", range(0, (count + 1) * len(data), len(data)))
    buffers = pa.py_buffer(ends), pa.py_buffer(data * count)
    return pa.StringArray.from_buffers(count, *buffers)


@dataclass(frozen=True, slots=True)
class WrittenRuns:
    """The runs in files that `write` made, and the one file that each run is read from: its home.

    Attributes:
        rows: Their rows of the `runs` table, with `FILE`; all columns, or those of `_NEEDED`.
        home: Stem of each run's home, by `run_uid`; runs in compacted files have none.
        tables: Tables in which the runs of a file have payload, by its stem; may be empty.
    """

    rows: pa.Table
    home: Mapping[str, str]
    tables: Mapping[str, AbstractSet[str]]

    def stems_with_other_homes(self) -> set[str]:
        """Return the stems of files with at least one run that is read from another file."""
        pairs = zip(_texts(self.rows, FILE), _texts(self.rows, "run_uid"), strict=True)
        return {stem for stem, uid in pairs if self.home.get(uid) != stem}


def runs_written(
    snapshot: Snapshot, *, whole: bool = False, without: AbstractSet[str] = frozenset()
) -> WrittenRuns:
    """Return the runs in the files of `runs` that `write` made, each with its home.

    A compacted run is read from the compacted file. Any other run is read from the file that holds
    it alone, which only its first writer made, or else from the first, by name, of the sets that
    hold it.

    Args:
        snapshot: Lists the files.
        whole: Read all columns, for readers of the table; else only those that lead to payload.
        without: Stems of files to leave out.
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
    """Return the rows of *table* in files that `write` made, each run's from its home; with `FILE`.

    Raises:
        ObjectNotFoundError: A compaction removed a file since: take another snapshot.
    """
    rows = runs.rows
    if table != RUNS:
        # If a compacted file is lost, a run may be compacted in `runs` and recorded again in this
        # table, or the other way round: then each table has homes of its own.
        if snapshot.damaged:
            runs = replace(runs, home=_homes(snapshot, table, runs.rows))
        rows = read_files(snapshot, _payload_files(snapshot, table, runs), table=table)
    pairs = zip(_texts(rows, FILE), _texts(rows, "run_uid"), strict=True)
    at_home = [runs.home.get(uid) == stem for stem, uid in pairs]
    return rows if all(at_home) else rows.filter(at_home)


def all_rows(snapshot: Snapshot, *, table: str) -> pa.Table:
    """Return all rows of *table*, those of each run once.

    Raises:
        ObjectNotFoundError: A compaction removed a file since: take another snapshot.
    """
    import pyarrow as pa

    runs = runs_written(snapshot, whole=table == RUNS)
    written = rows_written(snapshot, table, runs=runs).drop_columns([FILE])
    with snapshot.compacted(table) as compacted:
        return pa.concat_tables([compacted.dataset().to_table(), written])


def _homes(snapshot: Snapshot, table: str, rows: pa.Table) -> dict[str, str]:
    """Return the home, by `run_uid`, of each run in *rows* that is not compacted in *table*."""
    compacted = set(_compacted_among(snapshot, table, rows["run_uid"].unique()))
    home: dict[str, str] = {}
    for stem, uid in sorted(set(zip(_texts(rows, FILE), _texts(rows, "run_uid"), strict=True))):
        if uid not in compacted:
            home.setdefault(uid, stem)
    return home


def _payload_files(snapshot: Snapshot, table: str, runs: WrittenRuns) -> dict[str, Entry]:
    """Return the files of *table* that the homes in *runs* name; pass over missing ones."""
    written, payload = snapshot.written(table), {}
    for stem in sorted(set(runs.home.values())):
        key = file_key(table, stem)
        if table in runs.tables[stem] and key in written:
            payload[key] = written[key]
        elif table in runs.tables[stem]:
            snapshot.pass_over_missing(key)
    return payload


def _compacted_among(snapshot: Snapshot, table: str, wanted: pa.Array) -> Iterator[str]:
    import pyarrow.compute as pc

    if not len(wanted) or not snapshot.catalog.files.get(table):
        return
    with snapshot.compacted(table) as compacted:
        for place in range(len(compacted)):
            uids = compacted.rows(place, ["run_uid"])["run_uid"]
            yield from uids.filter(pc.is_in(uids, wanted)).unique().to_pylist()


def _texts(rows: pa.Table, column: str) -> list[Any]:
    return list(rows[column].to_pylist())
