"""The record batches of Arrow IPC files and streams, as they are: nothing is checked but their end."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import BinaryIO, cast

import pyarrow as pa
from pyarrow import ipc

from batchrunner.formats.arrow_layout import (
    FEATHER_1,
    MAGIC,
    Message,
    check_end,
    messages,
    record_batches,
    row_counts,
)
from batchrunner.shard import Slice, Slicing

Batches = Iterator[tuple[int, pa.RecordBatch]]
"""Record batches, each with the number of its first row in the file."""

_END_BYTES = (4, 8)
"""How many bytes say that a stream ends: a length of 0, after a mark since version 0.15."""
_FILES_KNOWN = 4


@dataclass(slots=True)
class _Known:
    """What is known of the layout of one file; for a slice, the batches before it are counted.

    Attributes:
        rows: Row counts of record batches, by their number.
        messages: All messages of a stream, once they were read.
    """

    rows: dict[int, int] = field(default_factory=dict)
    messages: list[Message] = field(default_factory=list)


@lru_cache(_FILES_KNOWN)
def _known_of(uri: str, identity: str) -> _Known:  # noqa: ARG001 -- the key of the cache
    return _Known()


class FileSource:
    """A file with a footer, of which only the batches and columns that are asked for are read."""

    def __init__(self, file: BinaryIO, piece: Slice, known: _Known) -> None:
        self._file, self._known = file, known
        self._blocks = record_batches(file, size=piece.size)
        self.schema = self._opened().schema

    def batches(self, piece: Slice, *, columns: tuple[str, ...] | None) -> Batches:
        """Yield the batches that hold rows of *piece*, with the *columns* of them."""
        names = _selected(self.schema, columns)
        reader = self._opened(names)  # before batches are counted: the footer was just read
        number, first = self._begin(piece)
        stop = piece.stop if piece.slicing is Slicing.ROW_GROUPS else len(self._blocks)
        for at in range(number, stop):
            if piece.slicing is Slicing.ROWS and first >= piece.stop:
                break
            batch = reader.get_batch(at)
            self._known.rows[at] = batch.num_rows
            yield first, batch.select(names)
            first += batch.num_rows

    def _begin(self, piece: Slice) -> tuple[int, int]:
        """Return the first batch with rows of *piece*, and the number of its first row."""
        number = first = 0
        if piece.slicing is Slicing.ROW_GROUPS:
            return piece.start, sum(map(self._count, range(piece.start)))
        while piece.slicing is Slicing.ROWS and number < len(self._blocks):
            if first + self._count(number) > piece.start:
                break
            first, number = first + self._count(number), number + 1
        return number, first

    def _count(self, number: int) -> int:
        rows = self._known.rows
        if number not in rows:
            rows[number] = row_counts(self._file, self._blocks[number : number + 1])[0]
        return rows[number]

    def _opened(self, names: Sequence[str] = ()) -> ipc.RecordBatchFileReader:
        source = pa.PythonFile(self._file, mode="r")
        return ipc.open_file(source, options=_options(getattr(self, "schema", None), names))


class StreamSource:
    """A stream, of which a slice is read as a stream of its own: with the schema, and the dictionaries."""

    def __init__(self, file: BinaryIO, piece: Slice, known: _Known) -> None:
        self._file, self._size, self._known = file, piece.size, known
        file.seek(0)
        self.schema = self._opened(file).schema

    def batches(self, piece: Slice, *, columns: tuple[str, ...] | None) -> Batches:
        """Yield the batches that hold rows of *piece*, with the *columns* of them.

        Raises:
            ValueError: The stream has no end, as if it was cut short, or does not end with the file.
        """
        names = _selected(self.schema, columns)
        if piece.slicing is Slicing.FILE:
            self._file.seek(0)
            batches, first = self._to_the_end(self._opened(self._file, names)), 0
        else:
            batches, first = self._part(piece, names)
        for batch in batches:
            yield first, batch.select(names)
            first += batch.num_rows

    def _to_the_end(self, reader: ipc.RecordBatchStreamReader) -> Iterator[pa.RecordBatch]:
        while True:
            at = self._file.tell()
            try:
                yield reader.read_next_batch()
            except StopIteration:
                break
        # Its batches may be whole all the same: then the rows of the others would be lost in silence.
        if self._file.tell() - at not in _END_BYTES:
            raise ValueError("it is cut short: the mark at the end of a stream is missing")
        check_end(self._size - self._file.tell())

    def _part(self, piece: Slice, names: Sequence[str]) -> tuple[Iterator[pa.RecordBatch], int]:
        """Return the batches that hold rows of *piece*, and the number of their first row."""
        found = self._known.messages or messages(self._file, size=self._size)
        self._known.messages = found
        blocks = [message.block for message in found if message.rows is not None]
        rows = [message.rows for message in found if message.rows is not None]
        numbers, first = _numbers(piece, len(blocks), rows.__getitem__)
        if not numbers:
            return iter(()), 0
        start, stop = blocks[numbers[0]].offset, blocks[numbers[-1]].end
        before = [m.block for m in found if m.rows is None and m.block.offset < start]
        ranges = [*((block.offset, block.end) for block in before), (start, stop)]
        reader = self._opened(cast(BinaryIO, _Ranges(self._file, ranges)), names)
        return (reader.read_next_batch() for _ in numbers), first

    def _opened(self, file: BinaryIO, names: Sequence[str] = ()) -> ipc.RecordBatchStreamReader:
        source = pa.PythonFile(file, mode="r")
        return ipc.open_stream(source, options=_options(getattr(self, "schema", None), names))


class _Ranges(io.RawIOBase):
    """Some ranges of a file, one after the other. Does not close it."""

    def __init__(self, file: BinaryIO, ranges: Sequence[tuple[int, int]]) -> None:
        self._file, self._left = file, list(ranges)

    def readable(self) -> bool:
        return True

    def read(self, size: int | None = -1, /) -> bytes:
        wanted = sum(b - a for a, b in self._left) if size is None or size < 0 else size
        pieces = []
        while wanted and self._left:
            start, stop = self._left.pop(0)
            end = min(stop, start + wanted)
            self._file.seek(start)
            pieces.append(self._file.read(end - start))
            wanted -= end - start
            if end < stop:
                self._left.insert(0, (end, stop))
        return b"".join(pieces)


def _numbers(piece: Slice, total: int, count: Callable[[int], int]) -> tuple[range, int]:
    """Return which of *total* batches hold rows of *piece*, and the number of their first row.

    *count* returns the rows of a batch, and is called for those that come before the last one only.
    """
    if piece.slicing is Slicing.FILE:
        return range(total), 0
    if piece.slicing is Slicing.ROW_GROUPS:
        return range(piece.start, piece.stop), sum(map(count, range(piece.start)))
    at = first = begin = 0
    for number in range(total):
        if at >= piece.stop:
            return range(begin, number), first
        if at <= piece.start:
            begin, first = number, at
        at += count(number)
    return range(begin, total), first


def opened(file: BinaryIO, piece: Slice, *, remember: bool) -> FileSource | StreamSource:
    """Return the batches of *file*, of which *piece* is a slice.

    With *remember*, what was read of the layout of the file for another slice is not read again: in a
    bucket that is a request for each batch before this one.

    Raises:
        ValueError: It is no Arrow; pyarrow's errors say so, too.
    """
    file.seek(0)
    known = _known_of(piece.uri, piece.identity) if remember else _Known()
    head = file.read(len(MAGIC))
    if head.startswith(FEATHER_1):
        raise ValueError("it is Feather 1: write it again with pyarrow.feather.write_feather")
    return (FileSource if head == MAGIC else StreamSource)(file, piece, known)


def _selected(schema: pa.Schema, columns: tuple[str, ...] | None) -> list[str]:
    return [name for name in schema.names if columns is None or name in columns]


def _options(schema: pa.Schema | None, names: Sequence[str]) -> ipc.IpcReadOptions:
    """Return options that read the columns *names*, or all if there are none."""
    fields = [schema.get_field_index(name) for name in names] if schema else []
    return ipc.IpcReadOptions(use_threads=False, included_fields=fields)
