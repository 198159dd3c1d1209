"""Chunks of JSON lines that were read by columns: rows are made only where they are asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import BinaryIO

import pyarrow as pa

from batchrunner.formats.chunk import BadRow, Chunk, Position, Row, Segment, Shape
from batchrunner.formats.json_tables import read_table
from batchrunner.formats.jsonl_reader import JsonlChunk, parse_placed, read_blocks
from batchrunner.formats.line_tables import LineTable
from batchrunner.formats.lines import MAX_LINE_BYTES, LineBlock
from batchrunner.formats.partitions import Partition, add_to_table, wanted
from batchrunner.shard import Slice


@dataclass(frozen=True)
class ColumnChunk:
    """The rows of a block of lines, as the table that `ParsedRows.tables` would make of them.

    Attributes:
        whole: All rows of the block; none is bad.
        nbytes: How many bytes the lines have.
        by_rows: Reads the block by rows.
        read: The table as it was read; kept for as long as the rows are, see `line_tables`.
    """

    whole: pa.Table
    nbytes: int
    by_rows: Callable[[], JsonlChunk]
    read: LineTable

    bad: tuple[BadRow, ...] = ()
    types: None = None

    @cached_property
    def lines(self) -> JsonlChunk:
        """The same rows, read by rows: for those that are read again, or named."""
        return self.by_rows()

    def __len__(self) -> int:
        return int(self.whole.num_rows)

    def rows(self, start: int, stop: int) -> list[Row]:
        return self.lines.rows(start, stop)

    def reread(self, start: int, stop: int) -> list[Row]:
        return self.lines.reread(start, stop)

    def segments(self) -> Sequence[Segment]:
        return [Segment(0, len(self), Shape(self.whole.schema, is_inferred=True))]

    def table(self, start: int, stop: int) -> pa.Table:
        return self.whole.slice(start, stop - start)

    def positions(self) -> list[int]:
        return self.lines.positions()

    def locate(self, index: int) -> Position:
        return self.lines.locate(index)


def read_by_columns(
    file: BinaryIO,
    piece: Slice,
    *,
    compression: str | None,
    columns: tuple[str, ...] | None,
    partition: Partition,
) -> Iterator[Chunk]:
    """Yield the rows that `read_jsonl` yields; blocks that can be are read by columns."""
    partition = wanted(partition, columns)
    for block in read_blocks(file, piece, compression=compression):
        by_rows = partial(parse_placed, block, columns=columns, partition=partition)
        chunk = _by_columns(block, by_rows, columns, partition)
        yield by_rows() if chunk is None else chunk


def _by_columns(
    block: LineBlock,
    by_rows: Callable[[], JsonlChunk],
    columns: tuple[str, ...] | None,
    partition: Partition,
) -> ColumnChunk | None:
    if block.overlong or len(block.data) > MAX_LINE_BYTES:
        return None
    read = read_table(block.data)
    table = None if read is None else _projected(read.table, columns, partition)
    if read is None or table is None:
        return None
    read.remember()
    return ColumnChunk(table, len(block.data), by_rows, read)


def _projected(
    table: pa.Table, columns: tuple[str, ...] | None, partition: Partition
) -> pa.Table | None:
    if columns is not None:
        table = table.select([name for name in columns if name in table.column_names])
    # A row's own value is compared with its folder's row by row; a folder may name no value.
    is_compared = any(name in table.column_names or value is None for name, value in partition)
    if is_compared or not table.num_columns:
        return None
    return add_to_table(table, partition) if partition else table
