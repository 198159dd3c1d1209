"""Hashes of slices of CSV: the bytes of the slice, and those of the header that its rows depend on."""

from __future__ import annotations

from typing import BinaryIO

import xxhash

from batchrunner.formats.hashing import WatchedReads, digest_text, extents_hash


def has_same_reads(file: BinaryIO, *, hashed: str) -> bool:
    """Return whether *file* has the bytes that *hashed* covers."""
    extents, _, digest = hashed.rpartition("/")
    pairs = (extent.split("+") for extent in extents.split(","))
    return extents_hash(file, [(int(start), int(count)) for start, count in pairs]) == digest


class ExtentReads(WatchedReads):
    """Hashes all bytes that are read, in the order of reading, and says which they were."""

    def __init__(self, file: BinaryIO) -> None:
        super().__init__(file, at=file.tell())
        self._hash = xxhash.xxh3_128()
        self._extents: list[list[int]] = []

    def _saw(self, at: int, data: bytes) -> None:
        self._hash.update(data)
        if self._extents and sum(self._extents[-1]) == at:
            self._extents[-1][1] += len(data)
        elif data:
            self._extents.append([at, len(data)])

    def digest(self) -> str:
        """Return the extents read and the hash of their bytes."""
        extents = ",".join(f"{start}+{count}" for start, count in self._extents)
        total = sum(count for _, count in self._extents)
        return f"{extents}/{digest_text(self._hash, total)}" if extents else ""
