"""Converts rows to tables and back: every value comes out as it went in."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import lru_cache
from operator import itemgetter
from typing import Any

import pyarrow as pa

from batchrunner.formats.arrays import array_of, check_key
from batchrunner.formats.chunk import Row
from batchrunner.formats.list_types import is_list
from batchrunner.formats.schema_error import SchemaError, first_line


def table_to_rows(table: pa.Table) -> list[Row]:
    """Return one dict for each row, with plain Python values.

    Raises:
        SchemaError: Python's type cannot hold a value, or two columns have the same name.
    """
    names = table.column_names
    if not names:
        return [{} for _ in range(table.num_rows)]
    check_names(names)
    columns = [plain_values(table.column(name), name) for name in names]
    return _maker_of_rows(tuple(names))(columns)


@lru_cache(256)
def _maker_of_rows(names: tuple[str, ...]) -> Callable[[list[list[Any]]], list[Row]]:
    """Return a function from the values of the columns *names* to rows.

    It is compiled with the names in it, as the methods of a dataclass are: `dict(zip(...))` for each
    row takes three times as long.
    """
    values = [f"v{number}" for number in range(len(names))]
    items = ", ".join(f"{name!r}: {value}" for name, value in zip(names, values, strict=True))
    code = f"lambda columns: [{{{items}}} for {', '.join(values)}, in zip(*columns, strict=True)]"
    made: Callable[[list[list[Any]]], list[Row]] = eval(code)  # noqa: S307 - `repr` quotes the names
    return made


def check_names(names: Sequence[str]) -> None:
    """Check that the *names* of columns differ.

    Raises:
        SchemaError: Two are the same.
    """
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise SchemaError(f"two columns are called {twice!r}: rename one")


def plain_values(column: pa.ChunkedArray, name: str) -> list[Any]:
    """Return the values of a column as plain Python values.

    Raises:
        SchemaError: Python's type cannot hold a value.
    """
    try:
        values: list[Any] = column.to_pylist()
    except (OverflowError, ValueError, TypeError) as error:
        raise SchemaError(_beyond_python(column.type, name, f": {first_line(error)}")) from error
    if _may_be_cut(column.type) and pa.chunked_array([pa.array(values, column.type)]) != column:
        raise SchemaError(_beyond_python(column.type, name, ", as its time has no nanoseconds"))
    return values


def _beyond_python(kind: pa.DataType, name: str, why: str) -> str:
    return (
        f"column {name!r}: {kind} values that Python cannot hold{why}; use batch_format: pyarrow and "
        "a Parquet sink, or leave the column out with source.columns"
    )


def _may_be_cut(kind: pa.DataType) -> bool:
    """Return whether *kind* holds times of day in nanoseconds: Python's have microseconds."""
    t = pa.types
    if t.is_time64(kind):
        return bool(kind.unit == "ns")
    if t.is_map(kind):
        return _may_be_cut(kind.item_type) or _may_be_cut(kind.key_type)
    if is_list(kind):
        return _may_be_cut(kind.value_type)
    return t.is_struct(kind) and any(_may_be_cut(field.type) for field in kind)


def rows_to_table(
    rows: Sequence[Row], *, hints: Sequence[pa.Schema] = (), lenient: bool = False
) -> pa.Table:
    """Return *rows* as a table, with null where a row lacks a key.

    Args:
        rows: The rows.
        hints: Schemas with types for columns: each gets the first type that fits its values.
        lenient: See `array_of`.

    Raises:
        SchemaError: The values of a column are not of one kind, or a key is no string.
    """
    columns = _columns(rows)
    if not columns:
        return bare_table(len(rows))
    for key in columns:
        check_key(key)
    arrays = [
        array_of(values, path=key, hints=hints_for(key, hints), lenient=lenient)
        for key, values in columns.items()
    ]
    return pa.table(arrays, names=list(columns))


def hints_for(name: str, hints: Sequence[pa.Schema]) -> tuple[pa.DataType, ...]:
    """Return the types that *hints* have for the column *name*, in order."""
    return tuple(hint.field(name).type for hint in hints if name in hint.names)


def bare_table(rows: int) -> pa.Table:
    """Return a table with *rows* rows and no columns. `pa.concat_tables` would lose such rows."""
    empty = pa.array([{}] * rows, pa.struct([]))
    return pa.Table.from_batches([pa.RecordBatch.from_struct_array(empty)])


def joined(tables: Sequence[pa.Table]) -> pa.Table:
    """Return the rows of *tables*, which all have one schema, as one table."""
    if not tables or not tables[0].num_columns:
        return bare_table(sum(table.num_rows for table in tables))
    return pa.concat_tables(tables) if len(tables) > 1 else tables[0]


def _columns(rows: Sequence[Row]) -> dict[str, list[Any]]:
    """Return the values of each key, with None where a row lacks it."""
    if set(map(type, rows)) == {dict} and len(set(map(len, rows))) == 1:
        with suppress(KeyError):  # as many keys in each row, but not the same ones
            return {key: list(map(itemgetter(key), rows)) for key in rows[0]}
    keys = dict.fromkeys(key for row in rows for key in row)
    return {key: [row.get(key) for row in rows] for key in keys}
