"""Parquet as a source and as a sink."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import BinaryIO

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from batchrunner.errors import ShardFailedError, StorageError
from batchrunner.formats.chunk import MAX_RAW_BYTES, BadRow, Position, Row
from batchrunner.formats.columns import conform, table_to_rows, unify
from batchrunner.shard import Shard, Slicing

READ_ROWS = 16_384
"""Rows decoded at a time: bounds memory inside a row group."""

ROW_GROUP_BYTES = 64 << 20
"""Size in memory at which rows become a row group of the part."""


@dataclass(frozen=True, slots=True)
class TableChunk:
    """Some rows of a Parquet file.

    Attributes:
        content: The rows.
        first: Number of the first one in its file.
    """

    content: pa.Table
    first: int

    @property
    def bad(self) -> tuple[BadRow, ...]:
        return ()

    @property
    def nbytes(self) -> int:
        return int(self.content.nbytes)

    def __len__(self) -> int:
        return int(self.content.num_rows)

    def rows(self, start: int, stop: int) -> list[Row]:
        return table_to_rows(self.content.slice(start, stop - start))

    reread = rows

    def table(self, start: int, stop: int) -> pa.Table:
        return self.content.slice(start, stop - start)

    def positions(self) -> range:
        return range(self.first, self.first + len(self))

    def locate(self, index: int) -> Position:
        row = self.rows(index, index + 1)[0]
        return Position("row", self.first + index, orjson.dumps(row, default=str)[:MAX_RAW_BYTES])


def read_parquet(
    file: BinaryIO, shard: Shard, *, columns: tuple[str, ...] | None
) -> Iterator[TableChunk]:
    """Yield the rows of *shard*, in file order, decoding a few thousand at a time.

    Raises:
        ShardFailedError: The file is no Parquet, or lacks one of *columns*.
    """
    try:
        source = pq.ParquetFile(file)
        _check_columns(source, columns)
        groups, first, skip, take = _extent(source.metadata, shard)
        batches = source.iter_batches(
            READ_ROWS, row_groups=groups, columns=columns and list(columns), use_threads=False
        )
        for table in _cut(batches, skip=skip, take=take):
            yield TableChunk(table, first)
            first += table.num_rows
    except (pa.ArrowException, OSError) as error:
        if isinstance(error, StorageError):
            raise
        raise ShardFailedError(f"{shard.uri} cannot be read as Parquet: {error}") from error


def _check_columns(source: pq.ParquetFile, columns: tuple[str, ...] | None) -> None:
    have = source.schema_arrow.names
    missing = [name for name in columns or () if name not in have]
    if missing:
        raise ShardFailedError(f"no column {missing[0]!r} in the file; it has {', '.join(have)}")


def _extent(metadata: pq.FileMetaData, shard: Shard) -> tuple[list[int], int, int, int]:
    """Return the row groups to read, the number of the first row, and how many to skip and take."""
    sizes = [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)]
    if shard.slicing is Slicing.FILE:
        return list(range(len(sizes))), 0, 0, sum(sizes)
    if shard.slicing is Slicing.ROW_GROUPS:
        groups = range(shard.start, shard.stop)
        first = sum(sizes[: shard.start])
        return list(groups), first, 0, sum(sizes[shard.start : shard.stop])
    ends = [sum(sizes[: group + 1]) for group in range(len(sizes))]
    groups_in = [
        group
        for group, end in enumerate(ends)
        if end > shard.start and end - sizes[group] < shard.stop
    ]
    before = ends[groups_in[0]] - sizes[groups_in[0]] if groups_in else 0
    return groups_in, shard.start, shard.start - before, shard.stop - shard.start


def _cut(batches: Iterator[pa.RecordBatch], *, skip: int, take: int) -> Iterator[pa.Table]:
    for batch in batches:
        rows = batch.slice(skip, take)
        skip, take = max(skip - batch.num_rows, 0), take - rows.num_rows
        if rows.num_rows:
            yield pa.Table.from_batches([rows])


class ParquetPart:
    """Writes one part. The schema is fixed when the first row group is written, or before."""

    def __init__(
        self, file: io.RawIOBase, *, compression: str, fix_schema: Callable[[pa.Schema], pa.Schema]
    ) -> None:
        """Write to *file*.

        Args:
            file: Where to. Written front to back.
            compression: snappy, zstd, gzip or none.
            fix_schema: Given the schema of the first rows, returns the one to write.
        """
        self._file, self._compression, self._fix_schema = file, compression, fix_schema
        self._held: list[pa.Table] = []
        self._held_bytes = 0
        self._writer: pq.ParquetWriter | None = None

    def append(self, table: pa.Table) -> None:
        """Add rows.

        Raises:
            SchemaError: They do not fit those before, or the schema of the sink.
        """
        self._held.append(table)
        self._held_bytes += table.nbytes
        if self._held_bytes >= ROW_GROUP_BYTES:
            self._write_group()

    def close(self) -> None:
        """Write what is held, and the footer."""
        if self._held or self._writer is None:
            self._write_group()
        if self._writer:
            self._writer.close()

    def _write_group(self) -> None:
        table = unify(self._held)
        self._held, self._held_bytes = [], 0
        if self._writer is None:
            schema = self._fix_schema(table.schema)
            self._writer = pq.ParquetWriter(self._file, schema, compression=self._compression)
        self._writer.write_table(conform(table, self._writer.schema))


def count_rows(file: BinaryIO) -> int:
    """Return what the footer says, after checking that there is one."""
    return int(pq.read_metadata(file).num_rows)
