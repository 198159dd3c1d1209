"""Which Arrow types Parquet can store, which it stores as another type, and which not at all."""

from __future__ import annotations

from functools import lru_cache

import pyarrow as pa

from batchrunner.formats.list_types import is_list, like_list
from batchrunner.formats.schema_error import SchemaError
from batchrunner.formats.schemas import DECLARE, family, plain_schema

_NO_VIEWS = {pa.string_view(): pa.string(), pa.binary_view(): pa.binary()}


@lru_cache(256)  # asked for every batch
def storable(schema: pa.Schema) -> pa.Schema:
    """Return *schema* with the types that Parquet stores, all nullable: milliseconds for seconds.

    Raises:
        SchemaError: Two columns have the same name, or Parquet cannot store a column's type.
    """
    check_writable(schema, is_final=False)
    return pa.schema([pa.field(f.name, storable_type(f.type)) for f in plain_schema(schema)])


def storable_type(kind: pa.DataType) -> pa.DataType:
    """Return the type in which Parquet stores *kind*; see `storable`."""
    t = pa.types
    if t.is_struct(kind):
        return pa.struct([pa.field(f.name, _storable_field(f.type)) for f in kind])
    if is_list(kind):
        return like_list(kind, storable_type(kind.value_type))
    if t.is_map(kind):
        return pa.map_(storable_type(kind.key_type), storable_type(kind.item_type))
    return _storable_dictionary(kind) if t.is_dictionary(kind) else _storable_time(kind)


def _storable_field(kind: pa.DataType) -> pa.DataType:
    """Return the storable type of a struct field: no view, as Arrow cannot slice such structs."""
    return _NO_VIEWS.get(kind) or storable_type(kind)


def _storable_dictionary(kind: pa.DataType) -> pa.DataType:
    """Return the storable type of a dictionary: only text and bytes stay in one.

    Of a dictionary of durations, Arrow would write mere numbers.
    """
    words = kind.value_type
    plain = _NO_VIEWS.get(words, words)
    if family(words) is None:
        return storable_type(words)
    return pa.dictionary(kind.index_type, plain, ordered=kind.ordered)


def _storable_time(kind: pa.DataType) -> pa.DataType:
    t = pa.types
    if t.is_timestamp(kind) and kind.unit == "s":
        return pa.timestamp("ms", kind.tz)
    if t.is_time32(kind) and kind.unit == "s":
        return pa.time32("ms")
    return pa.date32() if t.is_date64(kind) else kind


def without_views(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return *column* with plain strings and bytes in place of views."""
    kind = column.type
    if not pa.types.is_dictionary(kind):
        return column.cast(_without_views(kind))
    words = _NO_VIEWS.get(kind.value_type, kind.value_type)
    chunks = [
        pa.DictionaryArray.from_arrays(
            chunk.indices, chunk.dictionary.cast(words), ordered=kind.ordered
        )
        for chunk in column.chunks
    ]
    return pa.chunked_array(chunks, pa.dictionary(kind.index_type, words, ordered=kind.ordered))


def _without_views(kind: pa.DataType) -> pa.DataType:
    if pa.types.is_list(kind):
        return pa.list_(_without_views(kind.value_type))
    if pa.types.is_large_list(kind):
        return pa.large_list(_without_views(kind.value_type))
    if pa.types.is_struct(kind):
        return pa.struct([(field.name, _without_views(field.type)) for field in kind])
    return _NO_VIEWS.get(kind, kind)


def has_words(schema: pa.Schema) -> bool:
    """Return whether a column of *schema* is a dictionary."""
    return any(pa.types.is_dictionary(field.type) for field in schema)


def check_writable(schema: pa.Schema, *, is_final: bool) -> None:
    """Check that Parquet has a type for each column.

    Args:
        schema: The schema of some rows, or of a part.
        is_final: No more fields will come: a struct still without any cannot be written.

    Raises:
        SchemaError: It has none for a column, which the message names.
    """
    types = ((field.name, _unwritable_in(field.type, is_final)) for field in schema)
    name, kind = next(((n, k) for n, k in types if k is not None), ("", None))
    if kind is not None:
        raise SchemaError(f"column {name!r}: Parquet has no type for {kind}{DECLARE}")


def _unwritable_in(kind: pa.DataType, is_final: bool) -> pa.DataType | None:
    t = pa.types
    if t.is_decimal(kind):
        return None if 0 <= kind.scale <= kind.precision else kind
    if t.is_interval(kind) or t.is_union(kind) or t.is_run_end_encoded(kind):
        return kind
    if t.is_fixed_size_list(kind) and not kind.list_size:
        return kind  # Arrow writes a null among them, and cannot read the file again
    if t.is_struct(kind) and not kind.num_fields:
        return kind if is_final else None
    inner = (_unwritable_in(kind.field(i).type, is_final) for i in range(kind.num_fields))
    return next((each for each in inner if each is not None), None)


def no_rows(schema: pa.Schema) -> pa.Table:
    """Return a table of *schema* without rows: Arrow's own function lacks some nested types."""
    return pa.table([pa.nulls(0, field.type) for field in schema], schema=schema)
