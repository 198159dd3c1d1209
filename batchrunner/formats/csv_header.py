"""Reads the header line of a CSV file, on which all its rows depend."""

from __future__ import annotations

import codecs
import io
import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from batchrunner.formats.compression import ByteStream
from batchrunner.formats.csv_dialect import Dialect
from batchrunner.formats.csv_records import CsvError, Records
from batchrunner.formats.lines import MARK, MAX_LINE_BYTES

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

HEAD_BYTES = 64 << 10
_UTF16 = "it is no UTF-8, but UTF-16: convert the file, such as by iconv -f UTF-16 -t UTF-8"
_EMPTY_LINES = re.compile(rb"(?:\r?\n)*+")


@dataclass(frozen=True, slots=True)
class Header:
    """The columns of a file.

    Attributes:
        names: Their names; empty if the file has no line with text.
        end: The offset behind the header line: a record begins there.
        rest: Bytes that were read behind it.
    """

    names: tuple[str, ...]
    end: int
    rest: bytes


def read_header(stream: ByteStream, dialect: Dialect) -> Header:
    """Read the header from *stream*, which is at the start of a file.

    Raises:
        CsvError: It cannot be read, or is too long.
    """
    head = stream.read(HEAD_BYTES)
    mark = len(MARK) if head.startswith(MARK) else 0
    if dialect.names is not None:
        return Header(dialect.names, mark, head[mark:])
    head, records = head[mark:], Records(dialect)
    while (begin := _first_with_text(head)) is None or not len(records.ends(head[begin:])[0]):
        if len(head) > MAX_LINE_BYTES:
            raise CsvError(
                f"its header line has more than {MAX_LINE_BYTES:,} bytes: for a file without one, give "
                "source.format_options: {names: [...]}"
            )
        if not (more := stream.read(HEAD_BYTES)):
            break
        head += more
    if begin is None:
        return Header((), mark + len(head), b"")
    ends, _ = records.ends(head[begin:])
    end = begin + int(ends[0]) if len(ends) else len(head)
    return Header(_names(head[begin:end], dialect), mark + end, head[end:])


def _first_with_text(head: bytes) -> int | None:
    """Return where the first line begins that is not empty."""
    found = _EMPTY_LINES.match(head)
    begin = found.end() if found else 0
    return None if head[begin:] in (b"", b"\r") else begin


def _names(record: bytes, dialect: Dialect) -> tuple[str, ...]:
    from batchrunner.formats.csv_fields import FieldSplitter

    try:
        fields = FieldSplitter(replace(dialect, nulls=())).fields(record)
        return tuple(name for name in fields if name is not None)
    except ValueError as error:
        is_utf16 = record.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
        raise CsvError(
            f"its header line cannot be read: {_UTF16 if is_utf16 else error}; for a file without one, give "
            "source.format_options: {names: [...]}"
        ) from error


class Prepended(io.RawIOBase):
    """A stream with bytes before it."""

    def __init__(self, head: bytes, stream: ByteStream) -> None:
        self._head, self._stream = head, stream

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1, /) -> bytes:
        if self._head:
            data, self._head = self._head[:size], self._head[size:]
            return data
        return self._stream.read(size)

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        view = memoryview(buffer).cast("B")
        data = self.read(len(view))
        view[: len(data)] = data
        return len(data)
