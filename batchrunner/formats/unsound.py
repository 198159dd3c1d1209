"""Finds rows with a value that is invalid for its column's type, which readers could not take.

In Parquet, bytes that are no text may be in a column of strings. Arrow reads and writes them all the
same; Python cannot, and neither can the next reader. So such a row is a bad row. The check costs one
call per few thousand rows; only if it fails are the rows halved until the bad row is found.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Container, Iterator, Sequence
from itertools import pairwise
from typing import Any

import orjson
import pyarrow as pa

Reason = Callable[[int, int], str | None]
"""Given the first row and one past the last, returns what is wrong with one of them, or None."""


def unsound_rows(table: pa.Table) -> dict[int, str]:
    """Return, by row number, what is wrong with a row that has a value invalid for its type."""
    if is_valid(table):
        return {}
    columns = [(name, _decoded(table.column(name))) for name in table.column_names]
    return dict(guilty(0, table.num_rows, lambda a, b: _complaint(columns, a, b)))


def is_valid(values: pa.Table | pa.ChunkedArray | pa.Array) -> bool:
    """Return whether all *values* are valid for their types."""
    try:
        values.validate(full=True)
    except pa.ArrowInvalid:
        return False
    return True


def guilty(start: int, stop: int, reason: Reason) -> Iterator[tuple[int, str]]:
    """Yield the number of each row for which *reason* returns a fault, with the fault, in order."""
    why = reason(start, stop)
    if why is None:
        return
    if stop - start == 1:
        yield start, why
        return
    middle = (start + stop) // 2
    yield from guilty(start, middle, reason)
    yield from guilty(middle, stop, reason)


def copy_of(pieces: Sequence[pa.ChunkedArray]) -> pa.Array:
    """Return the values of *pieces* as a copy, without the nested values of rows beside them.

    `take` would be shorter, but does not support every type.
    """
    return pa.concat_arrays([chunk for piece in pieces for chunk in piece.chunks])


def without_rows(table: pa.Table, faults: Container[int]) -> pa.Table:
    """Return the rows of *table* whose numbers are not among *faults*."""
    good = [number for number in range(table.num_rows) if number not in faults]
    runs = [table.slice(start, stop - start) for start, stop in _runs(good)] or [table.slice(0, 0)]
    columns = [copy_of([run.column(i) for run in runs]) for i in range(table.num_columns)]
    return pa.table(columns, schema=table.schema)


def _runs(numbers: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Yield the first and one past the last of each stretch of consecutive *numbers*."""
    breaks = [n for n in range(1, len(numbers)) if numbers[n] != numbers[n - 1] + 1]
    for start, stop in pairwise([0, *breaks, len(numbers)] if numbers else []):
        yield numbers[start], numbers[stop - 1] + 1


def _complaint(columns: list[tuple[str, pa.ChunkedArray]], start: int, stop: int) -> str | None:
    for name, column in columns:
        # A slice of a nested column is validated with all values of the whole: a copy is not.
        copied = copy_of([column.slice(start, stop - start)])
        try:
            copied.validate(full=True)
        except pa.ArrowInvalid as error:
            if stop - start > 1 or _is_really(copied):
                return f"column {name!r}: {_first_line(error)}"
    return None


def _is_really(value: pa.Array) -> bool:
    """Return whether the one value is invalid, and not just an unused word of its dictionary."""
    if "dictionary" not in str(value.type):
        return True
    try:
        value.to_pylist()
    except UnicodeDecodeError:
        return True
    except Exception:  # noqa: BLE001 - right for its type, but more than Python holds
        return False
    return False


def _decoded(column: pa.ChunkedArray) -> pa.ChunkedArray:
    if pa.types.is_dictionary(column.type):
        return column.cast(column.type.value_type)
    return column


def with_own_words(table: pa.Table) -> pa.Table:
    """Return *table* without the words of invalid dictionaries that none of its rows use.

    A row group shares a dictionary: one word that is no text would make all its rows unreadable.
    """
    for index, column in enumerate(table.columns):
        if pa.types.is_dictionary(column.type) and not is_valid(column):
            encoded = _decoded(column).dictionary_encode().cast(column.type)
            table = table.set_column(index, table.schema.field(index), encoded)
    return table


def _first_line(error: BaseException) -> str:
    return str(error).partition("\n")[0][:200]


def shown(row: pa.Table) -> bytes:
    """Return the single row in *row* as JSON. Never raises.

    A value that JSON or Python cannot hold is shown as base64, or as a number with its type.
    """
    columns = zip(row.column_names, row.columns, strict=True)
    return b"{%b}" % b",".join(
        orjson.dumps(name) + b":" + _shown(column[0]) for name, column in columns
    )


def _shown(value: pa.Scalar) -> bytes:
    try:
        return orjson.dumps(value.as_py(), default=str)
    except Exception:  # noqa: BLE001 - a value may be anything; it is to be kept all the same
        return json.dumps(_in_words(value), default=str).encode()


def _in_words(value: pa.Scalar) -> Any:
    """Return *value* as Python values; what Python cannot hold, as base64 or as a number."""
    if not value.is_valid:
        return None
    if isinstance(value, pa.StructScalar):
        return {field.name: _in_words(value[i]) for i, field in enumerate(value.type)}
    if isinstance(value, pa.ListScalar):
        return [_in_words(item) for item in value.values]
    if isinstance(value, pa.DictionaryScalar):
        return _in_words(value.value)
    try:
        return value.as_py()
    except Exception:  # noqa: BLE001 - whatever the reason
        return _bare(value)


def _bare(value: pa.Scalar) -> Any:
    try:
        if pa.types.is_temporal(value.type):
            return {str(value.type): value.value}
        return {"base64": base64.b64encode(value.cast(pa.large_binary()).as_py()).decode()}
    except Exception:  # noqa: BLE001 - then its type is all there is to say
        return {str(value.type): None}
