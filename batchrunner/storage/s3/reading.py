"""Reads an object in a bucket as a file, a range at a time."""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

_READ_AHEAD = 8 << 20
"""Bytes to fetch at once for a reader that reads on."""
_LEAST = 64 << 10
"""Least bytes to fetch for a reader that jumps: about as fast as to fetch a single byte."""
_NEAR = 1 << 20
"""A jump ahead of at most so many bytes: to fetch them, too, takes less time than another request."""
_MOST = 32 << 20
"""Bytes to fetch in one request, so that it ends well before its deadline."""


class RangedReader(io.RawIOBase):
    """A seekable file over *fetch*, which returns the bytes from one offset up to another.

    For a reader that goes on where it stopped, or takes a lot at the beginning, blocks of 8 MiB are fetched.
    For one that jumps, as Parquet's do, only what it asks for is fetched, but at least 64 KiB; with each
    short jump ahead twice as much, so that a reader of every other small piece, as of the columns of
    record batches, does not ask for each. Every read returns as many bytes as were asked for, except at
    the end.
    """

    def __init__(self, fetch: Callable[[int, int], bytes], *, name: str, size: int) -> None:
        self.name = name
        self._fetch = fetch
        self._size = size
        self._position = 0
        self._block = b""
        self._block_start = 0
        self._ahead = 0
        self._tail = max(size - _LEAST, 0)
        self._expected = size

    def advise(self, stop: int) -> None:
        """Fetch no more than the end of a line from *stop* on, if no more is asked for."""
        self._expected = min(stop + _LEAST, self._size)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size}[whence]
        if start + offset < 0:
            raise ValueError(f"{self.name}: cannot seek before the first byte")
        self._position = start + offset
        return self._position

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        view = memoryview(buffer).cast("B")
        data = self.read(len(view))
        view[: len(data)] = data
        return len(data)

    def readall(self) -> bytes:
        return self.read(self._size)

    def read(self, size: int | None = -1, /) -> bytes:
        if self.closed:
            raise ValueError(f"{self.name} is closed")
        stop = self._size if size is None or size < 0 else min(self._position + size, self._size)
        if self._size == 0:
            self._fetch(0, 0)  # no bytes to read, but `fetch` raises if the object was replaced
        pieces = []
        while self._position < stop:
            pieces.append(self._draw(stop))
        return b"".join(pieces)

    def _draw(self, stop: int) -> bytes:
        """Return at least one byte from the position on, and none at *stop* or after it."""
        start = self._position - self._block_start
        if not 0 <= start < len(self._block):
            self._load(stop)
            start = self._position - self._block_start
        piece = self._block[start : start + stop - self._position]
        self._position += len(piece)
        return piece

    def _load(self, stop: int) -> None:
        self._ahead = self._next_ahead(stop - self._position)
        asked, expected = stop - self._position, self._expected - self._position
        self._ahead = min(self._ahead, expected if expected > 0 else max(2 * asked, _LEAST))
        # At the end, what a reader asks for next is before it: the footer, after its length.
        start = self._position if self._ahead > _LEAST else min(self._position, self._tail)
        end = min(self._position + min(max(stop - self._position, self._ahead), _MOST), self._size)
        self._block, self._block_start = self._fetch(start, end), start

    def _next_ahead(self, asked: int) -> int:
        """Return how many bytes to fetch at least: as many as a reader of this habit may need soon."""
        jump = self._position - self._block_start - len(self._block)
        if jump == 0 and (self._block or asked >= _LEAST):
            return _READ_AHEAD
        twice = min(2 * self._ahead, _READ_AHEAD)
        return max(twice if 0 < jump <= _NEAR else 0, _LEAST)
