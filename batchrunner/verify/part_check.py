"""Reads a part to its end, hashes its bytes and counts its rows."""

from __future__ import annotations

import hashlib
import io
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from batchrunner.checkpoint import PlanFacts
from batchrunner.errors import StorageError
from batchrunner.formats.contract import RecordReader, TableReader
from batchrunner.formats.format_error import part_reader_of
from batchrunner.formats.jsonl_second_reader import BLOCK_BYTES, blocks
from batchrunner.storage import Entry, Storage
from batchrunner.verify.reading import unreadable

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer


@dataclass(frozen=True, slots=True)
class PartRead:
    """The hash and the row count of a part.

    Attributes:
        sha256: SHA-256 of all its bytes, in hex.
        rows: Count of its rows; None if it cannot be decoded.
        why: The error if it cannot be decoded, else "".
    """

    sha256: str
    rows: int | None
    why: str = ""


def read_part(sink: Storage, entry: Entry, facts: PlanFacts) -> PartRead:
    """Hash the part *entry* and count its rows, in bounded memory.

    Raises:
        StorageError: The part cannot be read, is gone, or changed meanwhile.
    """
    reader = part_reader_of(facts.part_format, types=lambda: None, compression=facts.compression)
    # In one pass if the reader reads front to back, else in two.
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
    """Hashes the bytes of a file while they are read, front to back."""

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
        """Read what a failed decoder left unread; return the SHA-256 of all bytes."""
        for _ in blocks(self):
            pass
        return self._hash.hexdigest()


def _counted(
    reader: RecordReader | TableReader, file: Any, compression: str
) -> tuple[int | None, str]:
    """Return the row count of a part, read to its end; or None and the error."""
    try:
        return reader.count_part(file, compression=compression), ""
    except StorageError:
        raise
    except unreadable() as error:
        return None, str(error)
