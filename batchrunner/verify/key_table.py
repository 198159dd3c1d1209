"""A table of the keys of source and sink, on disk: DuckDB compares them in bounded memory."""

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
"""Limit of DuckDB's memory; it keeps the other keys in a temporary folder."""

_ROWS_AT_ONCE = 250_000
_MOST_THREADS = 4


class Side(IntEnum):
    """The rows of a shard that a key belongs to."""

    SOURCE = 0
    """The shard's rows of the source, without those that failed."""
    SINK = 1
    """The rows of the shard's part."""
    FAILED = 2
    """The shard's rows of the source that failed."""


@dataclass(frozen=True, slots=True)
class Mismatch:
    """A key that is not equally often in a shard's rows of the source and in its part.

    Attributes:
        shard: Id of the shard.
        keys: The encoded value of each key column.
        expected: Count in the shard's rows of the source that succeeded.
        in_part: Count in the shard's part.
        in_source: Count in the rows of all shards that succeeded.
        failed: Count in the failed rows of all shards.
    """

    shard: int
    keys: tuple[bytes, ...]
    expected: int
    in_part: int
    in_source: int
    failed: int


MISSING = "in_part < expected"
DOUBLED = "in_part > expected AND in_source + failed > 0"
UNKNOWN = "in_part > expected AND in_source + failed = 0"
"""SQL conditions that classify mismatches."""


class KeyTable:
    """Keys by shard and side. Not safe in several threads.

    Used inside the block of `opened`, which turns an error of any method into a StorageError.
    """

    def __init__(self, connection: Any, *, columns: int) -> None:
        import pyarrow as pa

        self._db, self._keys = connection, [f"k{n}" for n in range(columns)]
        self._schema = pa.schema(
            [("shard", pa.int32()), ("side", pa.int8())]
            + [(name, pa.large_binary()) for name in self._keys]
        )
        self._unwritten: list[pa.Table] = []
        self._rows = 0
        blobs = ", ".join(f"{name} BLOB" for name in self._keys)
        self._db.execute(f"CREATE TABLE keys (shard INTEGER, side TINYINT, {blobs})")

    @classmethod
    @contextmanager
    def opened(cls, *, columns: int) -> Iterator[Self]:
        """Open an empty table in a temporary folder, which is deleted at the end of the block.

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
                connection.execute("SET preserve_insertion_order = false")  # it needs memory
                connection.execute("SET enable_progress_bar = false")  # stdout is for findings
                yield cls(connection, columns=columns)
            except duckdb.Error as error:
                raise StorageError(
                    f"the keys cannot be compared in {folder}: {error}; set TMPDIR to a folder "
                    "with more room"
                ) from error

    def add(self, shard: int, side: Side, keys: Sequence[pa.Array]) -> None:
        """Add rows by their *keys*: an array for each key column."""
        import pyarrow as pa

        rows = len(keys[0])
        columns = [
            pa.repeat(pa.scalar(value, field.type), rows)
            for value, field in zip((shard, int(side)), self._schema, strict=False)
        ]
        self._unwritten.append(pa.table([*columns, *keys], schema=self._schema))
        self._rows += rows
        if self._rows >= _ROWS_AT_ONCE:
            self._flush()

    def _flush(self) -> None:
        import pyarrow as pa

        if self._unwritten:
            self._db.register("unwritten", pa.concat_tables(self._unwritten))
            self._db.execute("INSERT INTO keys SELECT * FROM unwritten")
            self._db.unregister("unwritten")
        self._unwritten, self._rows = [], 0

    def drop(self, shard: int) -> None:
        """Delete the keys of *shard*."""
        self._flush()
        self._db.execute("DELETE FROM keys WHERE shard = ?", [shard])

    def compare(self) -> None:
        """Compute the mismatches. Call it once all keys are added, before the methods below."""
        # By shard first: only the keys that differ there are counted in all shards, which decides
        # whether a surplus key is doubled or unknown.
        self._flush()
        names = ", ".join(self._keys)
        self._db.execute(
            f"CREATE TABLE differ AS SELECT shard, {names},"  # noqa: S608 - names of our own
            f" count(*) FILTER (side = {Side.SOURCE:d}) AS expected,"
            f" count(*) FILTER (side = {Side.SINK:d}) AS in_part"
            f" FROM keys GROUP BY shard, {names} HAVING expected <> in_part"
        )
        self._db.execute(
            "CREATE TABLE mismatches AS SELECT differ.*, coalesce(all_of.in_source, 0) AS in_source,"  # noqa: S608
            f" coalesce(all_of.failed, 0) AS failed FROM differ LEFT JOIN (SELECT {names},"
            f" count(*) FILTER (side = {Side.SOURCE:d}) AS in_source,"
            f" count(*) FILTER (side = {Side.FAILED:d}) AS failed"
            f" FROM keys SEMI JOIN differ USING ({names}) GROUP BY {names}) AS all_of"
            f" USING ({names})"
        )

    def rows(self, side: Side) -> int:
        """Count the keys of one side."""
        (count,) = self._db.execute("SELECT count(*) FROM keys WHERE side = ?", [side]).fetchone()
        return int(count)

    def count(self, condition: str) -> int:
        """Count the mismatches of a *condition*: MISSING, DOUBLED or UNKNOWN."""
        (count,) = self._db.execute(f"SELECT count(*) FROM mismatches WHERE {condition}").fetchone()  # noqa: S608
        return int(count)

    def count_by_shard(self, condition: str) -> dict[int, int]:
        """Count the mismatches of a *condition* in each shard that has any."""
        counts = self._db.execute(
            f"SELECT shard, count(*) FROM mismatches WHERE {condition} GROUP BY shard ORDER BY shard"  # noqa: S608
        )
        return dict(counts.fetchall())

    def mismatches(self, condition: str, *, most: int) -> list[Mismatch]:
        """Return the first mismatches of a *condition*, at most *most*, sorted by shard and key."""
        names = ", ".join(self._keys)
        rows = self._db.execute(
            f"SELECT shard, {names}, expected, in_part, in_source, failed FROM mismatches"  # noqa: S608
            f" WHERE {condition} ORDER BY shard, {names} LIMIT {most:d}"
        ).fetchall()
        return [Mismatch(row[0], tuple(map(bytes, row[1:-4])), *row[-4:]) for row in rows]


def need_duckdb() -> Any:
    """Import DuckDB and return it.

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
