"""Where the record batches of an Arrow IPC file are, and how many rows each has: its footer alone.

pyarrow reads a batch as a whole to say that. The metadata are flatbuffers, of which we need three
tables: see https://arrow.apache.org/docs/format/Columnar.html#ipc-file-format and the schemas
File.fbs and Message.fbs there; https://flatbuffers.dev/internals has the encoding.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import BinaryIO

MAGIC = b"ARROW1"
FEATHER_1 = b"FEA1"
_CONTINUATION = 0xFFFFFFFF
_RECORD_BATCHES = 3  # the field's number in the table Footer
_HEADER, _LENGTH = 2, 0  # in the tables Message and RecordBatch


@dataclass(frozen=True, slots=True)
class Block:
    """A record batch in a file.

    Attributes:
        offset: Of its first byte.
        metadata: Bytes of its metadata, from *offset* on.
        body: Bytes of its values, after the metadata.
    """

    offset: int
    metadata: int
    body: int

    @property
    def nbytes(self) -> int:
        return self.metadata + self.body


def record_batches(file: BinaryIO, *, size: int) -> list[Block]:
    """Return the record batches of the IPC *file* of *size* bytes, in the order of its footer.

    Raises:
        ValueError: It has no footer.
    """
    tail = 4 + len(MAGIC)
    file.seek(max(size - tail, 0))
    end = file.read(tail)
    length = int.from_bytes(end[:4], "little")
    if end[4:] != MAGIC or length + tail > size:
        raise ValueError("it has no footer at its end")
    file.seek(size - tail - length)
    try:
        footer = _Table.root(file.read(length))
        at, count = footer.vector(_RECORD_BATCHES)
        blocks = [struct.unpack_from("<qi4xq", footer.data, at + 24 * n) for n in range(count)]
    except struct.error as error:
        raise ValueError("its footer is damaged") from error
    return [Block(*block) for block in blocks]


def row_counts(file: BinaryIO, blocks: Sequence[Block]) -> list[int]:
    """Return the row count of each of *blocks*, of which only the metadata is read.

    Raises:
        ValueError: The metadata are damaged.
    """
    return [_row_count(file, block) for block in blocks]


def _row_count(file: BinaryIO, block: Block) -> int:
    file.seek(block.offset)
    data = file.read(block.metadata)
    try:
        has_mark = struct.unpack_from("<I", data)[0] == _CONTINUATION
        message = _Table.root(data[8 if has_mark else 4 :])  # before version 0.15 without the mark
        return message.table(_HEADER).int64(_LENGTH)
    except struct.error as error:
        raise ValueError(f"the record batch at byte {block.offset:,} is damaged") from error


@dataclass(frozen=True, slots=True)
class _Table:
    """A table of flatbuffers: at *at* in *data*, its fields behind the offsets of a vtable."""

    data: bytes
    at: int

    @classmethod
    def root(cls, data: bytes) -> _Table:
        return cls(data, struct.unpack_from("<I", data)[0])

    def _field(self, number: int) -> int:
        """Return where a field is; 0 if it has its default."""
        vtable = self.at - struct.unpack_from("<i", self.data, self.at)[0]
        if 4 + 2 * number >= struct.unpack_from("<H", self.data, vtable)[0]:
            return 0
        offset: int = struct.unpack_from("<H", self.data, vtable + 4 + 2 * number)[0]
        return self.at + offset if offset else 0

    def int64(self, number: int) -> int:
        at = self._field(number)
        return int(struct.unpack_from("<q", self.data, at)[0]) if at else 0

    def table(self, number: int) -> _Table:
        at = self._field(number)
        return _Table(self.data, at + struct.unpack_from("<I", self.data, at)[0])

    def vector(self, number: int) -> tuple[int, int]:
        """Return where the items of a vector are, and their count."""
        at = self._field(number)
        if not at:
            return 0, 0
        at += struct.unpack_from("<I", self.data, at)[0]
        return at + 4, struct.unpack_from("<I", self.data, at)[0]
