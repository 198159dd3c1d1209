"""Hashes of slices of CSV: the bytes of the slice, and those of the header that its rows depend on."""

from __future__ import annotations

import io
from typing import Any, BinaryIO, cast

import xxhash

from batchrunner.formats.hashing import digest_text, extents_hash


class CsvHash:
    """Hashes all bytes that are read, in the order of reading, and says which they were."""

    def __init__(self) -> None:
        self._reads: _Reads | None = None

    @property
    def text(self) -> str:
        return self._reads.text() if self._reads else ""

    def over(self, file: BinaryIO) -> BinaryIO:
        self._reads = _Reads(file)
        return cast(BinaryIO, self._reads)

    def finish(self, file: BinaryIO) -> None:
        """Do nothing: all was hashed as it was read."""


def has_same_reads(file: BinaryIO, *, hashed: str) -> bool:
    """Return whether *file* has the bytes that *hashed* covers."""
    extents, _, digest = hashed.rpartition("/")
    pairs = (extent.split("+") for extent in extents.split(","))
    return extents_hash(file, [(int(start), int(count)) for start, count in pairs]) == digest


class _Reads(io.RawIOBase):
    """Passes reads on to a file, and does not close it."""

    def __init__(self, file: BinaryIO) -> None:
        self._file, self._hash, self._at = file, xxhash.xxh3_128(), file.tell()
        self._extents: list[list[int]] = []

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
        self._hash.update(data)
        if self._extents and sum(self._extents[-1]) == self._at:
            self._extents[-1][1] += len(data)
        elif data:
            self._extents.append([self._at, len(data)])
        self._at += len(data)
        return data

    def readinto(self, buffer: Any, /) -> int:
        view = memoryview(buffer).cast("B")
        data = self.read(view.nbytes)
        view[: len(data)] = data
        return len(data)

    def text(self) -> str:
        """Return the extents read and the hash of their bytes."""
        extents = ",".join(f"{start}+{count}" for start, count in self._extents)
        total = sum(count for _, count in self._extents)
        return f"{extents}/{digest_text(self._hash, total)}" if extents else ""
