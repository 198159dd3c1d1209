"""The keys of source and sink in one table on disk, compared by DuckDB in bounded memory."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING, Any, Self

from batchrunner.errors import CannotStartError, StorageError

if TYPE_CHECKING:
    import pyarrow as pa

MEMORY = "1GB"
"""How much DuckDB may hold in memory; the rest is in a temporary folder."""

_ROWS_AT_ONCE = 250_000
_MOST_THREADS = 4


class Side(IntEnum):
    """Where a key stands."""

    SOURCE = 0
    """In the rows of a shard that were not set aside."""
    SINK = 1
    """In the part of a shard."""
    ASIDE = 2
    """In the rows that a shard set aside."""


@dataclass(frozen=True, slots=True)
class Odd:
    """A key that a shard's rows and its part do not hold equally often.

    Attributes:
        shard: Id.
        keys: One for each key column.
        expected: How often the rows of the shard hold it.
        found: How often its part does.
        in_source: How often the rows of all shards hold it.
        aside: How often it was set aside, in all shards.
    """

    shard: int
    keys: tuple[bytes, ...]
    expected: int
    found: int
    in_source: int
    aside: int


MISSING = "found < expected"
DOUBLED = "found > expected AND in_source + aside > 0"
UNKNOWN = "found > expected AND in_source + aside = 0"


class KeyTable:
    """Keys by shard and side. One thread; raises StorageError where the disk does not do."""

    def __init__(self, connection: Any, *, columns: int) -> None:
        import pyarrow as pa

        self._db, self._keys = connection, [f"k{n}" for n in range(columns)]
        self._schema = pa.schema(
            [("shard", pa.int32()), ("side", pa.int8())]
            + [(name, pa.large_binary()) for name in self._keys]
        )
        self._held: list[pa.Table] = []
        self._rows = 0
        blobs = ", ".join(f"{name} BLOB" for name in self._keys)
        self._db.execute(f"CREATE TABLE keys (shard INTEGER, side TINYINT, {blobs})")

    @classmethod
    @contextmanager
    def opened(cls, *, columns: int) -> Iterator[Self]:
        """Open an empty table, in a folder of its own that goes with it.

        Raises:
            CannotStartError: DuckDB is not installed.
            StorageError: The temporary folder cannot hold the keys.
        """
        duckdb = need_duckdb()
        with ExitStack() as opened:
            folder = opened.enter_context(tempfile.TemporaryDirectory(prefix="batchrunner-keys-"))
            try:
                connection = opened.enter_context(duckdb.connect(f"{folder}/keys.duckdb"))
                connection.execute("SET memory_limit = ?", [MEMORY])
                connection.execute("SET temp_directory = ?", [f"{folder}/temp"])
                connection.execute("SET threads = ?", [min(_MOST_THREADS, os.cpu_count() or 1)])
                connection.execute("SET preserve_insertion_order = false")
                connection.execute("SET enable_progress_bar = false")  # stdout is for findings
                yield cls(connection, columns=columns)
            except duckdb.Error as error:
                raise StorageError(
                    f"the keys cannot be compared in {folder}: {error}; set TMPDIR to a folder "
                    "with more room"
                ) from error

    def add(self, shard: int, side: Side, keys: Sequence[pa.Array]) -> None:
        """Add rows: the keys of each key column."""
        import pyarrow as pa

        rows = len(keys[0])
        columns = [
            pa.repeat(pa.scalar(value, kind), rows) for value, kind in self._where(shard, side)
        ]
        self._held.append(pa.table([*columns, *keys], schema=self._schema))
        self._rows += rows
        if self._rows >= _ROWS_AT_ONCE:
            self._flush()

    def _where(self, shard: int, side: Side) -> list[tuple[int, Any]]:
        return [(shard, self._schema.field(0).type), (int(side), self._schema.field(1).type)]

    def _flush(self) -> None:
        import pyarrow as pa

        if self._held:
            self._db.register("held", pa.concat_tables(self._held))
            self._db.execute("INSERT INTO keys SELECT * FROM held")
            self._db.unregister("held")
        self._held, self._rows = [], 0

    def drop(self, shard: int) -> None:
        """Leave *shard* out."""
        self._flush()
        self._db.execute("DELETE FROM keys WHERE shard = ?", [shard])

    def compare(self) -> None:
        """Find the odd ones: by shard first, and what they are by the keys of all shards."""
        self._flush()
        names = ", ".join(self._keys)
        self._db.execute(
            f"CREATE TABLE differ AS SELECT shard, {names},"  # noqa: S608 - names of our own
            f" count(*) FILTER (side = {Side.SOURCE:d}) AS expected,"
            f" count(*) FILTER (side = {Side.SINK:d}) AS found"
            f" FROM keys GROUP BY shard, {names} HAVING expected <> found"
        )
        self._db.execute(
            "CREATE TABLE odd AS SELECT differ.*, coalesce(all_of.in_source, 0) AS in_source,"  # noqa: S608
            f" coalesce(all_of.aside, 0) AS aside FROM differ LEFT JOIN (SELECT {names},"
            f" count(*) FILTER (side = {Side.SOURCE:d}) AS in_source,"
            f" count(*) FILTER (side = {Side.ASIDE:d}) AS aside"
            f" FROM keys SEMI JOIN differ USING ({names}) GROUP BY {names}) AS all_of"
            f" USING ({names})"
        )

    def rows(self, side: Side) -> int:
        """Count the keys of one side."""
        (count,) = self._db.execute("SELECT count(*) FROM keys WHERE side = ?", [side]).fetchone()
        return int(count)

    def count(self, kind: str) -> int:
        """Count the odd keys of *kind*: MISSING, DOUBLED or UNKNOWN."""
        (count,) = self._db.execute(f"SELECT count(*) FROM odd WHERE {kind}").fetchone()  # noqa: S608
        return int(count)

    def by_shard(self, kind: str) -> dict[int, int]:
        """Count the odd keys of *kind* in each shard that has any."""
        found = self._db.execute(
            f"SELECT shard, count(*) FROM odd WHERE {kind} GROUP BY shard ORDER BY shard"  # noqa: S608
        )
        return dict(found.fetchall())

    def odd(self, kind: str, *, most: int) -> list[Odd]:
        """Return the first odd keys of *kind*."""
        names = ", ".join(self._keys)
        found = self._db.execute(
            f"SELECT shard, {names}, expected, found, in_source, aside FROM odd WHERE {kind}"  # noqa: S608
            f" ORDER BY shard, {names} LIMIT {most:d}"
        ).fetchall()
        return [Odd(row[0], tuple(map(bytes, row[1:-4])), *row[-4:]) for row in found]


def need_duckdb() -> Any:
    """Return the module.

    Raises:
        CannotStartError: It is not installed.
    """
    try:
        import duckdb
    except ImportError as error:
        raise CannotStartError(
            "comparing keys needs DuckDB: pip install 'batchrunner[query]'"
        ) from error
    return duckdb
