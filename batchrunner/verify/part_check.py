"""One part, read from end to end: its bytes hashed, its rows counted."""

from __future__ import annotations

import hashlib
import io
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from batchrunner.checkpoint import PlanFacts
from batchrunner.errors import StorageError
from batchrunner.formats.contract import RecordReader, TableReader
from batchrunner.formats.jsonl_second_reader import BLOCK_BYTES, blocks
from batchrunner.storage import Entry, Storage
from batchrunner.verify.counting import unreadable

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer


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
    reader = facts.part_format.second_reader()
    with sink.open(entry) as file:
        if reader.reads_in_order:
            hashed = HashedFile(file)
            rows, why = _counted(reader, hashed, facts.compression)
            return PartRead(hashed.to_the_end(), rows, why)
        rows, why = _counted(reader, file, facts.compression)
    return PartRead(sha256_of(sink, entry), rows, why)


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


def _counted(
    reader: RecordReader | TableReader, file: Any, compression: str
) -> tuple[int | None, str]:
    """Return the rows of a part, every value decoded, or None and what is in the way."""
    try:
        return reader.count_part(file, compression=compression), ""
    except StorageError:
        raise
    except unreadable() as error:
        return None, str(error)
