"""Parquet as a source."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from batchrunner.errors import ShardFailedError, StorageError, describe
from batchrunner.formats.chunk import (
    MAX_RAW_BYTES,
    BadRow,
    Position,
    Row,
    Segment,
    Shape,
    UnreadableRowError,
)
from batchrunner.formats.columns import table_to_rows
from batchrunner.formats.parquet_source import Faults, ParquetSource
from batchrunner.formats.partition_values import add_to_table, wanted
from batchrunner.formats.partitions import Partition
from batchrunner.formats.unsound import shown, with_own_words, without_rows
from batchrunner.shard import Shard, Slicing

READ_ROWS = 16_384
"""Rows decoded at a time: bounds memory inside a row group."""


@dataclass(frozen=True, slots=True)
class TableChunk:
    """Some rows of a Parquet file.

    Attributes:
        content: The rows.
        numbers: Of the rows, in their file.
        bad: The rows between them that hold a value which is none of its column's type.
    """

    content: pa.Table
    numbers: Sequence[int]
    bad: tuple[BadRow, ...] = ()

    @property
    def types(self) -> pa.Schema:
        schema: pa.Schema = self.content.schema
        return schema

    @property
    def nbytes(self) -> int:
        return int(self.content.nbytes)

    def __len__(self) -> int:
        return int(self.content.num_rows)

    def rows(self, start: int, stop: int) -> list[Row]:
        try:
            return table_to_rows(self.table(start, stop))
        except (ValueError, ArithmeticError, pa.ArrowException) as error:
            # A date in the year 10,000: right for its type, and only one row of many.
            raise UnreadableRowError(f"Python cannot hold it: {describe(error)}") from error

    reread = rows

    def segments(self) -> tuple[Segment, ...]:
        return (Segment(0, len(self), Shape(self.content.schema)),)

    def table(self, start: int, stop: int) -> pa.Table:
        return self.content.slice(start, stop - start)

    def positions(self) -> Sequence[int]:
        return self.numbers

    def locate(self, index: int) -> Position:
        return _position(self.content, index, self.numbers[index])


def _position(table: pa.Table, index: int, number: int) -> Position:
    return Position("row", number, shown(table.slice(index, 1))[:MAX_RAW_BYTES])


def read_parquet(
    file: BinaryIO,
    shard: Shard,
    *,
    columns: tuple[str, ...] | None,
    partition: Partition = (),
) -> Iterator[TableChunk]:
    """Yield the rows of *shard*, in file order, decoding a few thousand at a time.

    Args:
        file: The whole file.
        shard: Which of its rows.
        columns: Those to read, or None for all.
        partition: What the folders of the file name; added to each row.

    Raises:
        ShardFailedError: The file is no Parquet, or lacks one of *columns*; a page is not what its
            checksum says; two columns have one name.
    """
    try:
        partition = wanted(partition, columns)
        source = ParquetSource(file, columns, partition)
        groups, first, skip, take = _extent(source.metadata, shard)
        for table, faults in _cut(source.read(groups, READ_ROWS), skip=skip, take=take):
            yield _chunk(table, faults, first, partition)
            first += table.num_rows
    except (pa.ArrowException, OSError) as error:
        if isinstance(error, StorageError):
            raise
        raise ShardFailedError(f"{shard.uri} cannot be read as Parquet: {error}") from error


def _chunk(table: pa.Table, faults: Faults, first: int, partition: Partition) -> TableChunk:
    numbers: Sequence[int] = range(first, first + table.num_rows)
    bad = [BadRow(_position(table, i, first + i), why) for i, why in sorted(faults.items())]
    if faults:
        numbers = [number for i, number in enumerate(numbers) if i not in faults]
        table = without_rows(table, faults)
    return TableChunk(add_to_table(with_own_words(table), partition), numbers, tuple(bad))


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


def _cut(
    pieces: Iterator[tuple[pa.Table, Faults]], *, skip: int, take: int
) -> Iterator[tuple[pa.Table, Faults]]:
    for table, faults in pieces:
        rows = table.slice(skip, take)
        inside = range(skip, skip + rows.num_rows)
        skip, take = max(skip - table.num_rows, 0), take - rows.num_rows
        if rows.num_rows:
            yield rows, {i - inside.start: why for i, why in faults.items() if i in inside}


def count_rows(file: BinaryIO) -> int:
    """Return what the footer says, after checking that there is one."""
    return int(pq.read_metadata(file).num_rows)
