"""The schema that `sink.schema` declares, and the check for nulls that it forbids."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import pyarrow as pa

from batchrunner.formats.arrow_text import read_type
from batchrunner.formats.arrow_types import ArrowField, ArrowType
from batchrunner.formats.list_types import is_list
from batchrunner.formats.schema_error import SchemaError
from batchrunner.formats.schemas import plain_schema

_EXTENSIONS: Mapping[str | int, Callable[[], pa.DataType]] = {
    "uuid": pa.uuid,
    "json": pa.json_,
    "bool8": pa.bool8,
}
_IN_DICTIONARIES: Mapping[str, Callable[[], pa.DataType]] = {
    "string": pa.string,
    "large_string": pa.string,
    "binary": pa.binary,
    "large_binary": pa.binary,
}
_LISTS: Mapping[str, Callable[..., pa.DataType]] = {
    "list": pa.list_,
    "large_list": pa.large_list,
    "list_view": pa.list_view,
    "large_list_view": pa.large_list_view,
    "fixed_size_list": pa.list_,
}


def declared_schema(types: Mapping[str, str]) -> pa.Schema:
    """Return the schema that `sink.schema` declares.

    Raises:
        SchemaError: A text names no type that Parquet can hold.
    """
    return pa.schema([_column(name, text) for name, text in types.items()])


def _column(name: str, text: str) -> pa.Field:
    try:
        read = read_type(text)
    except ValueError as error:
        raise SchemaError(f"sink.schema: column {name!r}: {error}") from error
    return pa.field(name, arrow_type(read.type), nullable=read.nullable)


def arrow_type(kind: ArrowType) -> pa.DataType:
    """Return the pyarrow type in which Parquet stores values of *kind*."""
    if kind.name == "struct":
        return pa.struct(map(_field, kind.fields))
    if kind.name == "map":
        key, value = map(_field, kind.fields)
        return pa.map_(key, value, keys_sorted=bool(kind.of[0]))
    if kind.name == "dictionary":
        return _dictionary(kind)
    if kind.name in _LISTS:
        return _LISTS[kind.name](_field(kind.fields[0]), *kind.of)
    return _scalar(kind)


def _dictionary(kind: ArrowType) -> pa.DataType:
    """Return the type in which Parquet stores a dictionary: only text and bytes stay in one.

    The indices have at least 32 bits, room for the values of a whole part: with more values than its
    indices can count, Arrow writes a file that it cannot read.
    """
    values, indices = (arrow_type(field.type) for field in kind.fields)
    word = _IN_DICTIONARIES.get(kind.fields[0].type.name)
    if word is None:
        return values
    wide = indices if indices.bit_width >= pa.int32().bit_width else pa.int32()
    return pa.dictionary(wide, word(), ordered=bool(kind.of[0]))


def _field(field: ArrowField) -> pa.Field:
    return pa.field(field.name, arrow_type(field.type), nullable=field.nullable)


def _scalar(kind: ArrowType) -> pa.DataType:
    kind = _as_kept(kind)
    if kind.name == "extension":
        return _EXTENSIONS[kind.of[0]]()
    if kind.name == "date32":
        return pa.date32()
    if kind.name == "fixed_size_binary":
        return pa.binary(*kind.of)
    if kind.of:  # timestamp, duration, decimal128 and the like are called by their names
        return getattr(pa, kind.name)(*kind.of)
    return pa.type_for_alias(kind.name)


def _as_kept(kind: ArrowType) -> ArrowType:
    """Return the type that Parquet has for *kind*: milliseconds for seconds, date32 for date64."""
    if kind.name == "date64":
        return ArrowType("date32", ("day",))
    if kind.name in {"timestamp", "time32"} and kind.of[0] == "s":
        return ArrowType(kind.name, ("ms", *kind.of[1:]))
    return kind


def as_written(schema: pa.Schema) -> pa.Schema:
    """Return *schema* as parts have it: all inside lists, maps and nullable structs is nullable.

    Parquet's writer requires it: to the writer, the fields of a null struct are null, too, and Arrow
    makes lists and maps with nullable elements. `check_nulls` checks the rest of *schema*.
    """
    plain = plain_schema(schema)
    return pa.schema([_granted(field, plain.field(field.name)) for field in schema])


def _granted(field: pa.Field, plain: pa.Field) -> pa.Field:
    if field.nullable or not pa.types.is_struct(field.type):
        return plain.with_nullable(field.nullable)
    inner = [_granted(one, plain.type.field(one.name)) for one in field.type]
    return pa.field(field.name, pa.struct(inner), nullable=False)


def refuses_nulls(schema: pa.Schema) -> bool:
    """Return whether *schema* forbids null anywhere, so that `check_nulls` has to be called."""
    return any(map(_has_no_nulls, schema))


def check_nulls(table: pa.Table, schema: pa.Schema) -> None:
    """Check that *table* has no null where *schema* forbids it; their types must be the same.

    Parquet's writer would refuse the whole part. Here only the row fails.

    Raises:
        SchemaError: There is such a null; the message names the column, or the field in it.
    """
    for field in schema:
        if _has_no_nulls(field):
            for chunk in table.column(field.name).chunks:
                _check(chunk, field, path=field.name)


def _has_no_nulls(field: pa.Field) -> bool:
    return not field.nullable or any(map(_has_no_nulls, _children(field.type)))


def _children(kind: pa.DataType) -> list[pa.Field]:
    if pa.types.is_map(kind):
        return [kind.item_field]
    if is_list(kind):
        return [kind.value_field]
    return list(kind) if pa.types.is_struct(kind) else []


def _check(array: pa.Array, field: pa.Field, *, path: str, above: int = 0) -> None:
    """Check the nulls in *array*; *above* is the count of nulls in the struct around it."""
    kind = field.type
    if not field.nullable and array.null_count > above:
        raise SchemaError(
            f"column {path!r}: null here, but {kind} not null in the schema of the sink; return a value, "
            "or leave `not null` out of sink.schema"
        )
    if pa.types.is_struct(kind):
        for inner, child in zip(kind, array.flatten(), strict=True):  # null where the struct is
            _check(child, inner, path=f"{path}.{inner.name}", above=array.null_count)
    elif is_list(kind):
        _check(array.flatten(), kind.value_field, path=f"{path}[]")
    elif pa.types.is_map(kind):
        own = pa.concat_arrays([array])  # a slice's `items` are those of the whole array
        _check(own.items, kind.item_field, path=f"{path}.value")
