"""Sees in JSON lines that reading them lost nothing, without writing their rows again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from batchrunner.formats.chunk import Row

Bytes = np.ndarray[Any, np.dtype[np.uint8]]

_BLANK = ord(" ")  # and below it the other blanks
_MOST_BRACKETS = 200  # orjson writes lists in lists down to 254 levels
_HALF = np.uint64(32)
_DIGITS, _NIBBLES = (np.uint64(int.from_bytes([byte] * 8, "little")) for byte in (0x30, 0xF0))


def keys_are_kept(data: bytes, rows: Sequence[Row]) -> bool:
    r"""Return whether *rows*, which orjson made of the lines *data*, have each key that stands there.

    False if in doubt, as for objects in a row, and where a value begins with a colon. Outside of strings,
    and at their ends, stand all quotation marks that are not escaped. So as many of them as there are
    keys are followed by a colon, if none is followed by blanks and a colon. If the rows have as many keys,
    no key stood twice: each would count once more in the lines than in its row.
    """
    if b"\\" in data:  # pairs first: the mark after two backslashes is not escaped
        data = data.replace(b"\\\\", b"__").replace(b'\\"', b"__")
    text = np.frombuffer(data, np.uint8)
    marks, after = text[:-1] == ord('"'), text[1:]
    if np.count_nonzero(marks & (after == ord(":"))) != sum(map(len, rows)):
        return False
    blanks = np.flatnonzero(marks & (after <= _BLANK))
    if len(blanks) and _may_lead_to_colon(text.take(blanks + 2, mode="clip")):
        return False
    return not _is_deep(text)


def _is_deep(text: Bytes) -> bool:
    """Return whether lists may be nested too deep in one of the lines."""
    brackets = np.flatnonzero(text == ord("["))
    if len(brackets) <= _MOST_BRACKETS:
        return False
    lines = np.searchsorted(np.flatnonzero(text == ord("\n")), brackets)
    return bool(np.bincount(lines).max() > _MOST_BRACKETS)


def _may_lead_to_colon(second: Bytes) -> bool:
    return bool(((second <= _BLANK) | (second == ord(":"))).any())


def may_hold_many_digits(data: bytes) -> bool:
    """Return whether 19 digits may stand in a row in *data*.

    If they do, eight of them stand at a multiple of 8, and at least four after these.
    """
    words = np.frombuffer(data, "<u8", len(data) // 8) & _NIBBLES
    found = np.flatnonzero(words == _DIGITS)
    following = words.take(
        found + 1, mode="clip"
    )  # the last word has none: it is taken for its own
    return bool(((following ^ _DIGITS) << _HALF == 0).any())
