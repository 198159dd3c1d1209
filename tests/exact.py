"""What tables hold, down to the bit, and what it is in JSON: read by other code than the product's."""

from __future__ import annotations

import datetime as dt
import math
import uuid
from collections.abc import Sequence
from typing import Any
from zoneinfo import ZoneInfo

import pyarrow as pa

TICKS = {"s": 10**9, "ms": 10**6, "us": 10**3, "ns": 1}
DAY = 86_400 * 10**9
REFUSED = type("Refused", (), {"__repr__": lambda _: "REFUSED"})()
"""Stands for what JSON has no word for."""

t = pa.types


def rows(table: pa.Table) -> list[dict[str, Any]]:
    """Return the rows; two are equal where, and only where, Arrow's values are the same."""
    return _as_rows(table, bits)


def objects(table: pa.Table) -> list[Any]:
    """Return each row as it is in JSON, or REFUSED."""
    found = _as_rows(table, in_json)
    return [REFUSED if any(v is REFUSED for v in row.values()) else row for row in found]


def beyond(table: pa.Table, batch_format: str) -> set[int]:
    """Return the numbers of the rows with a value that *batch_format* has no type for."""
    reading = {"rows": in_python, "numpy": in_numpy}.get(batch_format, bits)
    found = _as_rows(table, reading)
    return {at for at, row in enumerate(found) if any(v is REFUSED for v in row.values())}


def in_numpy(array: pa.Array) -> list[Any]:
    """As `in_python` for what numpy has as objects; its own types hold all that Arrow's do."""
    by_objects = t.is_nested(array.type) or t.is_time(array.type)
    return in_python(array) if by_objects else bits(array)


def in_python(array: pa.Array) -> list[Any]:
    """As `bits`, with REFUSED for what Python's types of the datetime module cannot hold."""
    kind = array.type
    if t.is_nested(kind) or t.is_dictionary(kind):
        return [_whole(value) for value in _inside(array, in_python)]
    if (
        not t.is_temporal(kind)
        or t.is_interval(kind)
        or (not t.is_time(kind) and _unit(kind) == "ns")
    ):
        return bits(array)
    return [n if n is None or _is_held(n, kind) else REFUSED for n in _nanoseconds(array)]


def _is_held(nanoseconds: int, kind: pa.DataType) -> bool:
    if t.is_time(kind):
        return nanoseconds % 1000 == 0
    if t.is_duration(kind):
        return abs(nanoseconds) < 10**9 * DAY
    return _instant(nanoseconds, pa.date32()) is not REFUSED


def _unit(kind: pa.DataType) -> str:
    return "" if t.is_date(kind) else str(kind.unit)


def _as_rows(table: pa.Table, reading: Any) -> list[dict[str, Any]]:
    if not table.num_columns:
        return [{} for _ in range(table.num_rows)]
    columns = [[v for c in column.chunks for v in reading(c)] for column in table.columns]
    return [dict(zip(table.column_names, r, strict=True)) for r in zip(*columns, strict=True)]


def bits(array: pa.Array) -> list[Any]:
    """Return a value for each of *array*, whose equality is that of Arrow's, and NaN's is itself."""
    kind = array.type
    if isinstance(kind, pa.BaseExtensionType):
        return bits(array.storage)
    if t.is_nested(kind) or t.is_dictionary(kind):
        return _inside(array, bits)
    if t.is_floating(kind):
        return [_float_bits(value) for value in array.cast(pa.float64()).to_pylist()]
    if t.is_temporal(kind) and not t.is_interval(kind):
        return _nanoseconds(array)
    if t.is_decimal(kind):
        return [None if value is None else str(value) for value in array.to_pylist()]
    values: list[Any] = array.to_pylist()
    return values


def in_json(array: pa.Array) -> list[Any]:
    """Return each value of *array* as `json.loads` is to give it back, or REFUSED."""
    kind = array.type
    if kind == pa.uuid():
        return [None if v is None else str(uuid.UUID(bytes=v)) for v in array.storage.to_pylist()]
    if isinstance(kind, pa.BaseExtensionType):
        return in_json(array.storage)
    if t.is_nested(kind) or t.is_dictionary(kind):
        return [_whole(value) for value in _inside(array, in_json)]
    is_time = t.is_temporal(kind) and not t.is_interval(kind)
    values = _nanoseconds(array) if is_time else array.to_pylist()
    return [None if value is None else _word(value, kind) for value in values]


