"""Types of columns: grown by addition, and arrays brought into them without altering a value.

A type grows from null to any other, and a struct by new fields, at any depth. Strings are strings and
lists are lists however Arrow keeps them (large, as views, as a dictionary). Everything else is another
type.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache

import pyarrow as pa
import pyarrow.compute as pc

from batchrunner.formats.arrays import same_values
from batchrunner.formats.lists import is_list, joined_lists, like_list
from batchrunner.formats.schema_error import SchemaError, first_line

_MOST_DIGITS = 76
_DECLARE = "; declare its type in sink.schema"
_NO_VIEWS = {pa.string_view(): pa.string(), pa.binary_view(): pa.binary()}


def plain_schema(schema: pa.Schema) -> pa.Schema:
    """Return *schema* without metadata and with every field nullable, at any depth.

    Raises:
        SchemaError: Two columns have one name.
    """
    twice = sorted({name for name in schema.names if schema.names.count(name) > 1})
    if twice:
        raise SchemaError(f"two columns are called {twice[0]!r}")
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
    """Return *schema* with what *own* adds to it; *schema* itself when that is nothing.

    Raises:
        SchemaError: A column, or a field in it, has another type: both are named.
    """
    if schema.equals(own):
        return schema
    known = set(schema.names)
    fields = [
        pa.field(field.name, _grown(field.type, own.field(field.name).type, field.name))
        if field.name in own.names
        else field
        for field in schema
    ]
    merged = pa.schema([*fields, *(field for field in own if field.name not in known)])
    return schema if merged.equals(schema) else merged


def _grown(kind: pa.DataType, own: pa.DataType, path: str) -> pa.DataType:
    t = pa.types
    if t.is_null(kind):
        return own
    if t.is_null(own) or _is_the_same(kind, own):
        return _wider(kind, own)
    if t.is_struct(kind) and t.is_struct(own):
        return _grown_struct(kind, own, path)
    if is_list(kind) and is_list(own) and _size(kind) == _size(own):
        return like_list(kind, _grown(kind.value_type, own.value_type, f"{path}[]"))
    if t.is_map(kind) and t.is_map(own) and kind.key_type.equals(own.key_type):
        return pa.map_(kind.key_type, _grown(kind.item_type, own.item_type, f"{path}.value"))
    raise SchemaError(_drift(path, own, kind) + _DECLARE)


def _is_the_same(kind: pa.DataType, own: pa.DataType) -> bool:
    """Tell whether both have the same values, however Arrow keeps them."""
    kind, own = _logical(kind), _logical(own)
    return kind.equals(own) or (_family(kind) is not None and _family(kind) == _family(own))


def _wider(kind: pa.DataType, own: pa.DataType) -> pa.DataType:
    """Return *kind*; a dictionary with the indices of *own* if those reach further."""
    t = pa.types
    if not (t.is_dictionary(kind) and t.is_dictionary(own)):
        return kind
    if own.index_type.bit_width <= kind.index_type.bit_width:
        return kind
    return pa.dictionary(own.index_type, kind.value_type, ordered=kind.ordered)


def _grown_struct(kind: pa.DataType, own: pa.DataType, path: str) -> pa.DataType:
    fields = [
        pa.field(f.name, _grown(f.type, own.field(f.name).type, f"{path}.{f.name}"))
        if own.get_field_index(f.name) >= 0
        else f
        for f in kind
    ]
    known = {field.name for field in kind}
    return pa.struct([*fields, *(field for field in own if field.name not in known)])


def _size(kind: pa.DataType) -> int | None:
    return kind.list_size if pa.types.is_fixed_size_list(kind) else None


def _logical(kind: pa.DataType) -> pa.DataType:
    return kind.value_type if pa.types.is_dictionary(kind) else kind


def _family(kind: pa.DataType) -> str | None:
    t = pa.types
    if t.is_string(kind) or t.is_large_string(kind) or t.is_string_view(kind):
        return "text"
    if t.is_binary(kind) or t.is_large_binary(kind) or t.is_binary_view(kind):
        return "bytes"
    return None


def has_words(schema: pa.Schema) -> bool:
    """Tell whether a column is a dictionary."""
    return any(pa.types.is_dictionary(field.type) for field in schema)


def without_null_words(table: pa.Table) -> pa.Table:
    """Return *table* with dictionaries of which no word is null, which Parquet cannot have."""
    for index, field in enumerate(table.schema):
        column = table.column(index)
        if pa.types.is_dictionary(field.type) and any(
            c.dictionary.null_count for c in column.chunks
        ):
            plain = _column(column, field.type.value_type, path=field.name, lenient=False)
            words = plain.dictionary_encode().cast(field.type)
            table = table.set_column(index, field, words)
    return table


def conform(table: pa.Table, schema: pa.Schema, *, lenient: bool = True) -> pa.Table:
    """Return *table* in the columns, order and types of *schema*, altering no value.

    Args:
        table: What there is. Columns and fields that it lacks are null.
        schema: What it is to be.
        lenient: Also from one number to another, from one unit of time to another, and so on, where
            each value stays what it is: for types that somebody declared.

    Raises:
        SchemaError: A column is not in *schema*, or its values are not of the type there.
    """
    if table.schema.equals(schema):
        return table
    extra = [name for name in table.column_names if name not in schema.names]
    if extra:
        raise SchemaError(
            f"column {extra[0]!r} is not in the schema of the sink ({', '.join(schema.names)}); "
            "declare all columns in sink.schema"
        )
    have = set(table.column_names)
    columns = [
        _column(table.column(field.name), field.type, path=field.name, lenient=lenient)
        if field.name in have
        else pa.nulls(table.num_rows, field.type)
        for field in schema
    ]
    return pa.table(columns, schema=schema)


def _column(
    column: pa.ChunkedArray, want: pa.DataType, *, path: str, lenient: bool
) -> pa.ChunkedArray:
    if column.type.equals(want):
        return column
    try:
        chunks = [_shaped(chunk, want, path, lenient=lenient) for chunk in column.chunks]
    except pa.ArrowException as error:
        raise SchemaError(f"{_drift(path, column.type, want)}: {first_line(error)}") from error
    return pa.chunked_array(chunks, want)


def _shaped(array: pa.Array, want: pa.DataType, path: str, *, lenient: bool) -> pa.Array:
    have, t = array.type, pa.types
    if have.equals(want):
        return array
    if t.is_null(have):
        return pa.nulls(len(array), want)
    if t.is_dictionary(have):
        return _shaped_dictionary(array, want, path, lenient=lenient)
    if t.is_dictionary(want):
        return _shaped(array, want.value_type, path, lenient=lenient).cast(want)
    for is_nested, shape in _NESTED:
        if is_nested(have) and is_nested(want):
            return shape(array, want, path, lenient=lenient)
    return _cast(array, want, path, lenient=lenient)


def _shaped_dictionary(array: pa.Array, want: pa.DataType, path: str, *, lenient: bool) -> pa.Array:
    t = pa.types
    is_dictionary = t.is_dictionary(want)
    words_type = want.value_type if is_dictionary else _storable(array.type.value_type)
    words = _shaped(array.dictionary, words_type, path, lenient=lenient)
    if is_dictionary and want.index_type.equals(array.type.index_type):
        return pa.DictionaryArray.from_arrays(array.indices, words, ordered=want.ordered)
    plain = pa.DictionaryArray.from_arrays(array.indices, words).dictionary_decode()
    return _shaped(plain, want, path, lenient=lenient)


def _cast(array: pa.Array, want: pa.DataType, path: str, *, lenient: bool) -> pa.Array:
    have = array.type
    if _is_the_same(have, want):
        return array.cast(want)
    if lenient and _may_convert(have, want):
        return _exactly(array, want, path)
    raise SchemaError(_drift(path, have, want) + (_DECLARE if pa.types.is_null(want) else ""))


def _shaped_struct(array: pa.Array, want: pa.DataType, path: str, *, lenient: bool) -> pa.Array:
    extra = [field.name for field in array.type if want.get_field_index(field.name) < 0]
    if extra:
        raise SchemaError(f"{_drift(path, array.type, want)}: it has no field {extra[0]!r}")
    children = [
        _shaped(array.field(field.name), field.type, f"{path}.{field.name}", lenient=lenient)
        if array.type.get_field_index(field.name) >= 0
        else pa.nulls(len(array), field.type)
        for field in want
    ]
    return pa.StructArray.from_arrays(children, fields=list(want), mask=array.is_null())


def _shaped_list(array: pa.Array, want: pa.DataType, path: str, *, lenient: bool) -> pa.Array:
    child = _shaped(array.flatten(), want.value_type, f"{path}[]", lenient=lenient)
    if pa.types.is_fixed_size_list(want):
        return _shaped_fixed(array, child, want, path)
    lengths = pc.fill_null(pc.list_value_length(array), 0)
    return joined_lists(lengths, child, array.is_null(), want)


def _shaped_fixed(array: pa.Array, child: pa.Array, want: pa.DataType, path: str) -> pa.Array:
    lengths = pc.fill_null(pc.list_value_length(array), want.list_size)
    if pc.any(pc.not_equal(lengths, want.list_size)).as_py():
        raise SchemaError(_drift(path, array.type, want))
    if array.null_count == 0:
        return pa.FixedSizeListArray.from_arrays(child, want.list_size)
    return pa.array(array.to_pylist(), want)  # nulls among fixed lists take room of their own


def _shaped_map(array: pa.Array, want: pa.DataType, path: str, *, lenient: bool) -> pa.Array:
    own = pa.concat_arrays([array])  # of a slice, the keys would be those of the whole
    keys = _shaped(own.keys, want.key_type, f"{path}.key", lenient=lenient)
    items = _shaped(own.items, want.item_type, f"{path}.value", lenient=lenient)
    return pa.MapArray.from_arrays(own.offsets, keys, items, mask=own.is_null())


_NESTED = (
    (pa.types.is_struct, _shaped_struct),
    (is_list, _shaped_list),
    (pa.types.is_map, _shaped_map),
)


def _may_convert(have: pa.DataType, want: pa.DataType) -> bool:
    """Tell whether a checked cast from *have* to *want* can keep values what they are."""
    t = pa.types
    families: tuple[Callable[[pa.DataType], bool], ...] = (
        lambda x: t.is_integer(x) or t.is_floating(x),
        lambda x: t.is_timestamp(x) and x.tz is None,
        lambda x: t.is_timestamp(x) and x.tz is not None,
        lambda x: t.is_binary(x) or t.is_fixed_size_binary(x),
        t.is_duration,
        t.is_decimal,
        t.is_time,
        t.is_date,
    )
    to_decimal = t.is_integer(have) and t.is_decimal(want)
    return to_decimal or any(family(have) and family(want) for family in families)


def _exactly(array: pa.Array, want: pa.DataType, path: str) -> pa.Array:
    """Cast *array*, and look whether it comes back: Arrow checks no cast between floats."""
    try:
        made = _through_decimals(array, want).cast(want)
    except pa.ArrowException as error:
        raise SchemaError(f"{_drift(path, array.type, want)}: {first_line(error)}") from error
    if not same_values(made.cast(array.type), array):
        raise SchemaError(f"{_drift(path, array.type, want)}: it cannot hold them exactly")
    return made


def _through_decimals(array: pa.Array, want: pa.DataType) -> pa.Array:
    """Return integers that are to be decimals as such of all digits.

    Arrow refuses a decimal with fewer digits than the type of the integers has, whatever they are.
    """
    if pa.types.is_integer(array.type) and pa.types.is_decimal(want):
        return array.cast(pa.decimal256(_MOST_DIGITS, want.scale))
    return array


def _drift(path: str, have: pa.DataType, want: pa.DataType) -> str:
    return f"column {path!r}: {have} here, but {want} in the schema of the sink"


def represented(array: pa.Array, hints: Sequence[pa.DataType]) -> pa.Array:
    """Return *array* in the way that the first fitting of *hints* keeps such values.

    Strings as a dictionary, dates in days, points in time with the zone that numpy has not.
    """
    for hint in hints:
        if array.type.equals(hint):
            return array
        if _keeps_the_same(array.type, hint):
            return _shaped(array, hint, "", lenient=False)
        if _has_lost_its_zone(array.type, hint):
            return array.cast(hint)
        if pa.types.is_timestamp(array.type) and pa.types.is_date64(hint):
            return array.cast(hint)
    return array


def _keeps_the_same(have: pa.DataType, want: pa.DataType) -> bool:
    try:
        return _grown(want, have, "").equals(want) and not pa.types.is_null(have)
    except SchemaError:
        return False


def _has_lost_its_zone(have: pa.DataType, want: pa.DataType) -> bool:
    t = pa.types
    if not (t.is_timestamp(have) and t.is_timestamp(want)):
        return False
    return have.tz is None and want.tz is not None and have.unit == want.unit


def filled(schema: pa.Schema, whole: pa.Schema) -> pa.Schema:
    """Return *schema* with the fields that *whole* has where an object of it is always empty."""
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
    """Return *schema* without the columns of nothing but nulls, save those that *but* has."""
    keep = [f for f in schema if not pa.types.is_null(f.type) or f.name in but.names]
    return schema if len(keep) == len(schema) else pa.schema(keep)


def check_writable(schema: pa.Schema, *, is_final: bool) -> None:
    """Refuse what Parquet has no type for.

    Args:
        schema: Of some rows, or of a part.
        is_final: No more fields will come: a struct still without any cannot be written.

    Raises:
        SchemaError: A column, which is named, has such a type.
    """
    found = ((field.name, _unwritable_in(field.type, is_final)) for field in schema)
    name, kind = next(((n, k) for n, k in found if k is not None), ("", None))
    if kind is not None:
        raise SchemaError(f"column {name!r}: Parquet has no type for {kind}{_DECLARE}")


def _unwritable_in(kind: pa.DataType, is_final: bool) -> pa.DataType | None:
    t = pa.types
    if t.is_decimal(kind):
        return None if 0 <= kind.scale <= kind.precision else kind
    if t.is_interval(kind) or t.is_union(kind) or t.is_run_end_encoded(kind):
        return kind
    if t.is_struct(kind) and not kind.num_fields:
        return kind if is_final else None
    inner = (_unwritable_in(kind.field(i).type, is_final) for i in range(kind.num_fields))
    return next((each for each in inner if each is not None), None)


def no_rows(schema: pa.Schema) -> pa.Table:
    """Return a table of *schema* without rows: Arrow's own way lacks some nested types."""
    return pa.table([pa.nulls(0, field.type) for field in schema], schema=schema)


