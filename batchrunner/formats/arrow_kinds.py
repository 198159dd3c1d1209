"""The kinds of Python values, such as integers or strings, and the Arrow type of each kind."""

from __future__ import annotations

import datetime as dt
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import pyarrow as pa

from batchrunner.formats.list_types import is_list
from batchrunner.formats.schema_error import SchemaError

_MAX_DIGITS = 38


@dataclass(frozen=True, slots=True)
class ArrowKind:
    """Python classes whose values share an Arrow type.

    Attributes:
        name: A plural, for error messages: "integers".
        natural: Returns the type of the values if no hint fits.
        fits: Returns whether a type is of this kind; it may still fail to hold a value exactly.
    """

    name: str
    natural: Callable[[Sequence[Any]], pa.DataType]
    fits: Callable[[pa.DataType, Sequence[Any]], bool]


def _present(values: Iterable[Any]) -> Iterator[Any]:
    return (value for value in values if value is not None)


def _decimal_type(values: Sequence[Any]) -> pa.DataType:
    """Return decimal128 with all its digits and the scale of the first value alone."""
    exponent = next(_present(values)).as_tuple().exponent
    if not isinstance(exponent, int):
        raise SchemaError(f"the decimal {next(_present(values))} is no number: return None")
    return pa.decimal128(_MAX_DIGITS, max(0, -exponent))


def _zone(values: Sequence[Any]) -> str | None:
    zones = {value.tzinfo for value in _present(values)}
    names = {None if zone is None else pa.lib.tzinfo_to_string(zone) for zone in zones}
    if len(names) > 1:
        raise SchemaError(f"time zones {sorted(map(str, names))} in one column: convert to one")
    return next(iter(names))


def _is_instant(kind: pa.DataType, values: Sequence[Any]) -> bool:
    return bool(pa.types.is_timestamp(kind) and kind.tz == _zone(values))


def _time_type(values: Sequence[Any]) -> pa.DataType:
    if any(value.tzinfo is not None for value in _present(values)):
        raise SchemaError(
            "a time of day with a time zone: Arrow has no type for it; return it without the zone, or as a "
            "string"
        )
    return pa.time64("us")


def _numpy_type(values: Sequence[Any]) -> pa.DataType:
    kinds = {value.dtype for value in _present(values)}
    if len(kinds) > 1:
        raise SchemaError(
            f"numpy's {' and '.join(sorted(map(str, kinds)))} in one column: convert to one dtype"
        )
    return pa.from_numpy_dtype(next(iter(kinds)))


def _is_text(kind: pa.DataType) -> bool:
    t = pa.types
    return bool(t.is_string(kind) or t.is_large_string(kind) or t.is_string_view(kind))


def _is_bytes(kind: pa.DataType) -> bool:
    t = pa.types
    checks = (t.is_binary, t.is_large_binary, t.is_binary_view, t.is_fixed_size_binary)
    return any(check(kind) for check in checks)


def _by(check: Callable[[pa.DataType], bool]) -> Callable[[pa.DataType, Sequence[Any]], bool]:
    return lambda kind, _: check(kind)


def _always(kind: pa.DataType) -> Callable[[Sequence[Any]], pa.DataType]:
    return lambda _: kind


_INT = ArrowKind("integers", _always(pa.int64()), _by(pa.types.is_integer))
_FLOAT = ArrowKind("floats", _always(pa.float64()), _by(pa.types.is_floating))
_DECIMAL = ArrowKind("decimals", _decimal_type, _by(pa.types.is_decimal))
LIST = ArrowKind("lists", _always(pa.list_(pa.null())), _by(is_list))
STRUCT = ArrowKind("objects", _always(pa.struct([])), _by(pa.types.is_struct))
_PANDAS_TIME = ArrowKind(
    "pandas' timestamps", lambda values: pa.timestamp("ns", _zone(values)), _is_instant
)
_PANDAS_DURATION = ArrowKind(
    "pandas' durations", _always(pa.duration("ns")), _by(pa.types.is_duration)
)
NUMBERS = {_INT.name, _FLOAT.name, _DECIMAL.name}
_KINDS: Mapping[type, ArrowKind | None] = {
    type(None): None,
    bool: ArrowKind("booleans", _always(pa.bool_()), _by(pa.types.is_boolean)),
    int: _INT,
    float: _FLOAT,
    str: ArrowKind("strings", _always(pa.string()), _by(_is_text)),
    bytes: ArrowKind("bytes", _always(pa.binary()), _by(_is_bytes)),
    dt.datetime: ArrowKind(
        "timestamps", lambda values: pa.timestamp("us", _zone(values)), _is_instant
    ),
    dt.date: ArrowKind("dates", _always(pa.date32()), _by(pa.types.is_date)),
    dt.time: ArrowKind("times", _time_type, _by(pa.types.is_time)),
    dt.timedelta: ArrowKind("durations", _always(pa.duration("us")), _by(pa.types.is_duration)),
    Decimal: _DECIMAL,
    uuid.UUID: ArrowKind("UUIDs", _always(pa.uuid()), _by(pa.uuid().equals)),
    list: LIST,
    tuple: LIST,
    dict: STRUCT,
}
QUICK = {cls: kind for cls in (bool, int, str) if (kind := _KINDS[cls]) is not None}
"""Kinds whose type Arrow infers only from values of the kind; but see `_quickly` for integers."""
_NUMPY: Mapping[str, type] = {
    "bool": bool,
    "bool_": bool,
    "int64": int,
    "float64": float,
    "str_": str,
    "bytes_": bytes,
}
"""Numpy classes that hold exactly the values of a Python class: a column may mix the two."""
_PANDAS: Mapping[str, ArrowKind | None] = {
    "Timestamp": _PANDAS_TIME,
    "Timedelta": _PANDAS_DURATION,
    "NaTType": None,
    "NAType": None,
}


_kinds_by_class: dict[type, ArrowKind | None] = {}


def kind_of(cls: type, path: str) -> ArrowKind | None:
    """Return the kind of the values of class *cls*; None if they mean null (None, pandas' NA, NaT).

    Raises:
        SchemaError: Arrow has no type for such values; *path* names their column.
    """
    if cls not in _kinds_by_class:
        _kinds_by_class[cls] = _find_kind(cls, path)
    return _kinds_by_class[cls]


def _find_kind(cls: type, path: str) -> ArrowKind | None:
    module = cls.__module__.partition(".")[0]
    if module == "pandas" and cls.__name__ in _PANDAS:
        return _PANDAS[cls.__name__]
    for base in cls.__mro__:
        if base in _KINDS:
            return _KINDS[base]
        if base.__module__ == "numpy" and base.__name__ in _NUMPY:
            return _KINDS[_NUMPY[base.__name__]]
        if base.__module__ == "numpy" and base.__name__ == "generic":
            return ArrowKind(f"numpy's {cls.__name__}", _numpy_type, _by(pa.types.is_null))
        if base.__module__ == "numpy" and base.__name__ == "ndarray":
            return LIST
    raise SchemaError(
        f"column {path!r}: Arrow has no type for `{cls.__name__}` values; convert them to str, a number, "
        "list or dict"
    )


def named(kinds: Iterable[ArrowKind | None]) -> str:
    """Return the names of *kinds*, joined for an error message."""
    return " and ".join(sorted(kind.name for kind in kinds if kind is not None))
