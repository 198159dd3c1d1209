"""Merges schemas: the types of columns may grow, and may not change.

A type grows from null to any other, and a struct by new fields, at any depth. Strings are strings and
lists are lists however Arrow keeps them (large, as views, as a dictionary). Any other difference makes
it another type, which is an error.
"""

from __future__ import annotations

import pyarrow as pa

from batchrunner.formats.list_types import is_list, like_list
from batchrunner.formats.schema_error import SchemaError

DECLARE = "; declare its type in sink.schema"


def plain_schema(schema: pa.Schema) -> pa.Schema:
    """Return *schema* without metadata and with every field nullable, at any depth.

    Raises:
        SchemaError: Two columns have the same name.
    """
    twice = sorted({name for name in schema.names if schema.names.count(name) > 1})
    if twice:
        raise SchemaError(f"two columns are called {twice[0]!r}: rename one")
    return pa.schema([_plain_field(field) for field in schema])


def _plain_field(field: pa.Field) -> pa.Field:
    return pa.field(field.name, _plain(field.type))


def _plain(kind: pa.DataType) -> pa.DataType:
    if pa.types.is_struct(kind):
        return pa.struct([_plain_field(field) for field in kind])
    if is_list(kind):
        return like_list(kind, _plain(kind.value_type))
    if pa.types.is_map(kind):
        return pa.map_(kind.key_type, _plain(kind.item_type))
    return kind


def grown(schema: pa.Schema, own: pa.Schema) -> pa.Schema:
    """Return *schema* with what *own* adds to it; *schema* itself if *own* adds nothing.

    Raises:
        SchemaError: A column, or a field in it, has another type in *own*. The message has both types.
    """
    if schema.equals(own):
        return schema
    names = set(schema.names)
    fields = [
        pa.field(field.name, grown_type(field.type, own.field(field.name).type, field.name))
        if field.name in own.names
        else field
        for field in schema
    ]
    merged = pa.schema([*fields, *(field for field in own if field.name not in names)])
    return schema if merged.equals(schema) else merged


def grown_type(kind: pa.DataType, own: pa.DataType, path: str) -> pa.DataType:
    """Return *kind* with what *own* adds to it; *path* names the column, for errors.

    Raises:
        SchemaError: *own* is a type that *kind* cannot grow to.
    """
    t = pa.types
    if t.is_null(kind):
        return own
    if t.is_null(own) or is_the_same(kind, own):
        return _wider(kind, own)
    if t.is_struct(kind) and t.is_struct(own):
        return _grown_struct(kind, own, path)
    if is_list(kind) and is_list(own) and _size(kind) == _size(own):
        return like_list(kind, grown_type(kind.value_type, own.value_type, f"{path}[]"))
    if t.is_map(kind) and t.is_map(own) and kind.key_type.equals(own.key_type):
        return pa.map_(kind.key_type, grown_type(kind.item_type, own.item_type, f"{path}.value"))
    raise SchemaError(drift(path, own, kind) + DECLARE)


def _grown_struct(kind: pa.DataType, own: pa.DataType, path: str) -> pa.DataType:
    fields = [
        pa.field(f.name, grown_type(f.type, own.field(f.name).type, f"{path}.{f.name}"))
        if own.get_field_index(f.name) >= 0
        else f
        for f in kind
    ]
    names = {field.name for field in kind}
    return pa.struct([*fields, *(field for field in own if field.name not in names)])


def _wider(kind: pa.DataType, own: pa.DataType) -> pa.DataType:
    """Return *kind*; if both types are dictionaries, with the wider indices of the two."""
    t = pa.types
    if not (t.is_dictionary(kind) and t.is_dictionary(own)):
        return kind
    if own.index_type.bit_width <= kind.index_type.bit_width:
        return kind
    return pa.dictionary(own.index_type, kind.value_type, ordered=kind.ordered)


def _size(kind: pa.DataType) -> int | None:
    return kind.list_size if pa.types.is_fixed_size_list(kind) else None


def is_the_same(kind: pa.DataType, own: pa.DataType) -> bool:
    """Return whether two types have the same values, in whatever layout Arrow keeps them."""
    kind, own = _logical(kind), _logical(own)
    return kind.equals(own) or (family(kind) is not None and family(kind) == family(own))


def drift(path: str, have: pa.DataType, want: pa.DataType) -> str:
    """Return the error message for a column that has another type in the sink."""
    return f"column {path!r}: {have} here, but {want} in the schema of the sink"


def _logical(kind: pa.DataType) -> pa.DataType:
    return kind.value_type if pa.types.is_dictionary(kind) else kind


def family(kind: pa.DataType) -> str | None:
    """Return "text" for a string type, "bytes" for a binary type, else None."""
    t = pa.types
    if t.is_string(kind) or t.is_large_string(kind) or t.is_string_view(kind):
        return "text"
    if t.is_binary(kind) or t.is_large_binary(kind) or t.is_binary_view(kind):
        return "bytes"
    return None


def filled(schema: pa.Schema, whole: pa.Schema) -> pa.Schema:
    """Return *schema* with each struct without fields as *whole* has it, at any depth."""
    return pa.schema(
        [
            pa.field(f.name, _filled(f.type, whole.field(f.name).type))
            if f.name in whole.names
            else f
            for f in schema
        ]
    )


def _filled(kind: pa.DataType, whole: pa.DataType) -> pa.DataType:
    t = pa.types
    if t.is_struct(kind) and t.is_struct(whole):
        if not kind.num_fields:
            return whole
        return pa.struct(list(filled(pa.schema(list(kind)), pa.schema(list(whole)))))
    if is_list(kind) and is_list(whole):
        return like_list(kind, _filled(kind.value_type, whole.value_type))
    if t.is_map(kind) and t.is_map(whole):
        return pa.map_(kind.key_type, _filled(kind.item_type, whole.item_type))
    return kind


def without_nulls(schema: pa.Schema, *, but: pa.Schema) -> pa.Schema:
    """Return *schema* without its columns of type null, except those that *but* has."""
    keep = [f for f in schema if not pa.types.is_null(f.type) or f.name in but.names]
    return schema if len(keep) == len(schema) else pa.schema(keep)
