"""Hashes of the source bytes of Arrow slices; see `hashing.py` for what they are good for.

A hash covers all that was read, with its place: the footer, the metadata, the columns that were asked
for. To compare, the slice is read again in the same way. pyarrow chooses what it reads: if another
version reads otherwise, a touched file counts as changed.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import BinaryIO, cast

import pyarrow as pa
import xxhash

from batchrunner.errors import StorageError
from batchrunner.formats.arrow_batches import opened
from batchrunner.formats.hashing import digest_text
from batchrunner.shard import Slice


class ArrowHash:
    """Hashes one slice while it is read."""

    def __init__(self) -> None:
        self._reads: PlacedReads | None = None

    @property
    def text(self) -> str:
        return self._reads.digest() if self._reads else ""

    def over(self, file: BinaryIO) -> BinaryIO:
        self._reads = PlacedReads(file)
        return cast(BinaryIO, self._reads)

    def finish(self, file: BinaryIO) -> None:
        """Do nothing: all was hashed as it was read."""


class PlacedReads(io.RawIOBase):
    """Hashes what is read of a file, and where. Does not close it."""

    def __init__(self, file: BinaryIO) -> None:
        self._file, self._at = file, 0
        self._hash, self._count = xxhash.xxh3_128(), 0

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
        self._hash.update(b"%d:%d:" % (self._at, len(data)))
        self._hash.update(data)
        self._at, self._count = self._at + len(data), self._count + len(data)
        return data

    def digest(self) -> str:
        return digest_text(self._hash, self._count)


def has_same_reads(
    file: BinaryIO, piece: Slice, *, columns: Sequence[str] | None, hashed: str
) -> bool:
    """Return whether reading *piece* from *file* reads the bytes whose hash is *hashed*."""
    reads = PlacedReads(file)
    try:
        source = opened(cast(BinaryIO, reads), piece, remember=False)
        for _ in source.batches(piece, columns=None if columns is None else tuple(columns)):
            if reads.digest() == hashed:  # of a window, no more was read
                return True
    except (pa.ArrowException, OSError, ValueError) as error:
        if isinstance(error, StorageError):
            raise
        return False
    return reads.digest() == hashed
