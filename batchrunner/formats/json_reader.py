"""Reads the rows of JSON files: the elements of an array, or a single document."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

from batchrunner.errors import ShardFailedError, StorageError
from batchrunner.formats.chunk import MAX_RAW_BYTES, BadRow, Chunk, Position, Row
from batchrunner.formats.compression import open_compressed
from batchrunner.formats.damaged_file import MEND
from batchrunner.formats.json_elements import (
    ElementBlock,
    UndividedError,
    read_elements,
)
from batchrunner.formats.json_rows import parse_array, parse_line
from batchrunner.formats.lines import MAX_LINE_BYTES
from batchrunner.formats.partitions import Partition, add_to_rows, wanted
from batchrunner.formats.records import ParsedRows, RecordChunk, chunk_of, project
from batchrunner.shard import Slice, Slicing

_MARKS = re.compile(rb'\\["\\]|["\[\]{}]', re.DOTALL)
_PAIRS = {b"]": b"[", b"}": b"{"}


@dataclass(frozen=True)
class ElementChunk(ParsedRows):
    """Elements that all are rows.

    Attributes:
        parsed: The rows.
        block: The elements that they were parsed from.
        columns: The keys to keep, or None for all.
        partition: Columns that the folders of the file name; each row has them.
    """

    parsed: list[Row]
    block: ElementBlock
    columns: tuple[str, ...] | None = None
    partition: Partition = ()
    bad: tuple[BadRow, ...] = ()

    @property
    def nbytes(self) -> int:
        return len(self.block.data)

    def reread(self, start: int, stop: int) -> list[Row]:
        rows = [parse_line(self.block.data[a:b]) for a, b in self.block.spans[start:stop]]
        rows = project(rows, self.columns)
        add_to_rows(rows, self.partition)
        return rows

    def positions(self) -> list[int]:
        return [self.block.offset + first for first, _ in self.block.spans]

    def locate(self, index: int) -> Position:
        first, end = self.block.spans[index]
        raw = self.block.data[first : min(end, first + MAX_RAW_BYTES)]
        return Position("byte", self.block.offset + first, raw)


def read_json(
    file: BinaryIO,
    piece: Slice,
    *,
    compression: str | None,
    columns: tuple[str, ...] | None,
    partition: Partition = (),
) -> Iterator[Chunk]:
    """Yield the rows of *piece*, about a megabyte of elements at a time, in file order.

    Args:
        file: The whole file.
        piece: The slice of the file to read.
        compression: The compression of the whole file, or None.
        columns: The keys to keep, or None for all.
        partition: Columns that the folders of the file name; added to each row.

    Raises:
        ShardFailedError: The file cannot be divided into elements, or is damaged or cut short.
    """
    partition = wanted(partition, columns)
    try:
        for block in _blocks(file, piece, compression):
            yield parse(block, columns=columns, partition=partition)
    except UndividedError as error:
        raise ShardFailedError(f"{piece.uri} cannot be divided into rows: {error}") from error
    except OSError as error:
        if isinstance(error, StorageError):
            raise
        raise ShardFailedError(f"{piece.uri} cannot be uncompressed: {error}; {MEND}") from error


def _blocks(file: BinaryIO, piece: Slice, compression: str | None) -> Iterator[ElementBlock]:
    if piece.slicing is Slicing.BYTES:
        file.seek(piece.start)
        return read_elements(file, start=piece.start, stop=piece.stop)
    blocks = read_elements(open_compressed(file, compression))
    return first_elements(blocks, piece.stop) if piece.slicing is Slicing.HEAD else blocks


def first_elements(blocks: Iterator[ElementBlock], count: int) -> Iterator[ElementBlock]:
    """Yield the first *count* elements of *blocks*."""
    for block in blocks:
        yield block.head(count)
        count -= len(block.ends)
        if count <= 0:
            return


def parse(
    block: ElementBlock, *, columns: tuple[str, ...] | None, partition: Partition
) -> ElementChunk | RecordChunk:
    """Return the rows of *block*.

    Raises:
        UndividedError: Where an element that is no row ends is uncertain.
    """
    if block.overlong:
        at, head = block.records()[0]
        bad = BadRow(Position("byte", at, head[:MAX_RAW_BYTES]), _too_long(block.overlong))
        return RecordChunk([], [], parse_line, "byte", (bad,))
    rows = _parse_together(block)
    if rows is not None:
        rows = project(rows, columns)
        if not add_to_rows(rows, partition):
            return ElementChunk(rows, block, columns, partition)
    return _parse_each(block, columns, partition)


def _parse_together(block: ElementBlock) -> list[Row] | None:
    """Return the row of each element; None if the elements have to be parsed one by one."""
    if not block.ends or len(block.data) > MAX_LINE_BYTES:
        return None
    rows = parse_array(b"[%b]" % block.data[: block.ends[-1]])
    return rows if rows is not None and len(rows) == len(block.ends) else None


def _parse_each(
    block: ElementBlock, columns: tuple[str, ...] | None, partition: Partition
) -> RecordChunk:
    records = block.records()
    chunk = chunk_of(records, _parse_held, unit="byte", columns=columns, partition=partition)
    elements = dict(records)
    for row in chunk.bad:
        at = row.position.at
        if at and not _is_one_value(elements[at]):
            raise UndividedError(
                f"the element at byte {at:,} has a quotation mark, bracket or comma too few or too many, "
                f"so that where it ends is uncertain: {row.reason}; {MEND}"
            )
    return chunk


def _parse_held(element: bytes) -> Row:
    if not element:
        raise ValueError("an element is missing before this comma or bracket: remove the comma")
    if len(element) > MAX_LINE_BYTES:
        raise ValueError(_too_long(len(element)))
    return parse_line(element)


def _too_long(length: int) -> str:
    return f"the row has {length:,} bytes; at most {MAX_LINE_BYTES:,} are read: split the row"


def _is_one_value(element: bytes) -> bool:
    """Return whether brackets match in *element*, and close only at its end: it is no two values."""
    open_brackets: list[bytes] = []
    in_string = is_ended = False
    for mark in _MARKS.finditer(element):
        token = mark[0]
        if token == b'"':
            in_string = not in_string
        elif in_string or token not in b"[]{}":
            continue
        elif is_ended or (token in b"[{" and not open_brackets and mark.start()):
            return False
        elif token in b"[{":
            open_brackets.append(token)
        elif not open_brackets or open_brackets.pop() != _PAIRS[token]:
            return False
        else:
            is_ended = not open_brackets
    return not in_string and not open_brackets and (not is_ended or element[-1:] in b"]}")
