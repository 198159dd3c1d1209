"""Converts a `pyarrow.Schema` to columns, by its type objects.

Their text quotes no names, so a field called `a:b` would be misread. The functions import pyarrow
themselves: a caller with such a schema has imported it already.
"""

from __future__ import annotations

from typing import Any

from batchrunner.formats.arrow_text import read_type
from batchrunner.formats.arrow_types import (
    ArrowField,
    ArrowType,
    dictionary_of,
    list_of,
    map_of,
    quoted,
    struct_of,
)


def columns_of_schema(schema: Any) -> list[ArrowField]:
    """Return the columns of *schema*, pyarrow's or another library's with an Arrow interface.

    Metadata is left out, since it is no part of a type.

    Raises:
        ValueError: It is no schema, or a column has a type that Parquet cannot hold.
    """
    import pyarrow as pa

    try:
        arrow_schema = schema if isinstance(schema, pa.Schema) else pa.schema(schema)
    except (pa.ArrowException, TypeError) as error:
        raise ValueError("must be a pyarrow.Schema: this is another object of Arrow's") from error
    return [_column(field) for field in arrow_schema]


def column_of_type(kind: Any) -> ArrowField:
    """Return *kind* as a column: a `pyarrow.Field`, or a `pyarrow.DataType`, which has no name.

    Raises:
        ValueError: It is neither, or Parquet cannot hold it.
    """
    import pyarrow as pa

    if isinstance(kind, pa.Field):
        return _field(kind)
    if isinstance(kind, pa.DataType):
        return ArrowField("", _type(kind))
    raise ValueError("must be a pyarrow.DataType")


def _column(field: Any) -> ArrowField:
    try:
        return _field(field)
    except ValueError as error:
        raise ValueError(f"column {quoted(field.name)}: {error}") from error


def _field(field: Any) -> ArrowField:
    return ArrowField(field.name, _type(field.type), nullable=field.nullable)


def _type(kind: Any) -> ArrowType:
    from pyarrow import types as t

    if t.is_struct(kind):
        return struct_of(map(_field, kind))
    if t.is_map(kind):
        value = _field(kind.item_field)
        return map_of(_type(kind.key_type), value, keys_sorted=int(kind.keys_sorted))
    if t.is_dictionary(kind):
        values, indices = _type(kind.value_type), _type(kind.index_type)
        return dictionary_of(values, indices, ordered=int(kind.ordered))
    if hasattr(kind, "value_field"):  # all kinds of lists
        return _list(kind)
    return _plain(kind)


def _list(kind: Any) -> ArrowType:
    word = str(kind).partition("<")[0]
    size = kind.list_size if word == "fixed_size_list" else 0
    return list_of(_field(kind.value_field), kind=word, size=size)


def _plain(kind: Any) -> ArrowType:
    """Return the type that the text of *kind* describes.

    The text of JSON leaves out which kind of string stores it, so only the default is accepted.
    """
    import pyarrow as pa

    if isinstance(kind, pa.JsonType) and not pa.types.is_string(kind.storage_type):
        raise ValueError("JSON in a large_string or a string_view; declare pyarrow.json_()")
    return read_type(str(kind)).type
