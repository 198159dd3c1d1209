"""Reads tar files for `verify`, with code that took no part in the run.

Headers are parsed here, by the layouts of POSIX (ustar and pax) and of GNU tar. A record is a sample: its
members as they stand in the file, headers included. A sample that is too large is an empty record.
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from itertools import groupby, islice, takewhile
from typing import Any

from batchrunner.formats.chunk import Row
from batchrunner.formats.contract import RecordReader, Records
from batchrunner.shard import Slice, Slicing

_BLOCK = 512
_CHECKSUM = slice(148, 156)
_HELD_BYTES, _READ_BYTES = 64 << 20, 1 << 20
_PLAIN, _FOLDER = (b"0", b"\0", b"7"), b"5"
_NO_DATA = (_FOLDER, b"D", b"V", b"g")
"""Also a folder with its list and the name of a volume, of GNU; and what pax says of all members."""
_WITHOUT_DATA = (b"1", b"2", b"3", b"4", b"5", b"6")


class HeaderReader(RecordReader):
    """The second reader of tar files."""

    reads_in_order = True

    def records(
        self, file: Any, piece: Slice, *, wanted: Collection[int] | None, compression: str | None
    ) -> Iterator[Records]:
        start, stop = _span(piece, wanted, compression)
        file.seek(start)
        found = _samples(_uncompressed(file, compression), start)
        if piece.slicing is Slicing.HEAD:
            found = islice(found, piece.stop)
        yield from ([item] for item in takewhile(lambda item: item[0] < stop, found))

    def part_records(self, file: Any, *, compression: str) -> Iterator[Records]:
        # What `encode` returns has no end; of a part, the SHA-256 vouches for it.
        found = _samples(_uncompressed(file, compression), 0, has_end=False)
        yield from ([item] for item in found)

    def row_of(self, record: bytes) -> Row:
        row: Row = {}
        for member in _members(io.BytesIO(record), 0, has_end=False):
            key, extension = _key_and_extension(member.name)
            row.setdefault("__key__", key)
            if member.kind not in _PLAIN or not extension or extension in row:
                raise ValueError(f"the member {member.name!r} is no column of a row")
            extension.encode()  # a name that is no UTF-8 raises
            row[extension] = member.content
        if not row:
            raise ValueError("the sample is too large")
        row["__key__"].encode()
        return row


@dataclass(frozen=True, slots=True)
class _Header:
    """A header block, with what the extended headers before it say of the same member."""

    name: str
    kind: bytes
    size: int

    @property
    def padded(self) -> int:
        """How many bytes of data follow, padding included."""
        return 0 if self.kind in _WITHOUT_DATA else -(-self.size // _BLOCK) * _BLOCK


@dataclass(frozen=True, slots=True)
class _Member:
    """A member: where its first header is, its bytes with all headers, and its data."""

    at: int
    name: str
    kind: bytes
    raw: bytes
    content: bytes
    is_whole: bool


def _span(piece: Slice, wanted: Collection[int] | None, compression: str | None) -> tuple[int, int]:
    if wanted and not compression:
        return min(wanted), max(wanted) + 1
    return (piece.start, piece.stop) if piece.slicing is Slicing.BYTES else (0, 1 << 62)


def _samples(stream: Any, at: int, *, has_end: bool = True) -> Iterator[tuple[int, bytes]]:
    """Yield the offset and the record of each sample from byte *at* on, where *stream* is."""
    found = _members(stream, at, has_end=has_end)
    for _, members in groupby(found, lambda one: _key_and_extension(one.name)[0]):
        begin, raw, is_whole = -1, list[bytes](), True
        for member in members:
            begin = member.at if begin < 0 else begin
            is_whole = is_whole and member.is_whole and sum(map(len, raw)) < 2 * _HELD_BYTES
            raw = [*raw, member.raw] if is_whole else []
        yield begin, b"".join(raw)


def _members(stream: Any, at: int, *, has_end: bool = True) -> Iterator[_Member]:
    """Yield the members that are data, from byte *at* on, where *stream* is, to a block of zeros."""
    begin, raw, said = at, b"", dict[str, str]()
    while block := _take(stream, _BLOCK):
        if not block.strip(b"\0"):
            return
        header = _header(block, said)
        data = _take(stream, header.padded) if header.padded <= _HELD_BYTES else b""
        if not data:
            _pass(stream, header.padded)
        raw, at = raw + block + data, at + _BLOCK + header.padded
        if header.kind in b"LKxX":
            said |= _said(header, data[: header.size])
            continue
        if _is_data(header):
            is_whole = len(data) == header.padded
            content = data[: header.size]
            yield _Member(begin, header.name, header.kind, raw, content, is_whole)
        begin, raw, said = at, b"", {}
    if has_end:
        raise ValueError("the archive has no end")


def _header(block: bytes, said: dict[str, str]) -> _Header:
    blank = block[: _CHECKSUM.start] + b" " * 8 + block[_CHECKSUM.stop :]
    if _number(block[_CHECKSUM]) != sum(blank):
        raise ValueError("a header has a wrong checksum")
    kind = block[156:157]
    if kind in b"LKxXg":
        return _Header("", kind, _number(block[124:136]))
    name = _text(block[:100])
    if block[257:263] == b"ustar\0" and (prefix := _text(block[345:500])):
        name = f"{prefix}/{name}"
    kind = _FOLDER if kind == b"\0" and name.endswith("/") else kind
    if any(key.startswith("GNU.sparse.") for key in said):
        kind = b"S"
    size = int(said.get("size") or _number(block[124:136]))
    return _Header(said.get("path", name), kind, size)


def _said(header: _Header, data: bytes) -> dict[str, str]:
    """Return what an extended header says of the member that follows."""
    if header.kind == b"L":
        return {"path": _text(data)}
    said: dict[str, str] = {}
    while header.kind in b"xX" and data.strip(b"\0"):
        length, _, rest = data.partition(b" ")
        record, data = rest[: int(length) - len(length) - 1], data[int(length) :]
        key, _, value = record.removesuffix(b"\n").partition(b"=")
        said[_text(key)] = value.decode("utf-8", "surrogateescape")
    return said


def _is_data(header: _Header) -> bool:
    folder, _, base = header.name.rpartition("/")
    names = [name for name in folder.split("/") if name.strip(".") or len(name) > 2] + [base]
    is_meta = names[0][:2] == "__" and names[0][-2:] == "__"
    return header.kind not in _NO_DATA and not is_meta and all(name[:1] != "." for name in names)


def _key_and_extension(name: str) -> tuple[str, str]:
    dot = name.find(".", name.rfind("/") + 1)
    return (name, "") if dot < 0 else (name[:dot], name[dot + 1 :].lower())


def _text(field: bytes) -> str:
    return field.partition(b"\0")[0].decode("utf-8", "surrogateescape")


def _number(field: bytes) -> int:
    if field[0] & 0x80:  # GNU: base 256, for what octal digits cannot hold
        return int.from_bytes(field, "big") & ((1 << (8 * len(field) - 1)) - 1)
    return int(field.partition(b"\0")[0].strip() or b"0", 8)


def _take(stream: Any, size: int) -> bytes:
    """Return the next *size* bytes of *stream*; b"" at its end."""
    pieces: list[bytes] = []
    rest = size
    while rest and (piece := stream.read(min(rest, _READ_BYTES))):
        pieces.append(piece)
        rest -= len(piece)
    if pieces and rest:
        raise ValueError("the file is cut short")
    return b"".join(pieces)


def _pass(stream: Any, size: int) -> None:
    while size and (piece := stream.read(min(size, _READ_BYTES))):
        size -= len(piece)


def _uncompressed(file: Any, compression: str | None) -> Any:
    if compression == "zst":
        import pyarrow as pa

        return pa.CompressedInputStream(file, "zstd")
    opened: dict[str | None, Any] = {"gz": gzip.open, "bz2": bz2.open, "xz": lzma.open}
    return opened[compression](file) if compression in opened else file
