"""Finds the first difference between two sequences of rows: row, column and both values."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from itertools import chain
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pyarrow as pa

_SHOWN = 100
_LESS, _MORE = "the part has no such row", "the capability gives no such row"


def record_difference(
    part: Iterator[bytes], again: Iterator[bytes], *, row_of: Callable[[bytes], dict[str, Any]]
) -> str:
    """Return the first difference between two sequences of records; "" for none.

    Records with the same values are equal, even if their bytes differ.
    """
    for number, (old, new) in enumerate(_pairs(part, again)):
        if old == new:
            continue
        if old is None or new is None:
            return f"row {number:,}: {_LESS if old is None else _MORE}"
        if why := _row_difference(row_of(old), row_of(new)):
            return f"row {number:,}, {why}"
    return ""


def _pairs(
    one: Iterator[bytes], other: Iterator[bytes]
) -> Iterator[tuple[bytes | None, bytes | None]]:
    """Yield items in pairs, and at the end the first item without a partner."""
    for left in one:
        right = next(other, None)
        yield left, right
        if right is None:
            return
    yield from ((None, right) for right in other)


def _row_difference(old: dict[str, Any], new: dict[str, Any]) -> str:
    for name in {**old, **new}:
        if name not in old or name not in new:
            has, lacks = ("part", "capability") if name in old else ("capability", "part")
            return f"column {name!r}: only the {has} has it, the {lacks} does not"
        if not same(old[name], new[name]):
            return _differ(name, old[name], new[name])
    return ""


def _differ(name: str, old: object, new: object) -> str:
    return f"column {name!r}: the part has {_shown(old)}, the capability gives {_shown(new)}"


def _shown(value: object) -> str:
    try:
        text = json.dumps(value, ensure_ascii=False)
    except (TypeError, ValueError):
        text = repr(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"


def same(one: object, other: object) -> bool:
    """Return whether two values are equal in value and type: NaN is NaN, -0.0 is not 0.0."""
    if type(one) is not type(other):
        return False
    if isinstance(one, float) and isinstance(other, float):
        return (math.isnan(one) and math.isnan(other)) or (
            one == other and math.copysign(1, one) == math.copysign(1, other)
        )
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same(one[k], other[k]) for k in one)
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(one == other)


def table_difference(part: Iterator[pa.Table], again: Iterator[pa.Table]) -> str:
    """Return the first difference between two sequences of tables; "" for none.

    If only one of them has a column or field, null in it is no difference: a part has the columns that
    the sink had when the part was written, and other shards may have added columns later.
    """
    first = 0
    for old, new in _side_by_side(part, again):
        if old is None or new is None:
            return f"row {first:,}: {_LESS if old is None else _MORE}"
        names = dict.fromkeys(chain(old.column_names, new.column_names))
        differences = (_column_difference(old, new, name) for name in names)
        difference = min((d for d in differences if d is not None), default=None)
        if difference is not None:
            return f"row {first + difference[0]:,}, {difference[1]}"
        first += len(old)
    return ""


def _side_by_side(
    one: Iterator[pa.Table], other: Iterator[pa.Table]
) -> Iterator[tuple[pa.Table | None, pa.Table | None]]:
    """Yield pairs of tables with equally many rows; at the end, the rest of the longer and None."""
    left = right = None
    while True:
        left = left or next(filter(len, one), None)
        right = right or next(filter(len, other), None)
        if not left or not right:
            if left or right:
                yield left, right
            return
        rows = min(len(left), len(right))
        yield left.slice(0, rows), right.slice(0, rows)
        left, right = left.slice(rows), right.slice(rows)


def _column_difference(old: pa.Table, new: pa.Table, name: str) -> tuple[int, str] | None:
    """Return the first row in which column *name* differs, and the difference, if there is one."""
    before, after = _column(old, name), _column(new, name)
    if not _alike(before.type, after.type):
        return 0, f"column {name!r}: {before.type} in the part, {after.type} from the capability"
    # Arrow first, as Python takes far longer for each row. Rows may be equal although Arrow finds a
    # difference.
    if _surely_equal(before, after):
        return None
    for row, (one, two) in enumerate(zip(before, after, strict=True)):
        if not _same_scalar(one, two):
            return row, _differ(name, _value(one), _value(two))
    return None


def _column(table: pa.Table, name: str) -> pa.ChunkedArray:
    import pyarrow as pa

    if name in table.column_names:
        return table.column(name)
    return pa.chunked_array([pa.nulls(len(table))])


def _alike(old: pa.DataType, new: pa.DataType) -> bool:
    """Return whether values of both types can be equal.

    The types may differ in fields, in null against any type, and in Arrow's layouts: text is text
    and a list is a list.
    """
    import pyarrow.types as t

    if t.is_dictionary(old) or t.is_dictionary(new):
        old, new = (k.value_type if t.is_dictionary(k) else k for k in (old, new))
    if t.is_null(old) or t.is_null(new) or old == new:
        return True
    if t.is_struct(old) and t.is_struct(new):
        fields = {field.name: field.type for field in new}
        return all(
            field.name not in fields or _alike(field.type, fields[field.name]) for field in old
        )
    if t.is_map(old) and t.is_map(new):
        return _alike(old.key_type, new.key_type) and _alike(old.item_type, new.item_type)
    if _is_list(old) and _is_list(new):
        return _alike(old.value_type, new.value_type)
    return any(kind(old) and kind(new) for kind in (_is_text, _is_bytes))


def _is_list(kind: pa.DataType) -> bool:
    import pyarrow.types as t

    kinds = (t.is_list, t.is_large_list, t.is_fixed_size_list, t.is_list_view, t.is_large_list_view)
    return any(is_kind(kind) for is_kind in kinds)


def _is_text(kind: pa.DataType) -> bool:
    import pyarrow.types as t

    return any(is_kind(kind) for is_kind in (t.is_string, t.is_large_string, t.is_string_view))


def _is_bytes(kind: pa.DataType) -> bool:
    import pyarrow.types as t

    kinds = (t.is_binary, t.is_large_binary, t.is_binary_view, t.is_fixed_size_binary)
    return any(is_kind(kind) for is_kind in kinds)


def _surely_equal(old: pa.ChunkedArray, new: pa.ChunkedArray) -> bool:
    """Return whether Arrow finds no difference. Compares floats by their bits: -0.0 is not 0.0."""
    if old.null_count == new.null_count == len(old):
        return True
    return bool(old.type == new.type) and _equal(old.combine_chunks(), new.combine_chunks())


def _equal(old: Any, new: Any) -> bool:
    import pyarrow.compute as pc
    import pyarrow.types as t

    kind = old.type
    if t.is_list(kind) or t.is_large_list(kind):
        # The lengths too: [[1], [2]] and [[1, 2]] flatten to the same values.
        alike = pc.list_value_length(old).equals(pc.list_value_length(new))
        return alike and _equal(old.flatten(), new.flatten())
    if t.is_floating(kind):
        whole = {16: "int16", 32: "int32", 64: "int64"}[kind.bit_width]
        return bool(old.view(whole).equals(new.view(whole)))
    return not _holds_floats(kind) and bool(old.equals(new))


def _holds_floats(kind: Any) -> bool:
    import pyarrow.types as t

    inner = (kind.field(n).type for n in range(kind.num_fields))
    return t.is_floating(kind) or any(map(_holds_floats, inner))


def _same_scalar(old: pa.Scalar, new: pa.Scalar) -> bool:
    try:
        before, after = old.as_py(), new.as_py()
    except (ValueError, OverflowError):  # Python has no such value, such as the year 12,000
        return bool(old.equals(new))
    # If the types differ, one may have fields that the other lacks: null in them is no difference.
    grown = old.type != new.type
    return same(_without_nulls(before), _without_nulls(after)) if grown else same(before, after)


def _without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _without_nulls(inner) for k, inner in value.items() if inner is not None}
    if isinstance(value, list):
        return [_without_nulls(inner) for inner in value]
    return value


def _value(scalar: pa.Scalar) -> Any:
    try:
        return scalar.as_py()
    except (ValueError, OverflowError):
        return str(scalar)
