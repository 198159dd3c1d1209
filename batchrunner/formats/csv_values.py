"""Turns the text of CSV into values of declared types, or says which rows have none."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pyarrow as pa
import pyarrow.compute as pc

from batchrunner.formats.csv_fields import Faults

_SHOWN = 40
_YEAR = r"(000[1-9]|00[1-9]\d|0[1-9]\d\d|[1-9]\d\d\d)"  # Python's years
_DATE = rf"{_YEAR}-\d\d-\d\d"
_CLOCK = r"\d\d:\d\d(:\d\d(\.\d{1,9})?)?"
_ZONE = r"(Z|[+-]\d\d(:?\d\d)?)"
_NUMBER = r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?"

_PATTERNS: tuple[tuple[Callable[[pa.DataType], bool], str], ...] = (
    (pa.types.is_boolean, "true|false|0|1"),
    (pa.types.is_integer, r"-?\d+"),
    (pa.types.is_floating, rf"{_NUMBER}|[+-]?(inf|infinity|nan)"),
    (pa.types.is_decimal, _NUMBER),
    (pa.types.is_date, _DATE),
    (pa.types.is_time, _CLOCK),
)


def typed(table: pa.Table, schema: pa.Schema) -> tuple[pa.Table, Faults]:
    """Return *table*, which has strings, in *schema*; with null where a text is no value of its type.

    A column that is not nullable has faults where it is null.
    """
    faults: Faults = {}
    arrays = []
    for field in schema:
        array = table.column(field.name).combine_chunks()
        array, wrong = _typed(array, field)
        arrays.append(array)
        for number, why in wrong.items():
            faults.setdefault(number, f"column {field.name!r}: {why}")
    return pa.table(arrays, schema=pa.schema([f.with_nullable(True) for f in schema])), faults


def _typed(array: pa.StringArray, field: pa.Field) -> tuple[pa.Array, Faults]:
    faults: Faults = {}
    if not field.nullable and array.null_count:
        numbers = pc.indices_nonzero(array.is_null()).to_pylist()
        faults = dict.fromkeys(numbers, f"null here, but {field.type} not null in source.schema")
    if pa.types.is_string(field.type):
        return array, faults
    try:
        return _converted(array, field.type), faults
    except (ValueError, pa.ArrowException):
        return _one_by_one(array, field.type, faults)


def _one_by_one(
    array: pa.StringArray, kind: pa.DataType, faults: Faults
) -> tuple[pa.Array, Faults]:
    texts: Sequence[str | None] = array.to_pylist()
    good: list[str | None] = []
    for number, text in enumerate(texts):
        try:
            _converted(pa.array([text], pa.string()), kind)
            good.append(text)
        except (ValueError, pa.ArrowException):
            good.append(None)
            faults[number] = f"{str(text)[:_SHOWN]!r} is no {kind}"
    return _converted(pa.array(good, pa.string()), kind), faults


def _converted(array: pa.StringArray, kind: pa.DataType) -> pa.Array:
    """Return the values that the texts of *array* stand for.

    Raises:
        ValueError: A text stands for none, or not exactly.
    """
    matches = pc.match_substring_regex(array, f"(?i)^({pattern_of(kind)})$")
    if pc.all(matches).as_py() is False:
        raise ValueError(f"no {kind}")
    if pa.types.is_time(kind):
        moment = pa.timestamp(kind.unit)
        return pc.binary_join_element_wise("1970-01-01", array, " ").cast(moment).cast(kind)
    values = array.cast(kind)
    if pa.types.is_floating(kind):
        _refuse_overflow(array, values)
    return values


def _refuse_overflow(array: pa.StringArray, values: pa.Array) -> None:
    """Check that only the texts of an infinity became one: `1e400` is no double."""
    infinite = pc.fill_null(pc.is_inf(values), fill_value=False)
    if pc.any(infinite).as_py():
        named = pc.match_substring_regex(array.filter(infinite), "(?i)inf")
        if not pc.all(named).as_py():
            raise ValueError("too large")


def pattern_of(kind: pa.DataType) -> str:
    """Return a regular expression for the texts of *kind*."""
    for is_kind, pattern in _PATTERNS:
        if is_kind(kind):
            return pattern
    if pa.types.is_timestamp(kind):
        clock = rf"[ T]{_CLOCK}"
        return rf"{_DATE}{clock}{_ZONE}" if kind.tz else rf"{_DATE}({clock})?"
    return "(?s).*"
