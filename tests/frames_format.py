"""A third format, as a user would add it: frames of a length, a checksum and a Python literal.

It cannot be cut at any byte, as lines can, and its values keep their types: bytes, tuples, sets.
"""

import ast
import binascii
import struct
import zlib
from dataclasses import replace

from batchrunner.errors import ShardFailedError
from batchrunner.formats import RowFormat
from batchrunner.formats.contract import Cut, RecordReader
from batchrunner.formats.lines import buffered
from batchrunner.formats.records import chunk_of
from batchrunner.shard import Slicing

HEAD = struct.Struct("<II")  # length of the literal, its CRC-32
CHUNK_BYTES = 1 << 20


class Frames(RowFormat):
    """A position is the offset of a frame."""

    suffixes = (".frames",)

    def cut(self, size, *, compression, sharding, limit, opened):
        with opened() as file:
            try:
                ends = [at + HEAD.size + len(body) for at, body in frames(file, 0, size)]
            except ValueError:  # its reader says why
                return [Cut(Slicing.BYTES, 0, size, None, size)]
        slices, start, rows = [], 0, 0
        for number, end in enumerate(ends[:limit], start=1):
            rows += 1
            measure = {"rows": rows, "bytes": end - start}.get(sharding.unit, 0)
            if measure >= sharding.count or number == len(ends[:limit]):
                slices.append(Cut(Slicing.BYTES, start, end, rows, end - start))
                start, rows = end, 0
        return slices

    def read(self, file, piece, *, compression, columns, partition):
        keep = {"unit": "byte", "columns": columns, "partition": partition}
        held, size = [], 0
        try:
            for at, body in frames(file, piece.start, piece.stop):
                held.append((at, body))
                size += len(body)
                if size >= CHUNK_BYTES:
                    yield chunk_of(held, literal, **keep)
                    held, size = [], 0
        except ValueError as error:
            raise ShardFailedError(f"{piece.uri}: {error}") from error
        yield chunk_of(held, literal, **keep)

    def span(self, piece, positions, *, compression):
        start, stop = min(positions), max(positions) + 1
        return replace(piece, slicing=Slicing.BYTES, start=start, stop=stop)

    def encode(self, rows):
        return b"".join(map(frame, rows))

    def second_reader(self):
        return FramesAgain()


def frame(row):
    body = repr(row).encode()
    if repr(literal(body)).encode() != body:
        raise ValueError(f"no literal: {body[:80]}")
    return HEAD.pack(len(body), zlib.crc32(body)) + body


def frames(file, start, stop):
    """Yield offset and checked body of each frame that begins in the range."""
    file = buffered(file)
    file.seek(start)
    while start < stop and (head := file.read(HEAD.size)):
        length, crc = HEAD.unpack(head) if len(head) == HEAD.size else (1 << 32, 0)
        body = file.read(length) if length < CHUNK_BYTES * 16 else b""
        if len(body) < length:
            raise ValueError(f"the frame at byte {start:,} is cut short, or none")
        yield start, body if zlib.crc32(body) == crc else b"?" * length
        start += HEAD.size + length


def literal(body):
    try:
        row = ast.literal_eval(body.decode())
    except SyntaxError as error:
        raise ValueError(f"no literal: {error}") from error
    if not isinstance(row, dict):
        raise ValueError("a frame holds a dict")  # noqa: TRY004 - bad data, not bad code
    return row


class FramesAgain(RecordReader):
    """By code of its own: the whole record, head and body, is what it hands on."""

    def records(self, file, piece, *, wanted, compression):
        span = (piece.start, piece.stop) if wanted is None else (min(wanted), max(wanted) + 1)
        return self._records(file, *span)

    def part_records(self, file, *, compression):
        return self._records(file, 0, 1 << 62)

    def _records(self, file, at, stop):
        file.seek(at)
        while at < stop and (head := file.read(8)):
            length = int.from_bytes(head[:4], "little")
            body = file.read(length)
            if len(head) + len(body) != 8 + length:
                raise ValueError(f"no whole frame at byte {at:,}")
            yield [(at, head + body)]
            at += 8 + length

    def row_of(self, record):
        if binascii.crc32(record[8:]) != int.from_bytes(record[4:8], "little"):
            raise ValueError("its checksum is another")
        return dict(ast.literal_eval(record[8:].decode()))
