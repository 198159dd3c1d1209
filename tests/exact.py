"""What tables hold, down to the bit, read by other code than the product's.

`bits` gives values that differ whenever two Arrow values differ; `in_json` what they are in JSON, by
the rules that the documentation states.
"""

from __future__ import annotations

import datetime as dt
import math
import uuid
from typing import Any
from zoneinfo import ZoneInfo

import pyarrow as pa

TICKS = {"s": 10**9, "ms": 10**6, "us": 10**3, "ns": 1}


class Refused:
    """Stands for what JSON has no word for."""

    def __repr__(self) -> str:
        return "REFUSED"


REFUSED = Refused()
t = pa.types


def column_bits(column: pa.ChunkedArray) -> list[Any]:
    return [value for chunk in column.chunks for value in bits(chunk)]


def rows_of(table: pa.Table) -> list[tuple[Any, ...]]:
    if not table.num_columns:
        return [()] * table.num_rows
    return list(zip(*(column_bits(column) for column in table.columns), strict=True))


def bits(array: pa.Array) -> list[Any]:
    """Return one value for each of *array*; equal where, and only where, Arrow's are the same."""
    kind = array.type
    if isinstance(kind, pa.BaseExtensionType):
        return bits(array.storage)
    if t.is_dictionary(kind):
        words = bits(array.dictionary)
        return [None if i is None else words[i] for i in array.indices.to_pylist()]
    valid = array.is_valid().to_pylist()
    if t.is_struct(kind):
        names = [kind.field(i).name for i in range(kind.num_fields)]
        columns = [bits(array.field(i)) for i in range(kind.num_fields)]
        rows = zip(*columns, strict=True) if columns else ((),) * len(array)
        return [dict(zip(names, row)) if ok else None for row, ok in zip(rows, valid, strict=True)]
    if t.is_nested(kind):
        return [bits(one.values) if ok else None for one, ok in zip(array, valid, strict=True)]
    if t.is_floating(kind):
        return [_float_bits(value) for value in array.cast(pa.float64()).to_pylist()]
    if t.is_temporal(kind) and not t.is_interval(kind):
        return [None if n is None else n * _tick(kind) for n in _counts(array)]
    if t.is_decimal(kind):
        return [None if value is None else str(value) for value in array.to_pylist()]
    return array.to_pylist()


def _float_bits(value: float | None) -> Any:
    if value is None:
        return None
    return "nan" if math.isnan(value) else value.hex()


def _counts(array: pa.Array) -> list[int | None]:
    return array.view(pa.int32() if array.type.bit_width == 32 else pa.int64()).to_pylist()


def _tick(kind: pa.DataType) -> int:
    if t.is_date32(kind):
        return 86_400 * 10**9
    return 10**6 if t.is_date64(kind) else TICKS[kind.unit]


def stored(kind: pa.DataType) -> pa.DataType:
    """Return the type that a Parquet file keeps for *kind*; nullable, and with Arrow's names inside."""
    if t.is_struct(kind):
        return pa.struct([(f.name, stored(f.type)) for f in kind])
    if t.is_map(kind):
        return pa.map_(stored(kind.key_type), stored(kind.item_type))
    if t.is_fixed_size_list(kind):
        return pa.list_(stored(kind.value_type), kind.list_size)
    if t.is_large_list(kind):
        return pa.large_list(stored(kind.value_type))
    if t.is_list(kind):
        return pa.list_(stored(kind.value_type))
    if t.is_timestamp(kind) and kind.unit == "s":
        return pa.timestamp("ms", kind.tz)
    if t.is_time32(kind):
        return pa.time32("ms")
    return pa.date32() if t.is_date64(kind) else kind


def in_json(array: pa.Array) -> list[Any]:
    kind = array.type
    if t.is_dictionary(kind):
        words = in_json(array.dictionary)
        return [None if i is None else words[i] for i in array.indices.to_pylist()]
    valid = array.is_valid().to_pylist()
    if t.is_struct(kind):
        names = [f.name for f in kind]
        columns = [in_json(array.field(i)) for i in range(len(names))]
        rows = zip(*columns, strict=True) if columns else ((),) * len(array)
        return [
            _whole(dict(zip(names, row)), row) if ok else None
            for row, ok in zip(rows, valid, strict=True)
        ]
    if t.is_map(kind):
        lists = [in_json(one.values) if ok else None for one, ok in zip(array, valid, strict=True)]
        return [None if pairs is None else _whole([list(p.values()) if p is not REFUSED else p for p in pairs], pairs) for pairs in lists]
    if t.is_nested(kind):
        lists = [in_json(one.values) if ok else None for one, ok in zip(array, valid, strict=True)]
        return [None if one is None else _whole(one, one) for one in lists]
    return [_word(value, kind) if value is not None else None for value in _plain(array)]


def _plain(array: pa.Array) -> list[Any]:
    if isinstance(array.type, pa.BaseExtensionType):
        return array.storage.to_pylist()
    if t.is_temporal(array.type) and not t.is_interval(array.type):
        return [None if n is None else n * _tick(array.type) for n in _counts(array)]
    return array.to_pylist()


def _whole(value: Any, parts: Any) -> Any:
    return REFUSED if any(part is REFUSED for part in parts) else value


def _word(value: Any, kind: pa.DataType) -> Any:
    if kind == pa.uuid():
        return str(uuid.UUID(bytes=value))
    if t.is_floating(kind):
        return float(value) if math.isfinite(value) else REFUSED
    if t.is_date(kind):
        return _date(value)
    if t.is_timestamp(kind):
        return _instant(value, kind.tz)
    if t.is_time(kind):
        seconds, rest = divmod(value, 10**9)
        text = f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}"
        return text + _fraction(rest)
    if isinstance(value, bool | int | str):
        return value if not t.is_duration(kind) else REFUSED
    return REFUSED


def _date(ns: int) -> Any:
    try:
        return (dt.date(1970, 1, 1) + dt.timedelta(ns // (86_400 * 10**9))).isoformat()
    except OverflowError:
        return REFUSED


def _fraction(rest: int) -> str:
    return "" if not rest else f".{rest // 1000:06}" + (f"{rest % 1000:03}" if rest % 1000 else "")


def _instant(ns: int, zone: str | None) -> Any:
    seconds, rest = divmod(ns, 10**9)
    try:
        naive = dt.datetime(1970, 1, 1) + dt.timedelta(seconds=seconds)
        if zone is None:
            return naive.isoformat() + _fraction(rest)
        local = naive.replace(tzinfo=dt.UTC).astimezone(_zone(zone))
    except OverflowError:
        return REFUSED
    text = local.isoformat()
    return text[:19] + _fraction(rest) + text[19:]


def _zone(name: str) -> dt.tzinfo:
    if name[0] in "+-":
        sign = -1 if name[0] == "-" else 1
        return dt.timezone(sign * dt.timedelta(hours=int(name[1:3]), minutes=int(name[4:6])))
    return ZoneInfo(name)
