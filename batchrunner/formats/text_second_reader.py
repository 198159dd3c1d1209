"""Reads text for `verify`, with code that took no part in the run."""

from __future__ import annotations

import io
from collections.abc import Collection, Iterator
from typing import Any

from batchrunner.formats.chunk import Row
from batchrunner.formats.contract import RecordReader, Records
from batchrunner.formats.jsonl_second_reader import BOM, line_start, uncompressed
from batchrunner.shard import Slice, Slicing

_HELD_BYTES = 32 << 20
_SOME = 1000
_END = 1 << 62


class TextAgain(RecordReader):
    """The second reader of text. A record is a line with its end."""

    reads_in_order = True

    def records(
        self, file: Any, piece: Slice, *, wanted: Collection[int] | None, compression: str | None
    ) -> Iterator[Records]:
        if compression:
            most = piece.stop if piece.slicing is Slicing.HEAD else _END
            return _first(_lines(uncompressed(file, compression), 0, _END), most)
        start, stop = piece.start, piece.stop
        if wanted:  # the first row may stand behind a mark, where no line starts
            start, stop = min(wanted) * (min(wanted) > len(BOM)), max(wanted) + 1
        at = line_start(file, start)
        file.seek(at)
        return _grouped(_lines(file, at, stop))

    def part_records(self, file: Any, *, compression: str) -> Iterator[Records]:
        return _grouped(_lines(uncompressed(file, compression), 0, _END))

    def row_of(self, record: bytes) -> Row:
        if record.endswith(b"\n"):
            record = record[:-1].removesuffix(b"\r")
        return {"text": record.decode()}


def _lines(stream: Any, at: int, stop: int) -> Iterator[tuple[int, bytes]]:
    """Yield offset and bytes of each line that begins before *stop*; of a very long one, its head."""
    file = io.BufferedReader(_Raw(stream), 1 << 20)
    if at == 0 and file.peek(len(BOM))[: len(BOM)] == BOM:
        at += len(file.read(len(BOM)))
    while at < stop and (line := file.readline(_HELD_BYTES)):
        length, piece = len(line), line
        while len(piece) == _HELD_BYTES and not piece.endswith(b"\n"):
            piece = file.readline(_HELD_BYTES)
            length += len(piece)
        yield at, line
        at += length


def _grouped(lines: Iterator[tuple[int, bytes]]) -> Iterator[Records]:
    some: Records = []
    for line in lines:
        some.append(line)
        if len(some) == _SOME:
            yield some
            some = []
    if some:
        yield some


def _first(lines: Iterator[tuple[int, bytes]], most: int) -> Iterator[Records]:
    yield from _grouped(line for _, line in zip(range(most), lines, strict=False))


class _Raw(io.RawIOBase):
    """Reads from *stream*, which stays open."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int:
        data = self._stream.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)