@lru_cache(256)  # asked for every batch
def storable(schema: pa.Schema) -> pa.Schema:
    """Return *schema*, plain, with the units of time that Parquet has: it keeps no whole seconds.

    Raises:
        SchemaError: Two columns have one name, or one has a type that Parquet has not.
    """
    check_writable(schema, is_final=False)
    return pa.schema([pa.field(f.name, _storable(f.type)) for f in plain_schema(schema)])


def _storable(kind: pa.DataType) -> pa.DataType:
    t = pa.types
    if t.is_struct(kind):
        return pa.struct([pa.field(f.name, _storable_field(f.type)) for f in kind])
    if is_list(kind):
        return like_list(kind, _storable(kind.value_type))
    if t.is_map(kind):
        return pa.map_(_storable(kind.key_type), _storable(kind.item_type))
    return _storable_dictionary(kind) if t.is_dictionary(kind) else _storable_time(kind)


def _storable_field(kind: pa.DataType) -> pa.DataType:
    """Arrow cannot slice an object with a field that is a view, as its writer does."""
    return _NO_VIEWS.get(kind) or _storable(kind)


def without_views(schema: pa.Schema) -> pa.Schema:
    """Return *schema* with text and bytes as Arrow usually keeps them: views are for the way only."""
    kinds = ((field, _NO_VIEWS.get(field.type, field.type)) for field in schema)
    return pa.schema([pa.field(field.name, kind) for field, kind in kinds])


def _storable_time(kind: pa.DataType) -> pa.DataType:
    t = pa.types
    if t.is_timestamp(kind) and kind.unit == "s":
        return pa.timestamp("ms", kind.tz)
    if t.is_time32(kind) and kind.unit == "s":
        return pa.time32("ms")
    return pa.date32() if t.is_date64(kind) else kind


def _storable_dictionary(kind: pa.DataType) -> pa.DataType:
    """Parquet has dictionaries of text and of bytes. Of durations, Arrow would write mere numbers."""
    words = kind.value_type
    plain = _NO_VIEWS.get(words, words)
    if _family(words) is None:
        return _storable(words)
    return pa.dictionary(kind.index_type, plain, ordered=kind.ordered)
