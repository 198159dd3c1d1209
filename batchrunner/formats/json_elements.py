"""Divides a file of JSON into the elements of its array, or its one document, in bounded memory.

Only quotes and brackets are understood here, which is enough to find where an element ends, whatever
it holds. So a bad element is one bad row, as long as its quotes and brackets are whole.

An element belongs to the range that holds its first byte, as a line does. Its place is the offset of
that byte, or of the comma or bracket before which it is missing. A document is at 0, where no element
is: the bracket of the array comes before it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import chain

import numpy as np

from batchrunner.formats.compression import ByteStream
from batchrunner.formats.damaged_file import MEND
from batchrunner.formats.lines import BLOCK_BYTES, HEAD_BYTES, MAX_LINE_BYTES

BLANKS = b" \t\r\n"
_MARK = b"\xef\xbb\xbf"
_OPEN, _CLOSE, _COMMA, _QUOTE = 1, 2, 3, 4
_KINDS = bytes(
    {**dict.fromkeys(b"[{", _OPEN), **dict.fromkeys(b"]}", _CLOSE), 44: _COMMA, 34: _QUOTE}.get(
        n, 0
    )
    for n in range(256)
)
_LINES = "if it has a document a line, name the file in source.uri, and give source.format: jsonl"


class UndividedError(Exception):
    """The file cannot be divided into elements; the message says where and why, and the way out."""


@dataclass(frozen=True)
class ElementBlock:
    """Elements of an array, one after the other, or a document.

    Attributes:
        data: The elements, with the commas and what is blank between them.
        offset: Offset of the first byte in the uncompressed file.
        ends: Where each element ends in *data*: at its comma, or at the bracket of the array.
        overlong: 0, or the length of a single element that is too long to be held: *data* has only
            its first `HEAD_BYTES` then.
    """

    data: bytes
    offset: int
    ends: list[int]
    overlong: int = 0

    @cached_property
    def spans(self) -> list[tuple[int, int]]:
        """The first byte of each element in *data*, and one past its last, without blanks."""
        spans, start = [], 0
        for end in self.ends:
            first = end - len(self.data[start:end].lstrip(BLANKS))
            spans.append((first, first + len(self.data[first:end].rstrip(BLANKS))))
            start = end + 1
        return spans

    @property
    def nexts(self) -> list[int]:
        """The offset in the file after each element and its comma or bracket."""
        if self.overlong:
            return [self.offset + self.overlong + 1]
        return [self.offset + end + 1 for end in self.ends]

    def records(self) -> list[tuple[int, bytes]]:
        """Return the offset in the file and the bytes of each element."""
        return [(self.offset + first, self.data[first:end]) for first, end in self.spans]

    def head(self, count: int) -> ElementBlock:
        """Return the first *count* elements."""
        ends = self.ends[:count]
        return ElementBlock(self.data[: ends[-1] + 1], self.offset, ends, self.overlong)

    def before(self, stop: int | None) -> ElementBlock:
        """Return the elements whose first byte lies before *stop*."""
        if stop is None or self.nexts[-1] <= stop:
            return self
        return self.head(sum(self.offset + first < stop for first, _ in self.spans))


def read_elements(
    stream: ByteStream, *, start: int = 0, stop: int | None = None
) -> Iterator[ElementBlock]:
    """Yield the elements whose first byte lies in [*start*, *stop*), about a block at a time.

    *stream* is at byte *start*, which is 0, or lies between two elements. Nothing after *stop* is
    read, unless the last element goes on there. Holds at most `MAX_LINE_BYTES` and a block in memory.

    Raises:
        UndividedError: The array is cut short, or the file has more than one value, or none.
    """
    pieces = _pieces(stream, at=start, stop=stop)
    if start:
        yield from _array(pieces, at=start, stop=stop, is_first=False)
        return
    at, piece = _first_piece(pieces)
    if not piece:
        raise UndividedError(f"it holds no document; {MEND}")
    if piece[:1] == b"[":
        yield from _array(chain([piece[1:]], pieces), at=at + 1, stop=stop, is_first=True)
    else:
        yield _document(chain([piece], pieces), at=at)


def _pieces(stream: ByteStream, *, at: int, stop: int | None) -> Iterator[bytes]:
    """Yield the rest of *stream*; no piece goes on beyond *stop*."""
    while piece := stream.read(
        BLOCK_BYTES if stop is None or at >= stop else min(BLOCK_BYTES, stop - at)
    ):
        at += len(piece)
        yield piece


def _first_piece(pieces: Iterator[bytes]) -> tuple[int, bytes]:
    """Return the first piece of the value, and where it is, after a byte order mark and blanks."""
    data = b""
    while len(data) < len(_MARK) and (more := next(pieces, b"")):
        data += more
    at = len(_MARK) if data.startswith(_MARK) else 0
    data = data[at:]
    while not (value := data.lstrip(BLANKS)) and (more := next(pieces, b"")):
        at, data = at + len(data), more
    return at + len(data) - len(value), value


def _array(
    pieces: Iterator[bytes], *, at: int, stop: int | None, is_first: bool
) -> Iterator[ElementBlock]:
    """Yield the elements in *pieces*, which begin at byte *at*, between two elements."""
    array = _Array(at)
    for piece in pieces:
        for block in array.feed(piece):
            if not (is_first and array.is_closed and _is_blank(block)):
                yield block.before(stop)
            is_first = False
        if array.is_closed:
            _check_rest(chain([array.held], pieces), at=array.at, value="array")
            return
        if stop is not None and array.at >= stop:
            return
    raise UndividedError(
        f"its array is cut short: the element at byte {array.at:,} does not end, or a quotation mark "
        f"or a bracket is missing before it; {MEND}"
    )


def _is_blank(block: ElementBlock) -> bool:
    return block.spans == [(block.ends[0], block.ends[0])]


class _Array:
    """Divides an array that is fed in pieces.

    Attributes:
        at: Offset of the element that has not ended yet.
        held: Its bytes, without blanks before it; none if it is too long.
        is_closed: Whether the array has ended. *held* is what follows it then.
    """

    def __init__(self, at: int) -> None:
        self.at, self.held, self.is_closed = at, b"", False
        self._brackets = _Brackets(depth=0)
        self._head, self._overlong = b"", 0

    def feed(self, piece: bytes) -> Iterator[ElementBlock]:
        """Yield the elements that end in *piece*."""
        ends, self.is_closed = self._brackets.ends(piece)
        if self._overlong:
            end = ends[0] if ends else len(piece)
            self._overlong += end
            if not ends:
                return
            yield ElementBlock(self._head, self.at, [len(self._head)], self._overlong)
            self.at, self._overlong = self.at + self._overlong + 1, 0
            piece, ends = piece[end + 1 :], [one - end - 1 for one in ends[1:]]
        yield from self._divide(self.held + piece, [len(self.held) + end for end in ends])

    def _divide(self, data: bytes, ends: list[int]) -> Iterator[ElementBlock]:
        if ends:
            yield ElementBlock(data[: ends[-1] + 1], self.at, ends)
            self.at, data = self.at + ends[-1] + 1, data[ends[-1] + 1 :]
        self.held = data.lstrip(BLANKS)
        self.at += len(data) - len(self.held)
        if len(self.held) > MAX_LINE_BYTES and not self.is_closed:
            self._head, self._overlong, self.held = self.held[:HEAD_BYTES], len(self.held), b""


def _document(pieces: Iterator[bytes], *, at: int) -> ElementBlock:
    """Return the one value in *pieces*, which begins at byte *at*, and is no array."""
    brackets, text, length = _Brackets(depth=-1), b"", 0
    for piece in pieces:
        ends, is_closed = brackets.ends(piece)
        is_end = is_closed and (text or piece).startswith(b"{")
        inside = piece[: ends[-1] + 1] if is_end else piece
        length += len(inside)
        text = text if len(text) > MAX_LINE_BYTES else text + inside
        if is_end:
            _check_rest(chain([piece[len(inside) :]], pieces), at=at + length, value="document")
            break
    if length > MAX_LINE_BYTES:
        return ElementBlock(text[:HEAD_BYTES], 0, [HEAD_BYTES], length)
    text = text.rstrip(BLANKS)
    return ElementBlock(text, 0, [len(text)])


def _check_rest(pieces: Iterator[bytes], *, at: int, value: str) -> None:
    """Check that *pieces*, which begin at byte *at*, are blank: one value ends there."""
    for piece in pieces:
        if more := piece.lstrip(BLANKS):
            at += len(piece) - len(more)
            raise UndividedError(
                f"its {value} ends before byte {at:,}, where more follows; {_LINES}"
            )
        at += len(piece)


class _Brackets:
    """Keeps count of brackets outside strings, in text that comes in pieces."""

    def __init__(self, *, depth: int) -> None:
        """Begin outside a string, *depth* brackets deep: at 0, commas end elements."""
        self._depth = depth
        self._in_string = self._in_escape = False

    def ends(self, piece: bytes) -> tuple[list[int], bool]:
        """Return where elements end in *piece*, and whether the last ends with the array."""
        kinds = np.frombuffer(self._unescaped(piece).translate(_KINDS), np.uint8)
        at = np.flatnonzero(kinds)
        if not len(at):
            return [], False
        kinds = kinds[at]
        quotes = np.cumsum(kinds == _QUOTE) + self._in_string
        self._in_string = bool(quotes[-1] & 1)
        outside = (quotes & 1 == 0) & (kinds != _QUOTE)
        return self._at_depth(at[outside], kinds[outside])

    def _at_depth(self, at: np.ndarray, kinds: np.ndarray) -> tuple[list[int], bool]:
        depths = self._depth + np.cumsum((kinds == _OPEN).astype(int) - (kinds == _CLOSE))
        self._depth = int(depths[-1]) if len(depths) else self._depth
        is_end = (kinds == _COMMA) & (depths == 0)
        closing = np.flatnonzero((kinds == _CLOSE) & (depths < 0))[:1]
        is_end[closing] = True
        is_end[closing[0] + 1 if len(closing) else len(is_end) :] = False
        return at[is_end].tolist(), bool(len(closing))

    def _unescaped(self, piece: bytes) -> bytes:
        """Return *piece* with each escape replaced by as many other bytes, so that quotes are quotes."""
        if self._in_escape and piece[:1] in (b'"', b"\\"):
            piece = b"_" + piece[1:]
        if b"\\" in piece:
            piece = piece.replace(b"\\\\", b"__").replace(b'\\"', b"__")
        self._in_escape = piece.endswith(b"\\")
        return piece
