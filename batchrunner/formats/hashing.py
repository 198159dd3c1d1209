"""Hashes of a shard's source bytes: a file with the same bytes is the same, whatever its time.

A hash covers the bytes that the shard's rows depend on, and no others:

* a byte range of lines: from the byte before its `start` to its end, which is the first newline at
  or after the byte before `stop`, or the end of the file;
* any other slice: its bytes from the first to the last one that was read.

Parquet, which is not read front to back, has a hash of its own in `parquet_hash.py`.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, BinaryIO, Protocol, cast

import xxhash

_BLOCK_BYTES = 128 << 10  # fits into the processor's cache, and is allocated once


class SourceHash(Protocol):
    """Hashes the source of one shard. Call `over` before reading and `finish` after it."""

    @property
    def text(self) -> str:
        """The hash, after `finish`; "" if it cannot cover all that the rows depend on."""

    def over(self, file: BinaryIO) -> BinaryIO:
        """Return the file to read in place of *file*."""

    def finish(self, file: BinaryIO) -> None:
        """Complete the hash, which is in `text` then; may read *file* again."""


class WatchedReads(io.RawIOBase):
    """Passes reads on to a file, and sees what is read of it, and where. Does not close it."""

    def __init__(self, file: BinaryIO, *, at: int = 0) -> None:
        self._file, self._at = file, at

    def _saw(self, at: int, data: bytes) -> None:
        """Take note of *data*, which was read at byte *at*."""
        raise NotImplementedError

    def digest(self) -> str:
        """Return the hash of what was read; "" if it cannot cover all that the rows depend on."""
        raise NotImplementedError

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        self._at = self._file.seek(offset, whence)
        return self._at

    def tell(self) -> int:
        return self._at

    def read(self, size: int | None = -1, /) -> bytes:
        data = self._file.read(-1 if size is None else size)
        at, self._at = self._at, self._at + len(data)
        self._saw(at, data)
        return data

    def readall(self) -> bytes:
        return self.read()

    def readinto(self, buffer: Any, /) -> int:
        view = memoryview(buffer).cast("B")
        data = self.read(view.nbytes)
        view[: len(data)] = data
        return len(data)


class HashOfReads:
    """Hashes a slice while it is read, by watched *reads* of its file."""

    def __init__(self, reads: Callable[[BinaryIO], WatchedReads]) -> None:
        self._watch = reads
        self._reads: WatchedReads | None = None

    @property
    def text(self) -> str:
        return self._reads.digest() if self._reads else ""

    def over(self, file: BinaryIO) -> BinaryIO:
        self._reads = self._watch(file)
        return cast(BinaryIO, self._reads)

    def finish(self, file: BinaryIO) -> None:
        """Do nothing: all was hashed as it was read."""


class HashedReads(WatchedReads):
    """Hashes a file while it is read front to back."""

    def __init__(self, file: BinaryIO, *, start: int, stop: int | None) -> None:
        """Hash from *start* to the first newline from *stop* - 1 on, or to the last byte read."""
        super().__init__(file)
        self._stop = stop
        self._hashed_to, self._start = start, start
        self._hash = xxhash.xxh3_128()
        self._is_whole, self._is_done = True, False

    def _saw(self, at: int, data: bytes) -> None:
        if data and at < self._start:  # such as a header line, on which the rows depend, too
            self._is_whole = False
        if self._is_done or self._at <= self._hashed_to:
            return
        if at > self._hashed_to:
            self._is_whole = False
            return
        first, last = self._hashed_to - at, len(data)
        if self._stop is not None:
            newline = data.find(b"\n", max(self._stop - 1 - at, first)) + 1
            self._is_done, last = bool(newline), newline or last
        self._hash.update(memoryview(data)[first:last])
        self._hashed_to = at + last

    def digest(self) -> str:
        """Return the hash; "" if bytes were skipped, or bytes before *start* were read.

        It would not cover all that the rows depend on, and a changed file would pass for the same.
        """
        return digest_text(self._hash, self._hashed_to - self._start) if self._is_whole else ""


class ReadHash(HashOfReads):
    """Hashes what is read, front to back, from byte *start* on."""

    def __init__(self, start: int, *, line_at: int | None = None) -> None:
        """Hash to the last byte read, or to the first newline at or after *line_at* - 1."""
        super().__init__(partial(HashedReads, start=start, stop=line_at))


def has_same_extent(file: BinaryIO, start: int, *, hashed: str) -> bool:
    """Return whether *file* has, from byte *start* on, the bytes whose hash is *hashed*."""
    count = int(hashed.rpartition("-")[2])
    return extents_hash(file, [(start, count)]) == hashed


def digest_text(digest: xxhash.xxh3_128, count: int) -> str:
    return f"{digest.hexdigest()}-{count}"


def extents_hash(file: BinaryIO, extents: Sequence[tuple[int, int]]) -> str:
    """Return the hash of the bytes at *extents*, each an offset and a length."""
    digest = xxhash.xxh3_128()
    block = memoryview(bytearray(_BLOCK_BYTES))
    for start, count in extents:
        file.seek(start)
        rest = count
        while rest and (size := cast(io.RawIOBase, file).readinto(block[: min(rest, len(block))])):
            digest.update(block[:size])
            rest -= size
    return digest_text(digest, sum(count for _, count in extents))
