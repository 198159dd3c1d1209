"""Reads the rows of JSON lines files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import accumulate, chain
from typing import BinaryIO

from batchrunner.errors import ShardFailedError, StorageError
from batchrunner.formats.chunk import MAX_RAW_BYTES, BadRow, Position, Row
from batchrunner.formats.compression import open_compressed
from batchrunner.formats.damaged_file import MEND
from batchrunner.formats.json_rows import parse_block, parse_line
from batchrunner.formats.lines import (
    MAX_LINE_BYTES,
    LineBlock,
    first_rows,
    mark_length,
    read_lines,
)
from batchrunner.formats.partitions import Partition, add_to_rows, wanted
from batchrunner.formats.records import ParsedRows, project
from batchrunner.shard import Slice, Slicing

_FEW = 64
_CACHED_BYTES = 256 << 10


@dataclass(frozen=True)
class JsonlChunk(ParsedRows):
    """The rows of a block of lines.

    Attributes:
        parsed: The rows.
        data: All lines of the block, also those that are blank or no rows.
        numbers: For each row, the index of its line.
        offset: Offset of the first line in the uncompressed file.
        bad: The lines that are no rows.
        columns: The keys to keep, or None for all.
        partition: Columns that the folders of the file name; each row has them.

    Raises:
        ValueError: There are more rows than numbers, or fewer: a row that fails would be read again
            from another line.
    """

    parsed: list[Row]
    data: bytes
    numbers: Sequence[int]
    offset: int
    bad: tuple[BadRow, ...] = ()
    columns: tuple[str, ...] | None = None
    partition: Partition = ()

    def __post_init__(self) -> None:
        if len(self.numbers) != len(self.parsed):
            raise ValueError(f"{len(self.parsed)} rows, but the lines of {len(self.numbers)}")

    @cached_property
    def lines(self) -> list[bytes]:
        """The lines of the block. Split at the first use, as most blocks never are."""
        return _cut(self.data)

    @property
    def nbytes(self) -> int:
        return len(self.data)

    def reread(self, start: int, stop: int) -> list[Row]:
        rows = [parse_line(self.lines[number]) for number in self.numbers[start:stop]]
        rows = project(rows, self.columns)
        add_to_rows(rows, self.partition)
        return rows

    def positions(self) -> list[int]:
        starts = list(accumulate((len(line) + 1 for line in self.lines), initial=self.offset))
        return [starts[number] for number in self.numbers]

    def locate(self, index: int) -> Position:
        number = self.numbers[index]
        at = self.offset + sum(map(len, self.lines[:number])) + number
        return Position("byte", at, self.lines[number][:MAX_RAW_BYTES])


def read_jsonl(
    file: BinaryIO,
    piece: Slice,
    *,
    compression: str | None,
    columns: tuple[str, ...] | None,
    partition: Partition = (),
) -> Iterator[JsonlChunk]:
    """Yield the rows of *piece*, some hundred kilobytes of lines at a time, in file order.

    Args:
        file: The whole file.
        piece: The slice of the file to read.
        compression: One of `OUTER`, or None.
        columns: The keys to keep, or None for all.
        partition: Columns that the folders of the file name; added to each row.

    Raises:
        ShardFailedError: The compressed file is damaged or cut short.
    """
    partition = wanted(partition, columns)
    for block in chain.from_iterable(
        map(_cut_small, read_blocks(file, piece, compression=compression))
    ):
        yield parse_placed(block, columns=columns, partition=partition)


def _cut_small(block: LineBlock) -> Iterator[LineBlock]:
    """Yield *block* in pieces whose rows stay in the processor's cache until they are written."""
    start, data = 0, block.data
    while len(data) - start > _CACHED_BYTES:
        end = data.rfind(b"\n", start, start + _CACHED_BYTES) + 1
        end = end or data.find(b"\n", start) + 1 or len(data)
        yield LineBlock(data[start:end], block.offset + start)
        start = end
    if start < len(data):
        yield replace(block, data=data[start:], offset=block.offset + start)


def parse_placed(
    block: LineBlock, *, columns: tuple[str, ...] | None, partition: Partition
) -> JsonlChunk:
    """Return the rows of *block*, with the columns of *partition* added."""
    chunk = parse(block, columns=columns)
    return _placed(chunk, partition) if partition else chunk


