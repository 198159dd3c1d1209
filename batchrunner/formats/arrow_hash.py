"""Hashes of the source bytes of Arrow slices; see `hashing.py` for what they are good for.

A hash covers all that was read, with its place: the footer, the metadata, the columns that were asked
for. To compare, the slice is read again in the same way. pyarrow chooses what it reads: if another
version reads otherwise, a touched file counts as changed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import BinaryIO, cast

import pyarrow as pa
import xxhash

from batchrunner.errors import StorageError
from batchrunner.formats.arrow_batches import opened
from batchrunner.formats.hashing import WatchedReads, digest_text
from batchrunner.shard import Slice


class PlacedReads(WatchedReads):
    """Hashes what is read of a file, and where."""

    def __init__(self, file: BinaryIO) -> None:
        super().__init__(file)
        self._hash, self._count = xxhash.xxh3_128(), 0

    def _saw(self, at: int, data: bytes) -> None:
        self._hash.update(b"%d:%d:" % (at, len(data)))
        self._hash.update(data)
        self._count += len(data)

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