def _inside(array: pa.Array, reading: Any) -> list[Any]:
    kind, valid = array.type, array.is_valid().to_pylist()
    if t.is_dictionary(kind):
        words = reading(array.dictionary)
        return [None if i is None else words[i] for i in array.indices.to_pylist()]
    if not t.is_struct(kind):
        lists = [reading(a.values) if ok else None for a, ok in zip(array, valid, strict=True)]
        return [_pairs(each) if each and t.is_map(kind) else each for each in lists]
    columns = [reading(array.field(i)) for i in range(kind.num_fields)]
    values = zip(*columns, strict=True) if columns else [()] * len(array)
    names = [field.name for field in kind]
    return [
        dict(zip(names, row, strict=True)) if ok else None
        for row, ok in zip(values, valid, strict=True)
    ]


def _pairs(entries: Sequence[Any]) -> list[Any]:
    return [e if e is REFUSED else list(e.values()) for e in entries]


def _float_bits(value: float | None) -> Any:
    if value is None:
        return None
    return "nan" if math.isnan(value) else value.hex()


def _nanoseconds(array: pa.Array) -> list[int | None]:
    kind = array.type
    tick = DAY if t.is_date32(kind) else 10**6 if t.is_date64(kind) else TICKS[kind.unit]
    counts = array.view(pa.int32() if kind.bit_width == 32 else pa.int64()).to_pylist()
    return [None if count is None else count * tick for count in counts]


def _whole(value: Any) -> Any:
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    flat = [p for part in parts for p in (part if isinstance(part, list) else [part])]
    return REFUSED if any(part is REFUSED for part in flat) else value


def _word(value: Any, kind: pa.DataType) -> Any:
    if t.is_floating(kind):
        return float(value) if math.isfinite(value) else REFUSED
    if t.is_timestamp(kind) or t.is_date(kind):
        return _instant(value, kind)
    if t.is_time(kind):
        seconds, rest = divmod(value, 10**9)
        text = f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}"
        return REFUSED if rest % 1000 else text + _fraction(rest)
    is_known = isinstance(value, bool | int | str) and not t.is_duration(kind)
    return value if is_known else REFUSED


def _instant(nanoseconds: int, kind: pa.DataType) -> Any:
    seconds, rest = divmod(nanoseconds, 10**9)
    try:
        naive = dt.datetime(1970, 1, 1) + dt.timedelta(seconds=seconds)  # noqa: DTZ001
    except OverflowError:
        return REFUSED
    if t.is_date(kind):
        return naive.date().isoformat()
    zone = kind.tz and _zone(kind.tz)
    text = (naive.replace(tzinfo=dt.UTC).astimezone(zone) if zone else naive).isoformat()
    return text[:19] + _fraction(rest) + text[19:]


def _fraction(rest: int) -> str:
    return "" if not rest else f".{rest // 1000:06}" + (f"{rest % 1000:03}" if rest % 1000 else "")


def _zone(name: str) -> dt.tzinfo:
    if name[0] not in "+-":
        return ZoneInfo(name)
    ahead = dt.timedelta(hours=int(name[1:3]), minutes=int(name[4:6]))
    return dt.timezone(-ahead if name[0] == "-" else ahead)


_VIEWED = {pa.string_view(): pa.string(), pa.binary_view(): pa.binary()}
"""Arrow writes an object's fields that are views in a whole file only, and not once it is sliced."""


def stored(schema: pa.Schema) -> pa.Schema:
    """Return the schema that a Parquet file is to have: nullable, and in the units that it has."""
    return pa.schema([(field.name, _stored(field.type)) for field in schema])


def _stored(kind: pa.DataType) -> pa.DataType:
    if t.is_struct(kind):
        return pa.struct([(f.name, _VIEWED.get(f.type) or _stored(f.type)) for f in kind])
    if t.is_map(kind):
        return pa.map_(_stored(kind.key_type), _stored(kind.item_type))
    if t.is_fixed_size_list(kind):
        return pa.list_(_stored(kind.value_type), kind.list_size)
    if t.is_list(kind) or t.is_large_list(kind):
        make = pa.list_ if t.is_list(kind) else pa.large_list
        return make(_stored(kind.value_type))
    return _stored_time(kind)


def _stored_time(kind: pa.DataType) -> pa.DataType:
    if t.is_timestamp(kind) and kind.unit == "s":
        return pa.timestamp("ms", kind.tz)
    if t.is_time32(kind):
        return pa.time32("ms")
    return pa.date32() if t.is_date64(kind) else kind
