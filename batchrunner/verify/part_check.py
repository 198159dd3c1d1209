"""One part, read from end to end: its bytes hashed, its rows counted."""

from __future__ import annotations

import hashlib
import io
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from batchrunner.checkpoint import PlanFacts
from batchrunner.errors import StorageError
from batchrunner.formats.naming import PARQUET
from batchrunner.storage import Entry, Storage
from batchrunner.verify.counting import BLOCK_BYTES, blocks, uncompressed, unreadable

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

_ROWS_AT_ONCE = 16_384


@dataclass(frozen=True, slots=True)
class PartRead:
    """What a part turned out to be.

    Attributes:
        sha256: Of all its bytes, in hex.
        rows: How many it holds; None when it cannot be decoded.
        why: What is in the way of decoding it.
    """

    sha256: str
    rows: int | None
    why: str = ""


def read_part(sink: Storage, entry: Entry, facts: PlanFacts) -> PartRead:
    """Read the part of *entry*, in bounded memory.

    Raises:
        StorageError: It cannot be read, or is gone, or changed meanwhile.
    """
    if facts.format == PARQUET:
        return PartRead(sha256_of(sink, entry), *_decoded(sink, entry))
    with sink.open(entry) as file:
        hashed = HashedFile(file)
        rows, why = _lines(hashed, facts.compression)
        return PartRead(hashed.to_the_end(), rows, why)


def sha256_of(sink: Storage, entry: Entry) -> str:
    """Return the SHA-256 of an object, in hex."""
    with sink.open(entry) as file:
        return HashedFile(file).to_the_end()


class HashedFile(io.RawIOBase):
    """A file that hashes what is read from it, front to back."""

    def __init__(self, file: Any) -> None:
        self._file, self._hash = file, hashlib.sha256()

    def readable(self) -> bool:
        return True

    def read(self, size: int | None = -1, /) -> bytes:
        data: bytes = self._file.read(BLOCK_BYTES if size is None or size < 0 else size)
        self._hash.update(data)
        return data

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        view = memoryview(buffer).cast("B")
        data = self.read(len(view))
        view[: len(data)] = data
        return len(data)

    def to_the_end(self) -> str:
        """Read what is left, also after something that cannot be decoded; return the SHA-256."""
        for _ in blocks(self):
            pass
        return self._hash.hexdigest()


def _lines(hashed: HashedFile, compression: str) -> tuple[int | None, str]:
    try:
        return _ended_lines(uncompressed(hashed, compression)), ""
    except StorageError:
        raise
    except unreadable() as error:
        return None, str(error)


def _ended_lines(stream: Any) -> int:
    """Count lines; one that was cut off counts, too."""
    rows, last = 0, b"\n"
    for block in blocks(stream):
        rows, last = rows + block.count(b"\n"), block[-1:]
    return rows + (last != b"\n")


def _decoded(sink: Storage, entry: Entry) -> tuple[int | None, str]:
    """Return the rows of a Parquet part, every value decoded, or None and what is in the way."""
    import pyarrow.parquet as pq

    try:
        with sink.open(entry) as file:
            source = pq.ParquetFile(file)
            batches = source.iter_batches(_ROWS_AT_ONCE, use_threads=False)
            return sum(batch.num_rows for batch in batches), ""
    except StorageError:
        raise
    except unreadable() as error:
        return None, str(error)
