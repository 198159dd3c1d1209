"""Rows counted without the code that read or wrote them: a second opinion."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator
from typing import Any, Protocol

BLOCK_BYTES = 1 << 20
BOM = b"\xef\xbb\xbf"


class Bytes(Protocol):
    """The part of a binary file that rows are counted in."""

    def read(self, size: int, /) -> bytes:
        """Return up to *size* bytes, none at the end."""


class LineCount:
    """Counts the lines with something in them, fed block by block, however long they are."""

    def __init__(self, *, from_start: bool) -> None:
        """Begin at the first byte of a file, where a byte order mark may stand, or inside it."""
        self.has_text = False
        self._ended = 0
        self._skip_mark = from_start

    def feed(self, block: bytes) -> None:
        """Add the bytes that follow."""
        if self._skip_mark:
            self._skip_mark, block = False, block.removeprefix(BOM)
        first, *others = block.split(b"\n")
        self.has_text = self.has_text or bool(first.strip())
        if others:
            self._ended += self.has_text + sum(map(bool, map(bytes.strip, others[:-1])))
            self.has_text = bool(others[-1].strip())

    @property
    def rows(self) -> int:
        """Lines so far; one that has not ended counts as soon as it has text."""
        return self._ended + self.has_text


def blocks(stream: Bytes) -> Iterator[bytes]:
    """Yield what *stream* still holds."""
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
    """Return where the first line begins that begins at *offset* or later."""
    if offset == 0:
        return 0
    at: int = file.seek(offset - 1)
    for block in blocks(file):
        if (found := block.find(b"\n")) >= 0:
            return at + found + 1
        at += len(block)
    return at


def count_lines(stream: Bytes, *, most: int | None = None) -> int:
    """Count the lines with text in *stream*; stop at *most*."""
    lines = LineCount(from_start=True)
    for block in blocks(stream):
        lines.feed(block)
        if most is not None and lines.rows >= most:
            return most
    return lines.rows


def uncompressed(file: Any, compression: str | None) -> Any:
    """Return a stream of what is inside *file*."""
    if compression == "gz":
        return gzip.GzipFile(fileobj=file, mode="rb")
    if compression == "zst":
        import pyarrow as pa

        return pa.CompressedInputStream(file, "zstd")
    return file


def unreadable() -> tuple[type[Exception], ...]:
    """Return what reading something damaged may raise."""
    import pyarrow as pa

    return (OSError, EOFError, zlib.error, pa.ArrowException, ValueError)
