"""Finds the records of CSV: lines, except where a quoted field holds the line end.

Quotes count at the start of a field only, and inside a quoted field, where two stand for one. So whether
a line end ends a record is known only from the start of the file on: nothing here begins elsewhere than
at the first byte of a record.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from batchrunner.formats.compression import ByteStream
from batchrunner.formats.csv_dialect import Dialect
from batchrunner.formats.lines import BLOCK_BYTES, HEAD_BYTES, MAX_LINE_BYTES

Bytes = npt.NDArray[np.uint8]
Ends = npt.NDArray[np.int64]

_NEWLINE, _RETURN = b"\n\r"
_BLANK = (b"\n", b"\r\n", b"\r")


class CsvError(ValueError):
    """The file cannot be read as CSV; the message says why, and the way out."""


@dataclass(frozen=True, slots=True)
class RecordBlock:
    """Records of a file, one after the other; between them may be empty lines.

    Attributes:
        data: The bytes of the records; only a file's last one may lack its line end.
        offset: Offset of the first byte in the uncompressed file.
        starts: The start of each record in *data*.
        ends: The end of each record in *data*, its line end included.
        is_plain: Whether each quote opens a field, closes it or is doubled in it.
        overlong: 0, or the length of a single record that is too long to be held: *data* has only its
            first bytes then.
    """

    data: bytes
    offset: int
    starts: Ends
    ends: Ends
    is_plain: bool = True
    overlong: int = 0

    @classmethod
    def joined(cls, data: bytes, offset: int, ends: Ends, *, is_plain: bool) -> RecordBlock:
        """Return a block of records without gaps."""
        return cls(data, offset, np.concatenate(([0], ends[:-1])), ends, is_plain)

    def without_blanks(self) -> RecordBlock:
        """Return the block without its records that are empty lines."""
        short = np.flatnonzero(self.ends - self.starts <= len(b"\r\n"))
        lines = (self.data[self.starts[n] : self.ends[n]] for n in short)
        blank = short[[line in _BLANK for line in lines]] if len(short) else short
        if not len(blank):
            return self
        starts, ends = np.delete(self.starts, blank), np.delete(self.ends, blank)
        return replace(self, starts=starts, ends=ends)

    def until(self, count: int) -> RecordBlock:
        """Return the first *count* records."""
        starts, ends = self.starts[:count], self.ends[:count]
        return replace(self, data=self.data[: ends[-1] if count else 0], starts=starts, ends=ends)


class Records:
    """Finds the records of one dialect. Safe in several threads."""

    def __init__(self, dialect: Dialect) -> None:
        self._delimiter = ord(dialect.delimiter)
        self._quote = ord(dialect.quote) if dialect.quote else None
        field = field_pattern(dialect)
        delimiter = re.escape(dialect.delimiter.encode())
        self._field = re.compile(field)
        plain = field.replace(b"(?P<close>", b"(?:")  # a name stands once
        self._record = re.compile(plain + b"(?:" + delimiter + plain + b")*+\n")

    def ends(self, data: bytes) -> tuple[Ends, bool]:
        """Return the end of each whole record of *data*, which begins with one, and `is_plain`."""
        array = np.frombuffer(data, np.uint8)
        newlines = np.flatnonzero(array == _NEWLINE)
        if self._quote is None:
            return newlines + 1, True
        quotes = np.flatnonzero(array == self._quote)
        if not len(quotes):
            return newlines + 1, True
        if not self._are_plain(array, quotes):
            return self._ends_one_by_one(data), False
        # Every second quote closes what the one before it opened: before a line end outside of quotes
        # stands an even number of them.
        return newlines[np.searchsorted(quotes, newlines) % 2 == 0] + 1, True

    def _are_plain(self, array: Bytes, quotes: Ends) -> bool:
        """Return whether each quote opens or closes a field, in turn.

        Of two quotes that stand for one, the first then closes the field and the second opens it again,
        which changes nothing for what comes after them.
        """
        opening, closing = quotes[0::2], quotes[1::2]
        before = array[opening - 1]
        if opening[0] == 0:
            before[0] = _NEWLINE
        after = array[closing[closing + 1 < len(array)] + 1]
        begins = (before == self._delimiter) | (before == _NEWLINE) | (before == self._quote)
        stops = (after == self._delimiter) | (after == _NEWLINE) | (after == self._quote)
        return bool(begins.all() and (stops | (after == _RETURN)).all())

    def _ends_one_by_one(self, data: bytes) -> Ends:
        ends, at = [], 0
        while found := self._record.match(data, at):
            at = found.end()
            ends.append(at)
        return np.array(ends, dtype=np.int64)

    def blocks(
        self, stream: ByteStream, *, start: int = 0, stop: int | None = None
    ) -> Iterator[RecordBlock]:
        """Yield the records that begin before byte *stop*, about a megabyte at a time.

        The next byte of *stream* is byte *start*, where a record begins. Holds at most
        `MAX_LINE_BYTES` and a block in memory.

        Raises:
            CsvError: The file ends inside of quotes.
        """
        held, head, skipped = b"", b"", 0
        while (stop is None or start < stop) and (block := stream.read(BLOCK_BYTES)):
            data = held + block
            ends, is_plain = self.ends(data)
            if skipped and len(ends):
                length = skipped + int(ends[0]) - len(held)
                yield _overlong(head, start, length)
                start, data, ends = start + length, data[ends[0] :], ends[1:] - ends[0]
                skipped = 0
            if len(ends):
                yield from _beginning_before(
                    RecordBlock.joined(data[: ends[-1]], start, ends, is_plain=is_plain), stop
                )
                start, data = start + int(ends[-1]), data[ends[-1] :]
            held = data
            if skipped:
                skipped, held = skipped + len(block), self._gist(held)
            elif len(held) > MAX_LINE_BYTES:
                head, skipped, held = held[:HEAD_BYTES], len(held), self._gist(held)
        if (held or skipped) and (stop is None or start < stop):
            yield self._last(held, start, head, skipped)

    def _last(self, held: bytes, start: int, head: bytes, skipped: int) -> RecordBlock:
        """Return the last record of a file, which has no line end."""
        if self._gist(held) == bytes([self._quote or _NEWLINE]):
            raise CsvError(
                f"the record at byte {start:,} has a quote that is never closed, so how many rows it "
                "holds is unknown: close it, or set source.format_options: {quote: null} if quotes are "
                "text"
            )
        if skipped:
            return _overlong(head, start, skipped)
        _, is_plain = self.ends(held + b"\n")
        return RecordBlock.joined(held, start, np.array([len(held)]), is_plain=is_plain)

    def _gist(self, data: bytes) -> bytes:
        """Return a few bytes that what follows *data*, the start of a record, can be appended to.

        A quote alone if it ends inside of quotes, two if behind the second one, none at the start of a
        field, else a byte of text.
        """
        at, quote = 0, self._quote
        while found := self._field.match(data, at):
            if found.end() == len(data):
                break
            at = found.end() + 1
        if found is None or found.end() == at:
            return b""
        if quote is None or data[at] != quote:
            return b"\0"
        if found["close"] is None:
            return bytes([quote])
        return b"\0" if found["close"][1:] else bytes([quote, quote])


def _overlong(head: bytes, start: int, length: int) -> RecordBlock:
    none = np.zeros(0, np.int64)
    return RecordBlock(head, start, none, none, overlong=length)


def field_pattern(dialect: Dialect) -> bytes:
    """Return a regular expression for one field; `close` is its second quote and what follows it.

    It has no nested choice, so that it takes no longer than the field is.
    """
    delimiter = re.escape(dialect.delimiter.encode())
    text = b"[^" + delimiter + b"\n]*+"
    if not dialect.quote:
        return text
    quote = re.escape(dialect.quote.encode())
    inside = quote + b"(?:[^" + quote + b"]++|" + quote + quote + b")*+"
    plain = b"[^" + quote + delimiter + b"\\n]" + text
    return b"(?:" + inside + b"(?P<close>" + quote + text + b")?+|" + plain + b"|)"


def _beginning_before(block: RecordBlock, stop: int | None) -> Iterator[RecordBlock]:
    if stop is not None:
        block = block.until(int(np.searchsorted(block.starts + block.offset, stop)))
    if len(block.ends):
        yield block
