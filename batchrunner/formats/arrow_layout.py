"""Where the messages of Arrow IPC are, and how many rows a record batch has: of its metadata alone.

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
_KIND, _HEADER, _BODY_LENGTH = 1, 2, 3  # in the table Message
_LENGTH, _NODES = 0, 1  # in the table RecordBatch
_RECORD_BATCH = 3  # the kind of a message


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

    @property
    def end(self) -> int:
        """The offset after its last byte."""
        return self.offset + self.nbytes


@dataclass(frozen=True, slots=True)
class Message:
    """A message of a stream.

    Attributes:
        block: Where it is.
        rows: The row count of a record batch; None for a schema or a dictionary.
    """

    block: Block
    rows: int | None


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


def messages(file: BinaryIO, *, size: int) -> list[Message]:
    """Return the messages of the stream in *file*, of *size* bytes; of each, the metadata is read.

    Raises:
        ValueError: It is damaged, cut short, or does not end with the file.
    """
    found: list[Message] = []
    at = 0
    while message := _message(file, at):
        found.append(message)
        at = message.block.end
        if at > size:
            raise ValueError(f"it is cut short in the message at byte {message.block.offset:,}")
    check_end(size - file.tell())
    return found


def check_end(rest: int) -> None:
    """Check that no bytes follow a stream: *rest* of them do.

    Raises:
        ValueError: There are some.
    """
    if rest:
        raise ValueError(f"its stream ends {rest:,} bytes before the file: write one stream a file")


def row_counts(file: BinaryIO, blocks: Sequence[Block]) -> list[int]:
    """Return the row count of each of *blocks*, of which only the metadata is read.

    Raises:
        ValueError: The metadata are damaged.
    """
    found = (_message(file, block.offset) for block in blocks)
    return [message.rows or 0 if message else 0 for message in found]


def _message(file: BinaryIO, at: int) -> Message | None:
    """Return the message at byte *at*; None at the mark that ends a stream, which is read then."""
    file.seek(at)
    try:
        (length,) = struct.unpack("<I", file.read(4))
        has_mark = length == _CONTINUATION  # not before version 0.15
        if has_mark:
            (length,) = struct.unpack("<I", file.read(4))
        if not length:
            return None
        table = _Table.root(file.read(length))
        rows = _rows(table.table(_HEADER)) if table.uint8(_KIND) == _RECORD_BATCH else None
        block = Block(at, length + (8 if has_mark else 4), table.int64(_BODY_LENGTH))
    except struct.error as error:
        raise ValueError(
            f"there is no message at byte {at:,}, and no mark that ends a stream"
        ) from error
    if block.body < 0 or (rows or 0) < 0:
        raise ValueError(f"the message at byte {at:,} is damaged")
    return Message(block, rows)


def _rows(batch: _Table) -> int:
    """Return the row count of a record batch, which its first column has, too; -1 if they differ.

    Or a flipped bit would have a plan of more shards than memory holds.
    """
    at, columns = batch.vector(_NODES)
    length = batch.int64(_LENGTH)
    is_said_twice = not columns or struct.unpack_from("<q", batch.data, at)[0] == length
    return length if is_said_twice else -1


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

    def uint8(self, number: int) -> int:
        at = self._field(number)
        return self.data[at] if 0 < at < len(self.data) else 0

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
