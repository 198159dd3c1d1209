"""Reads JSON lines for `verify`, with code that took no part in the run.

Lines are split and located here, and parsed by the standard library.
"""

from __future__ import annotations

import gzip
import json
import lzma
from collections.abc import Collection, Iterator
from itertools import accumulate
from typing import Any

from batchrunner.formats.chunk import Row
from batchrunner.formats.contract import Opener, RecordReader, Records
from batchrunner.shard import Slice, Slicing

BLOCK_BYTES = 1 << 20
BOM = b"\xef\xbb\xbf"
_HELD_BYTES, _KEPT_BYTES = 32 << 20, 4096


class LineReader(RecordReader):
    """The second reader of JSON lines."""

    reads_in_order = True

    def count_part(self, file: Any, *, compression: str) -> int:
        """Return the count of lines; a last line without its newline counts, too."""
        rows, last = 0, b"\n"
        for block in blocks(uncompressed(file, compression)):
            rows, last = rows + block.count(b"\n"), block[-1:]
        return rows + (last != b"\n")

    def count_rows(
        self, piece: Slice, opened: Opener, *, compression: str | None, after: bool = False
    ) -> int:
        if after and piece.slicing is not Slicing.BYTES:
            return 0
        with opened() as file:
            if piece.slicing is Slicing.BYTES:
                span = (piece.stop, piece.size) if after else (piece.start, piece.stop)
                return count_in_range(file, *span)
            most = piece.stop if piece.slicing is Slicing.HEAD else None
            return count_lines(uncompressed(file, compression), most=most)

    def records(
        self, file: Any, piece: Slice, *, wanted: Collection[int] | None, compression: str | None
    ) -> Iterator[Records]:
        if piece.slicing is Slicing.BYTES or (wanted and not compression):
            return _between(file, *_byte_span(piece, wanted))
        lines = numbered_lines(uncompressed(file, compression), at=0)
        return _first(lines, piece.stop) if piece.slicing is Slicing.HEAD else lines

    def part_records(self, file: Any, *, compression: str) -> Iterator[Records]:
        return numbered_lines(uncompressed(file, compression), at=0)

    def row_of(self, record: bytes) -> Row:
        return row_of(record)


def numbered_lines(stream: Any, *, at: int) -> Iterator[Records]:
    """Yield the lines of *stream* that are not blank, with offsets; its next byte is byte *at*.

    A line that is too long is cut: the run's reader made it a bad row, and it is no row here either.
    """
    held, dropped = b"", 0
    for block in blocks(stream):
        if at == 0 and not held and block.startswith(BOM):
            at, block = len(BOM), block[len(BOM) :]  # noqa: PLW2901 - the mark is no text
        *whole, held = (held + block).split(b"\n")
        if whole:
            lengths = [len(line) + 1 for line in whole]
            lengths[0] += dropped
            *starts, at = accumulate(lengths, initial=at)
            dropped = 0
            yield [item for item in zip(starts, whole, strict=True) if item[1].strip()]
        if len(held) > _HELD_BYTES:
            dropped, held = dropped + len(held) - _KEPT_BYTES, held[:_KEPT_BYTES]
    if held.strip():
        yield [(at, held)]


def row_of(line: bytes) -> dict[str, Any]:
    """Return the row of a line, parsed by the standard library.

    Raises:
        ValueError: The line is no JSON object.
    """
    try:
        row = json.loads(line.decode())
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    if not isinstance(row, dict):
        raise ValueError(f"it holds a {type(row).__name__}, not an object")  # noqa: TRY004 - bad data
    return row


def _byte_span(piece: Slice, wanted: Collection[int] | None) -> tuple[int, int]:
    if not wanted:
        return piece.start, piece.stop
    first = min(wanted)
    return (first if first > len(BOM) else 0), max(wanted) + 1


def _between(file: Any, start: int, stop: int) -> Iterator[Records]:
    """Yield the lines whose first byte lies in [*start*, *stop*) of seekable *file*."""
    at = line_start(file, start)
    file.seek(at)
    if at >= stop:
        return
    for some in numbered_lines(file, at=at):
        inside = [item for item in some if item[0] < stop]
        yield inside
        if len(inside) < len(some):
            return


def _first(lines: Iterator[Records], most: int) -> Iterator[Records]:
    for some in lines:
        yield some[:most]
        most -= len(some)
        if most <= 0:
            return


class LineCount:
    """Counts the lines with text in a sequence of blocks, in bounded memory."""

    def __init__(self, *, from_start: bool) -> None:
        """Count from the start of a file, where a byte order mark is skipped, or from inside it."""
        self.has_text = False
        self._ended = 0
        self._skip_mark = from_start

    def feed(self, block: bytes) -> None:
        """Count the lines in *block*, which continues the previous block."""
        if self._skip_mark:
            self._skip_mark, block = False, block.removeprefix(BOM)
        first, *others = block.split(b"\n")
        self.has_text = self.has_text or bool(first.strip())
        if others:
            self._ended += self.has_text + sum(map(bool, map(bytes.strip, others[:-1])))
            self.has_text = bool(others[-1].strip())

    @property
    def rows(self) -> int:
        """The count of lines with text so far; the last line counts as soon as it has text."""
        return self._ended + self.has_text


def blocks(stream: Any) -> Iterator[bytes]:
    """Yield the rest of *stream* in blocks."""
    while block := stream.read(BLOCK_BYTES):
        yield block


def count_in_range(file: Any, start: int, stop: int) -> int:
    """Count the lines with text whose first byte lies in [*start*, *stop*) of seekable *file*."""
    at = line_start(file, start)
    lines = LineCount(from_start=at == 0)
    file.seek(at)
    last = b"\n"
    while at < stop and (block := file.read(min(BLOCK_BYTES, stop - at))):
        lines.feed(block)
        at, last = at + len(block), block[-1:]
    if last != b"\n" and not lines.has_text:  # the last line goes on; it may have text there
        for block in blocks(file):
            line, newline, _ = block.partition(b"\n")
            lines.feed(line)
            if newline or lines.has_text:
                break
    return lines.rows


def line_start(file: Any, offset: int) -> int:
    """Return the offset of the first line that begins at *offset* or later."""
    if offset == 0:
        return 0
    at: int = file.seek(offset - 1)
    for block in blocks(file):
        if (newline := block.find(b"\n")) >= 0:
            return at + newline + 1
        at += len(block)
    return at


def count_lines(stream: Any, *, most: int | None = None) -> int:
    """Count the lines with text in *stream*; stop at *most*."""
    lines = LineCount(from_start=True)
    for block in blocks(stream):
        lines.feed(block)
        if most is not None and lines.rows >= most:
            return most
    return lines.rows


def uncompressed(file: Any, compression: str | None) -> Any:
    """Return a stream of the uncompressed bytes of *file*."""
    if compression == "gz":
        return gzip.GzipFile(fileobj=file, mode="rb")
    if compression == "xz":
        return lzma.LZMAFile(file)
    if compression in {"zst", "bz2"}:
        import pyarrow as pa

        return pa.CompressedInputStream(file, {"zst": "zstd"}.get(compression, compression))
    return file
