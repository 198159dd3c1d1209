"""The record batches of Arrow IPC files and streams, as they are: nothing is checked but their end."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import BinaryIO

import pyarrow as pa
from pyarrow import ipc

from batchrunner.errors import StorageError
from batchrunner.formats.arrow_layout import FEATHER_1, MAGIC, record_batches, row_counts
from batchrunner.shard import Slice, Slicing

Batches = Iterator[tuple[int, pa.RecordBatch]]
"""Record batches, each with the number of its first row in the file."""

_END_BYTES = (4, 8)
"""How many bytes say that a stream ends: a length of 0, after a mark since version 0.15."""


class FileSource:
    """A file with a footer, of which only the batches and columns that are asked for are read."""

    def __init__(self, file: BinaryIO, *, size: int) -> None:
        self._file = file
        self._blocks = record_batches(file, size=size)
        self.schema = self._opened().schema

    def batches(self, piece: Slice, *, columns: tuple[str, ...] | None) -> Batches:
        """Yield the batches that hold rows of *piece*, with the *columns* of them."""
        numbers, first = self._numbers(piece)
        names = _selected(self.schema, columns)
        reader = self._opened(names)
        for number in numbers:
            batch = reader.get_batch(number)
            yield first, batch.select(names)
            first += batch.num_rows

    def _numbers(self, piece: Slice) -> tuple[range, int]:
        """Return which batches hold rows of *piece*, and the number of their first row."""
        if piece.slicing is Slicing.FILE:
            return range(len(self._blocks)), 0
        if piece.slicing is Slicing.ROW_GROUPS:
            before = row_counts(self._file, self._blocks[: piece.start])
            return range(piece.start, piece.stop), sum(before)
        return self._numbers_of_rows(piece.start, piece.stop)

    def _numbers_of_rows(self, start: int, stop: int) -> tuple[range, int]:
        at = first = begin = 0
        for number, block in enumerate(self._blocks):
            if at >= stop:
                return range(begin, number), first
            if at <= start:
                begin, first = number, at
            at += row_counts(self._file, [block])[0]
        return range(begin, len(self._blocks)), first

    def _opened(self, names: Sequence[str] = ()) -> ipc.RecordBatchFileReader:
        source = pa.PythonFile(self._file, mode="r")
        return ipc.open_file(source, options=_options(getattr(self, "schema", None), names))


class StreamSource:
    """A stream, which is read from its start."""

    def __init__(self, file: BinaryIO, *, size: int) -> None:
        self._file, self._size = file, size
        self.schema = self._opened().schema

    def batches(self, piece: Slice, *, columns: tuple[str, ...] | None) -> Batches:
        """Yield the batches that hold rows of *piece*, with the *columns* of them.

        Raises:
            ValueError: The stream has no end, as if it was cut short, or does not end with the file.
        """
        start, stop = (piece.start, piece.stop) if piece.slicing is Slicing.ROWS else (0, None)
        names = _selected(self.schema, columns)
        reader, first = self._opened(names), 0
        while stop is None or first < stop:
            at = self._file.tell()
            try:
                batch = reader.read_next_batch()
            except StopIteration:
                self._check_end(self._file.tell() - at)
                return
            if first + batch.num_rows > start:
                yield first, batch.select(names)
            first += batch.num_rows

    def _check_end(self, read: int) -> None:
        # Its batches may be whole all the same: then the rows of the others would be lost in silence.
        if read not in _END_BYTES:
            raise ValueError("it is cut short: the mark at the end of a stream is missing")
        rest = self._size - self._file.tell()
        if rest:
            raise ValueError(
                f"its stream ends {rest:,} bytes before the file: write one stream a file"
            )

    def _opened(self, names: Sequence[str] = ()) -> ipc.RecordBatchStreamReader:
        self._file.seek(0)
        source = pa.PythonFile(self._file, mode="r")
        return ipc.open_stream(source, options=_options(getattr(self, "schema", None), names))


def opened(file: BinaryIO, *, size: int) -> FileSource | StreamSource:
    """Return the batches of *file*, which has *size* bytes.

    Raises:
        ValueError: It is no Arrow; pyarrow's errors say so, too.
    """
    file.seek(0)
    head = file.read(len(MAGIC))
    if head.startswith(FEATHER_1):
        raise ValueError("it is Feather 1: write it again with pyarrow.feather.write_feather")
    return (FileSource if head == MAGIC else StreamSource)(file, size=size)


def _selected(schema: pa.Schema, columns: tuple[str, ...] | None) -> list[str]:
    return [name for name in schema.names if columns is None or name in columns]


def _options(schema: pa.Schema | None, names: Sequence[str]) -> ipc.IpcReadOptions:
    """Return options that read the columns *names*, or all if there are none."""
    fields = [schema.get_field_index(name) for name in names] if schema else []
    return ipc.IpcReadOptions(use_threads=False, included_fields=fields)


def count_rows(file: BinaryIO, *, size: int, most: int) -> int | None:
    """Return the row count of a stream, up to *most*; None if it is damaged before."""
    whole = Slice("", Slicing.ROWS, 0, most, size, "")
    try:
        source = StreamSource(file, size=size)
        batches = source.batches(whole, columns=None)
        return min(sum(int(batch.num_rows) for _, batch in batches), most)
    except (pa.ArrowException, OSError, ValueError) as error:
        if isinstance(error, StorageError):
            raise
        return None
