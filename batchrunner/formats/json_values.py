"""JSON forms of numpy's, pandas' and other values; checks for NaN, which JSON cannot hold."""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Iterable
from dataclasses import fields, is_dataclass
from enum import Enum
from typing import Any
from uuid import UUID

import orjson

OPTIONS = orjson.OPT_PASSTHROUGH_DATETIME
"""By default, orjson cuts the seconds off a UTC offset, which time zones had until 1972."""


def plain(value: object) -> Any:
    """Return the JSON form of a value that orjson, or the standard library, does not support.

    Each kind of value has one form, whichever library it comes from: numpy's numbers are exactly
    Python's, and a point in time is its ISO 8601 text, down to its last digit.

    Raises:
        TypeError: JSON has no form for the value.
        ValueError: It holds NaN, infinity, or a time that its text cannot hold exactly.
    """
    kind = type(value)
    if kind is dt.datetime or kind is dt.date:
        return value.isoformat()  # type: ignore[attr-defined]
    library = kind.__module__.partition(".")[0]
    if library == "pandas" and kind.__name__ in ("NAType", "NaTType"):
        return None
    if library == "numpy" and hasattr(value, "dtype"):
        return _plain_numpy(value)
    if isinstance(value, dt.date | dt.time):
        return _instant_text(value)
    if isinstance(value, float):
        return float(value)
    if not isinstance(value, Enum | UUID) and not is_dataclass(value):
        raise TypeError(f"Type is not JSON serializable: {kind.__name__}")
    if not _is_finite(value):
        raise ValueError("Out of range float values are not JSON compliant")
    return orjson.loads(orjson.dumps(value, default=plain, option=OPTIONS))


def _instant_text(value: dt.date | dt.time) -> str:
    if isinstance(value, dt.time) and value.tzinfo is not None:
        raise TypeError("a time of day with a time zone is no JSON: return it as a string")
    return value.isoformat()


def _plain_numpy(value: Any) -> Any:
    kind = value.dtype.kind
    if kind == "M":
        return [_plain_numpy(one) for one in value] if value.ndim else _iso(value)
    if kind not in "biufOU" or (kind == "f" and value.dtype.itemsize > 8):
        raise TypeError(f"Type is not JSON serializable: numpy's {value.dtype}")
    if kind == "f" and not _is_finite(value):
        raise ValueError("Out of range float values are not JSON compliant")
    return value.tolist()


def _iso(instant: Any) -> str | None:
    """Return a numpy point in time as text; None for NaT."""
    if str(instant) == "NaT":
        return None
    count = instant.astype("datetime64[ns]" if "ns" in str(instant.dtype) else "datetime64[us]")
    micros, rest = divmod(int(count.astype("int64")), 1000 if "ns" in str(count.dtype) else 1)
    try:
        text = (dt.datetime(1970, 1, 1) + dt.timedelta(microseconds=micros)).isoformat()  # noqa: DTZ001
    except OverflowError as error:
        raise ValueError(
            f"{instant} is in no year from 1 to 9999: return it as a string"
        ) from error
    if count.astype(instant.dtype) != instant or count != instant:
        raise ValueError(f"{instant!r} is finer than nanoseconds, or too far away: round it")
    if "[D]" in str(instant.dtype):
        return text[:10]
    if not rest:
        return text
    return f"{text if '.' in text else text + '.000000'}{rest:03d}"


def all_finite(values: Iterable[Any]) -> bool:
    """Return whether *values* hold no NaN or infinity, at any depth: orjson would write null."""
    return all(map(_is_finite, values))


def _is_finite(value: Any) -> bool:
    kind = value.__class__
    if kind is str or kind is int or kind is bool or value is None:
        return True
    if isinstance(value, float):
        return math.isfinite(value)
    if isinstance(value, dict):
        return all_finite(value.values())
    if isinstance(value, list | tuple):
        return all_finite(value)
    return all_finite(_inside(value))


def _inside(value: Any) -> Iterable[Any]:
    """Return the inner values that orjson, or `plain`, would write for a value of another class."""
    if isinstance(value, Enum):
        return [value.value]
    if is_dataclass(value):
        return [getattr(value, field.name) for field in fields(value)]
    kind = getattr(getattr(value, "dtype", None), "kind", "")
    if kind == "f":
        return [] if (value - value == 0).all() else [math.nan]
    return [value.tolist()] if kind == "O" and hasattr(value, "tolist") else []
