"""Turns the text of CSV into values for `verify`, by Python's own types in place of Arrow's casts."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from datetime import date, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pyarrow as pa

_DIGITS = {"s": 0, "ms": 3, "us": 6, "ns": 9}
_TICKS = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
_WORDS = {"true": True, "1": True, "false": False, "0": False}
_COUNT = re.compile(r"[0-9]+")
_INTEGER = re.compile(r"-?[0-9]+")
_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")
_NO_NUMBER = re.compile(r"[+-]?(inf|infinity|nan)", re.IGNORECASE)
_CLOCK = re.compile(r"([0-9]{2}):([0-9]{2})(?::([0-9]{2})(?:\.([0-9]{1,9}))?)?")
_DAY = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_ZONE = re.compile(r"Z|([+-])([0-9]{2})(?::?([0-9]{2}))?")


def column_of(texts: Sequence[str | None], kind: pa.DataType) -> pa.Array:
    """Return the values of *kind* that *texts* stand for; None is null.

    Raises:
        ValueError: A text stands for none.
    """
    import pyarrow as pa

    if pa.types.is_dictionary(kind):
        return column_of(texts, kind.value_type).dictionary_encode().cast(kind)
    values = [None if text is None else _value(text, kind) for text in texts]
    try:
        return pa.array(values, kind)
    except (OverflowError, TypeError) as error:
        raise ValueError(str(error)) from error


def _value(text: str, kind: pa.DataType) -> Any:
    import pyarrow.types as t

    if t.is_boolean(kind):
        return _truth(text)
    if t.is_floating(kind):
        return _float(text, kind.bit_width)
    if t.is_time(kind):
        return _clock(text, kind.unit)
    if t.is_timestamp(kind):
        return _instant(text, kind)
    simple = {
        t.is_unsigned_integer: _count,
        t.is_integer: _integer,
        t.is_decimal: _decimal,
        t.is_date: _date,
    }
    return next((made(text) for is_kind, made in simple.items() if is_kind(kind)), text)


def _truth(text: str) -> bool:
    if text.lower() not in _WORDS:
        raise ValueError(f"{text!r} is no truth value")
    return _WORDS[text.lower()]


def _count(text: str) -> int:
    return int(_matching(_COUNT, text)[0])


def _integer(text: str) -> int:
    return int(_matching(_INTEGER, text)[0])


def _decimal(text: str) -> Decimal:
    return Decimal(_matching(_NUMBER, text)[0])


def _matching(pattern: re.Pattern[str], text: str) -> re.Match[str]:
    found = pattern.fullmatch(text)
    if found is None:
        raise ValueError(f"{text!r} is none")
    return found


def _float(text: str, bits: int) -> float:
    if _NO_NUMBER.fullmatch(text):
        return float(text)
    value = float(_matching(_NUMBER, text)[0])
    if bits < 64:
        value = _nearest_single(Decimal(text), value)
    if math.isinf(value):
        raise ValueError(f"{text!r} is too large")
    return value


def _nearest_single(exact: Decimal, near: float) -> float:
    """Return the single next to *exact*: rounded from a double, it might be the second next."""
    import numpy as np

    with np.errstate(over="ignore", under="ignore"):
        single = np.float32(near)
        around = [np.nextafter(single, np.float32(edge)) for edge in (-np.inf, np.inf)]
    if not np.isfinite(single):
        return float(single)
    some = [one for one in (single, *around) if np.isfinite(one)]
    return float(
        min(some, key=lambda one: (abs(exact - Decimal(float(one))), one.view(np.uint32) % 2))
    )


def _date(text: str) -> date:
    return date.fromisoformat(_matching(_DAY, text)[0])


def _clock(text: str, unit: str) -> int:
    """Return the count of *unit* since midnight."""
    hour, minute, second, fraction = _matching(_CLOCK, text).groups()
    whole = int(hour) * 3600 + int(minute) * 60 + int(second or 0)
    if int(hour) > 23 or int(minute) > 59 or int(second or 0) > 59:
        raise ValueError(f"{text!r} is no time of day")
    digits = _DIGITS[unit]
    if len(fraction or "") > digits:
        raise ValueError(f"{text!r} is finer than {unit}")
    return whole * _TICKS[unit] + int((fraction or "").ljust(digits, "0") or 0)


def _instant(text: str, kind: pa.DataType) -> int:
    """Return the count of the type's unit since 1970."""
    day, clock = text[:10], text[11:]
    seconds = (datetime.fromisoformat(f"{_date(day)}T00:00") - datetime(1970, 1, 1)).days * 86_400  # noqa: DTZ001 - as the text
    if kind.tz is None and not text[10:]:
        return seconds * _TICKS[kind.unit]
    if text[10:11] not in {" ", "T", "t"}:
        raise ValueError(f"{text!r} is no instant")
    ahead = 0
    if kind.tz is not None:
        clock, zone = _without_zone(clock)
        ahead = _ahead(zone)
    return (seconds - ahead) * _TICKS[kind.unit] + _clock(clock, kind.unit)


def _without_zone(clock: str) -> tuple[str, str]:
    at = next((n for n, one in enumerate(clock) if one in "Zz+-"), len(clock))
    return clock[:at], clock[at:]


def _ahead(zone: str) -> int:
    """Return by how many seconds *zone* is ahead of UTC."""
    sign, hours, minutes = _matching(_ZONE, zone).groups()
    if int(hours or 0) > 23 or int(minutes or 0) > 59:
        raise ValueError(f"{zone!r} is no zone")
    seconds = int(hours or 0) * 3600 + int(minutes or 0) * 60
    return -seconds if sign == "-" else seconds
