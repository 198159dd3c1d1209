r"""Finds the values of JSON lines that are all laid out alike, with no Python step for each row.

One program wrote most files: each line has the same keys in the same order, with the same blanks. Then
the bytes before, between and after the values are the same in every line. Where these constants stand
is known from the quotation marks alone; each is then compared with what does stand there. So every byte
of a block is one of a constant, or one of a value.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import orjson

NULL_TEXT = "\x01"
"""Stands for null in a column of strings: JSON allows no string with this character unescaped."""

Places = np.ndarray[Any, np.dtype[np.int64]]
Span = tuple[Places, Places]
"""By row, where the value of a column begins, and where it ends."""

_NULL, _NULL_TEXT = b"null", b'"%b"' % NULL_TEXT.encode()
_SPACED, _COMPACT = (b", ", b": "), (b",", b":")  # the standard library's style, and orjson's
_HEAD_LINES = 8
_PLAIN = {str, int, float, bool, type(None)}
_WORD = 8
_FIRST_PRINTABLE = 32


@dataclass(frozen=True, slots=True)
class Layout:
    """How the lines of a block are laid out.

    Attributes:
        keys: The keys of each row, in order.
        strings: By key, whether its values are strings, or null.
        constants: What stands before each value, and after the last one. The quotation marks of a
            string belong to its constants.
        nulls: By column of strings, its key with null, and with `NULL_TEXT`.
        is_compact: Whether there are no blanks between keys and values.
    """

    keys: tuple[str, ...]
    strings: tuple[bool, ...]
    constants: tuple[bytes, ...]
    nulls: tuple[tuple[bytes, bytes], ...]
    is_compact: bool

    def without_nulls(self, data: bytes) -> tuple[bytes, int]:
        """Return *data* with `NULL_TEXT` for null in columns of strings, and how many there were."""
        size = len(data)
        for null, text in self.nulls:
            data = data.replace(null, text)
        return data, (size - len(data)) // (len(_NULL) - len(_NULL_TEXT))

    def spans(self, data: bytes, *, nulls: int) -> list[Span] | None:
        """Return where the values of each column stand; None if not all lines are laid out so.

        Args:
            data: Whole lines, as `without_nulls` returned them.
            nulls: How many nulls they had.
        """
        marks = _quotation_marks(data)
        rows, rest = divmod(len(marks), b"".join(self.constants).count(b'"'))
        # A newline a row, and no other control character: JSON allows none in a string.
        if rest or not rows or _controls(data) != rows + nulls:
            return None
        begins = self._begins(marks.reshape(rows, -1), len(data))
        starts = [at + len(c) for at, c in zip(begins, self.constants, strict=True)]
        spans = list(zip(starts, begins[1:], strict=False))
        is_tiled = begins[0][0] == 0 and all((start <= end).all() for start, end in spans)
        return spans if is_tiled and self._stands(data, begins) else None

    def _begins(self, marks: Places, size: int) -> list[Places]:
        """Return where each constant begins, by row, if its first quotation mark is one of *marks*."""
        begins, first = [], 0
        for constant in self.constants[:-1]:
            begins.append(marks[:, first] - constant.index(b'"'))
            first += constant.count(b'"')
        ends = np.append(begins[0][1:], size)
        return [*begins, ends - len(self.constants[-1])]

    def _stands(self, data: bytes, begins: list[Places]) -> bool:
        """Return whether each constant stands where it begins in *begins*, in all rows.

        No quotation mark is in a value then: constants do not overlap, and have all that there are.
        """
        words = np.ndarray(
            max(len(data) - _WORD + 1, 0), "<u8", data, 0, (1,)
        )  # one from each byte on
        return all(
            data.startswith(constant, int(at[-1])) and _is_constant(words, constant, at[:-1])
            for constant, at in zip(self.constants, begins, strict=True)
        )


def _is_constant(words: Places, constant: bytes, at: Places) -> bool:
    for offset in range(0, len(constant), _WORD):
        piece = constant[offset : offset + _WORD]
        mask = np.uint64((1 << 8 * len(piece)) - 1)
        if ((words[at + offset] & mask) != int.from_bytes(piece, "little")).any():
            return False
    return True


def _quotation_marks(data: bytes) -> Places:
    """Return where quotation marks stand that are not escaped."""
    if b"\\" in data:  # pairs first: the mark after two backslashes is not escaped
        data = data.replace(b"\\\\", b"__").replace(b'\\"', b"__")
    return np.flatnonzero(np.frombuffer(data, np.uint8) == ord('"'))


def _controls(data: bytes) -> int:
    return int(np.count_nonzero(np.frombuffer(data, np.uint8) < _FIRST_PRINTABLE))


def layout_of(data: bytes) -> Layout | None:
    """Return the layout of the first line of *data*; None if it is no object of plain values.

    Plain are strings, numbers, booleans and null. A value that is null in the first line may be a
    string in one of the next few.
    """
    lines = list(islice(io.BytesIO(data), _HEAD_LINES))
    try:
        rows = list(map(orjson.loads, lines))
    except orjson.JSONDecodeError:
        return None
    first = rows[0]
    if type(first) is not dict or not first or set(map(type, first.values())) - _PLAIN:
        return None
    strings = {key for row in rows if type(row) is dict for key in row if type(row[key]) is str}
    return _layout(lines[0], {key: key in strings for key in first})


def _layout(line: bytes, strings: dict[str, bool]) -> Layout | None:
    names = {key: orjson.dumps(key) for key in strings}
    if any(b"\\" in name for name in names.values()):
        return None
    first = next(iter(names.values()))
    comma, colon = _SPACED if line.startswith(b"{" + first + _SPACED[1]) else _COMPACT
    constants, close = [], b"{"
    for key, name in names.items():
        constants.append(close + name + colon + (b'"' if strings[key] else b""))
        close = b'"' + comma if strings[key] else comma
    constants.append(close.removesuffix(comma) + b"}\n")
    nulls = (names[key] + colon for key in names if strings[key])
    return Layout(
        tuple(names),
        tuple(strings.values()),
        tuple(constants),
        tuple((before + _NULL, before + _NULL_TEXT) for before in nulls),
        is_compact=comma == b",",
    )