def read_blocks(file: BinaryIO, piece: Slice, *, compression: str | None) -> Iterator[LineBlock]:
    """Yield the lines of *shard*, about a megabyte at a time.

    Raises:
        ShardFailedError: The compressed file is damaged or cut short.
    """
    if piece.slicing is Slicing.BYTES:
        file.seek(max(piece.start - 1, 0))
        blocks = read_lines(file, start=piece.start, stop=piece.stop)
    else:
        blocks = read_lines(open_compressed(file, compression))
    if piece.slicing is Slicing.HEAD:
        blocks = first_rows(blocks, rows=piece.stop)
    try:
        yield from blocks
    except OSError as error:
        if isinstance(error, StorageError):
            raise
        raise ShardFailedError(f"{piece.uri} cannot be uncompressed: {error}; {MEND}") from error


def parse(block: LineBlock, *, columns: tuple[str, ...] | None) -> JsonlChunk:
    """Return the rows of *block*."""
    if block.overlong:
        return _overlong(block)
    rows = parse_block(block.data) if len(block.data) <= MAX_LINE_BYTES else None
    if rows is not None:
        rows = project(rows, columns)
        return JsonlChunk(rows, block.data, range(len(rows)), block.offset, (), columns)
    mark = mark_length(block)
    return _parse_each(block.data[mark:], offset=block.offset + mark, columns=columns)


def _cut(data: bytes) -> list[bytes]:
    lines = data.split(b"\n")
    if not lines[-1]:
        lines.pop()
    return lines


def _parse_each(data: bytes, *, offset: int, columns: tuple[str, ...] | None) -> JsonlChunk:
    """Parse the lines a few at a time, and one by one where that fails."""
    lines = _cut(data)
    rows: list[Row] = []
    numbers: list[int] = []
    bad: list[BadRow] = []
    at = offset
    for first in range(0, len(lines), _FEW):
        few = lines[first : first + _FEW]
        parsed = _parse_few(few)
        if parsed is not None:
            rows += parsed
            numbers += range(first, first + len(parsed))
            at += sum(map(len, few)) + len(few)
            continue
        for number, line in enumerate(few, start=first):
            try:
                if line.strip():
                    rows.append(_parse_held(line))
                    numbers.append(number)
            except ValueError as error:
                bad.append(BadRow(Position("byte", at, line[:MAX_RAW_BYTES]), str(error)))
            at += len(line) + 1
    rows = project(rows, columns)
    return JsonlChunk(rows, data, numbers, offset, tuple(bad), columns)


def _parse_few(few: list[bytes]) -> list[Row] | None:
    """Return the row of each line; None if the lines have to be parsed one by one."""
    if max(map(len, few)) > MAX_LINE_BYTES:
        return None
    # Each line with its newline: without the last one, an empty last line could not be distinguished from
    # the end of the line before it, and every row after it would have the number of its neighbour.
    rows = parse_block(b"\n".join([*few, b""]))
    return rows if rows is not None and len(rows) == len(few) else None


def _parse_held(line: bytes) -> Row:
    if len(line) > MAX_LINE_BYTES:
        raise ValueError(_too_long(len(line)))
    return parse_line(line)


def _overlong(block: LineBlock) -> JsonlChunk:
    mark = mark_length(block)
    position = Position("byte", block.offset + mark, block.data[mark:][:MAX_RAW_BYTES])
    bad = BadRow(position, _too_long(block.overlong - mark))
    return JsonlChunk([], b"", [], block.offset, (bad,))


def _too_long(length: int) -> str:
    return f"the line has {length:,} bytes; at most {MAX_LINE_BYTES:,} are read: split the row"


def _placed(chunk: JsonlChunk, partition: Partition) -> JsonlChunk:
    """Return *chunk* with *partition* in its rows; rows that contradict it become bad rows."""
    faults = add_to_rows(chunk.parsed, partition)
    if not faults:
        return replace(chunk, partition=partition)
    bad = [BadRow(chunk.locate(index), why) for index, why in faults.items()]
    return replace(
        chunk,
        parsed=[row for index, row in enumerate(chunk.parsed) if index not in faults],
        numbers=[number for index, number in enumerate(chunk.numbers) if index not in faults],
        bad=tuple(sorted((*chunk.bad, *bad), key=lambda row: row.position.at)),
        partition=partition,
    )
