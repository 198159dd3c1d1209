"""A part read to its end: its bytes hashed, its rows counted."""

from __future__ import annotations

import hashlib
import io
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from batchrunner.checkpoint import PlanFacts
from batchrunner.errors import StorageError
from batchrunner.formats.contract import RecordReader, TableReader
from batchrunner.formats.format_error import second_reader_of
from batchrunner.formats.jsonl_second_reader import BLOCK_BYTES, blocks
from batchrunner.storage import Entry, Storage
from batchrunner.verify.reading import unreadable

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer


@dataclass(frozen=True, slots=True)
class PartRead:
    """What a part holds.

    Attributes:
        sha256: Of all its bytes, in hex.
        rows: Count of its rows; None when it cannot be decoded.
        why: The error when it cannot be decoded.
    """

    sha256: str
    rows: int | None
    why: str = ""


def read_part(sink: Storage, entry: Entry, facts: PlanFacts) -> PartRead:
    """Hash and count the part of *entry*, in bounded memory.

    Raises:
        StorageError: It cannot be read, or is gone, or changed meanwhile.
    """
    reader = second_reader_of(facts.part_format)
    # In one pass where the format is read front to back, else in two.
    with sink.open(entry) as file:
        if reader.reads_in_order:
            hashed = HashedFile(file)
            rows, why = _counted(reader, hashed, facts.compression)
            return PartRead(hashed.finish(), rows, why)
        rows, why = _counted(reader, file, facts.compression)
    return PartRead(sha256_of(sink, entry), rows, why)


def sha256_of(sink: Storage, entry: Entry) -> str:
    """Return the SHA-256 of an object, in hex."""
    with sink.open(entry) as file:
        return HashedFile(file).finish()


class HashedFile(io.RawIOBase):
    """A file that hashes the bytes that are read from it, front to back."""

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

    def finish(self) -> str:
        """Read the rest, which a decoder leaves when it fails; return the SHA-256 of all bytes."""
        for _ in blocks(self):
            pass
        return self._hash.hexdigest()


def _counted(
    reader: RecordReader | TableReader, file: Any, compression: str
) -> tuple[int | None, str]:
    """Return the count of rows of a part, every value decoded; or None and the error."""
    try:
        return reader.count_part(file, compression=compression), ""
    except StorageError:
        raise
    except unreadable() as error:
        return None, str(error)
