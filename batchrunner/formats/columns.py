"""Rows to tables and back, and the one schema that all parts of a Parquet sink share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import repeat
from typing import Any

import pyarrow as pa

from batchrunner.formats.chunk import Row


class SchemaError(ValueError):
    """A column does not fit: the message names it and both types."""


def table_to_rows(table: pa.Table) -> list[Row]:
    """Return one dict a row, with plain Python values."""
    names = table.column_names
    columns = [column.to_pylist() for column in table.columns]
    # Without a Python step per row: half the time of a comprehension.
    return list(map(dict, map(zip, repeat(names), zip(*columns, strict=True))))


def rows_to_table(rows: Sequence[Row]) -> pa.Table:
    """Return the table of *rows*, with the types that their values suggest.

    A key that a row lacks is null there. An integer among floats becomes a float only when that
    loses nothing.

    Raises:
        SchemaError: The values of a column have no type in common.
    """
    return pa.table({name: _column(name, [row.get(name) for row in rows]) for name in _keys(rows)})


def _keys(rows: Sequence[Row]) -> list[str]:
    keys = rows[0].keys() if rows else {}
    if not all(row.keys() == keys for row in rows):
        keys = dict.fromkeys(key for row in rows for key in row)
    for key in keys:
        if not isinstance(key, str):
            raise SchemaError(f"the key {key!r} is no string")
    return list(keys)


def _column(name: str, values: list[Any]) -> pa.Array:
    # With a type given, Arrow would cut 1.5 to 1; so it infers one, and `conform` compares.
    try:
        return pa.array(values)
    except (pa.ArrowException, OverflowError, TypeError, ValueError) as error:
        raise SchemaError(f"column {name!r}: {_first_line(error)}") from error


def _first_line(error: BaseException) -> str:
    return str(error).partition("\n")[0][:200]


def conform(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """Return *table* in the columns, order and types of *schema*, altering no value.

    Raises:
        SchemaError: A column is not in *schema*, or its values are not of the type there.
    """
    if table.schema.equals(schema):
        return table
    _refuse_unknown(table.column_names, schema)
    return pa.table([_conform_column(table, field) for field in schema], schema=schema)


def _conform_column(table: pa.Table, field: pa.Field) -> pa.ChunkedArray | pa.Array:
    if field.name not in table.column_names:
        return pa.nulls(table.num_rows, field.type)
    column = table.column(field.name)
    if column.type.equals(field.type):
        return column
    if not _same_values(column.type, field.type):
        raise SchemaError(_drift(field.name, column.type, field.type))
    try:
        return column.cast(field.type)
    except pa.ArrowException as error:
        raise SchemaError(
            f"{_drift(field.name, column.type, field.type)}: {_first_line(error)}"
        ) from error


def _same_values(have: pa.DataType, want: pa.DataType) -> bool:
    """Tell whether a checked cast from *have* to *want* can keep values what they are."""
    t = pa.types
    if t.is_dictionary(have):
        have = have.value_type
    families = (
        lambda x: t.is_integer(x) or t.is_floating(x),
        lambda x: t.is_string(x) or t.is_large_string(x) or t.is_string_view(x),
        lambda x: t.is_binary(x) or t.is_large_binary(x),
        t.is_timestamp,
        t.is_duration,
        t.is_nested,
        t.is_decimal,
    )
    return t.is_null(have) or have.equals(want) or any(f(have) and f(want) for f in families)


def _drift(name: str, have: pa.DataType, want: pa.DataType) -> str:
    hint = "; declare its type in sink.schema" if pa.types.is_null(want) else ""
    return f"column {name!r}: {have} here, but {want} in the schema of the sink{hint}"


def _refuse_unknown(names: Sequence[str], schema: pa.Schema) -> None:
    extra = [name for name in names if name not in schema.names]
    if extra:
        raise SchemaError(
            f"column {extra[0]!r} is not in the schema of the sink ({', '.join(schema.names)}), "
            "which the first part fixed; declare all columns in sink.schema"
        )


def unify(tables: Sequence[pa.Table]) -> pa.Table:
    """Return all rows as one table; a column is null in those that lack it.

    Raises:
        SchemaError: A column has types that have none in common.
    """
    if not tables:
        return pa.table({})
    if all(table.schema.equals(tables[0].schema) for table in tables):
        return pa.concat_tables(tables)
    try:
        schema = pa.unify_schemas([t.schema for t in tables], promote_options="permissive")
    except pa.ArrowException as error:
        raise SchemaError(f"the types of a column change: {_first_line(error)}") from error
    return pa.concat_tables([conform(table, schema) for table in tables])


def declared_schema(types: Mapping[str, str]) -> pa.Schema:
    """Return the schema that `sink.schema` declares.

    Raises:
        SchemaError: Arrow knows no type of that name.
    """
    return pa.schema([(name, _type_named(name, alias)) for name, alias in types.items()])


def _type_named(column: str, alias: str) -> pa.DataType:
    element = alias.removeprefix("list<").removesuffix(">")
    try:
        return (
            pa.list_(pa.type_for_alias(element)) if element != alias else pa.type_for_alias(alias)
        )
    except ValueError as error:
        raise SchemaError(
            f"sink.schema: column {column!r} has the type {alias!r}; known are string, int64, "
            "double, bool, binary, date32, timestamp[us], list<…> of those, and Arrow's other names"
        ) from error


def adopt_types(table: pa.Table, hint: pa.Schema | None) -> pa.Table:
    """Give columns without any value the type that *hint* has for their name."""
    for index, field in enumerate(table.schema):
        if hint is not None and pa.types.is_null(field.type) and field.name in hint.names:
            type_ = hint.field(field.name).type
            table = table.set_column(index, field.name, pa.nulls(table.num_rows, type_))
    return table
