"""Durations and sizes, as people write them."""

from __future__ import annotations

import re
from fractions import Fraction
from typing import Final

DURATION_PATTERN = r"^(\d+(\.\d+)?d)?(\d+(\.\d+)?h)?(\d+(\.\d+)?m)?(\d+(\.\d+)?s?)?$"
SIZE_PATTERN = r"^\d+(\.\d+)?( ?([kKmMgGtT][iI]?)?[bB])?$"

_NUMBER = r"([0-9]{1,15}(?:\.[0-9]{1,9})?)"
_DURATION = re.compile("".join(rf"(?:{_NUMBER}{unit})?" for unit in "dhms"))
_SECONDS = (86_400, 3_600, 60, 1)
_SIZE = re.compile(rf"{_NUMBER} ?(?:([kmgt])(i?))?b", re.IGNORECASE)
_MAX = 1e15

MOST: Final = 2**60
"""Of bytes, and of anything else that is counted: sums of it still have 64 bits."""
_PLAIN = re.compile(_NUMBER)


def duration_in_seconds(value: object) -> float:
    """Return the seconds of "3h50m", "90s", "2d", "1.5h", or of a number of seconds.

    Raises:
        ValueError: It is none of these, or not above zero.
    """
    seconds = _number(value)
    if seconds is None and isinstance(value, str) and (match := _DURATION.fullmatch(value)):
        parts = zip(match.groups(), _SECONDS, strict=True)
        seconds = sum((Fraction(number) * unit for number, unit in parts if number), Fraction())
    if seconds is None or seconds <= 0:
        raise ValueError('must be a duration above zero, such as "3h50m", "90s", "2d" or 600')
    return float(seconds)


def size_in_bytes(value: object) -> int:
    """Return the bytes of "64MiB" (powers of 1024), "1GB" (powers of 1000), or of a number.

    Raises:
        ValueError: It is none of these, or not a whole number of bytes, at least 1 and at most `MOST`.
    """
    size = _number(value)
    if size is None and isinstance(value, str) and (match := _SIZE.fullmatch(value)):
        number, prefix, binary = match.groups()
        power = " kmgt".index((prefix or " ").lower())
        size = Fraction(number) * (1024 if binary else 1000) ** power
    if size is None or not 1 <= size <= MOST or size.denominator != 1:
        raise ValueError('must be a size in bytes, such as "64MiB", "1GB" or 1048576')
    return int(size)


def _number(value: object) -> Fraction | None:
    if isinstance(value, str) and _PLAIN.fullmatch(value):  # how a number comes out of ${...}
        return Fraction(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return Fraction(value) if abs(value) < _MAX else None  # nor is NaN
