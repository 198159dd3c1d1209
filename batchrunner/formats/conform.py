"""Conversion of tables and arrays to other types, without altering a value."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pyarrow as pa
import pyarrow.compute as pc

from batchrunner.formats.arrays import same_values
from batchrunner.formats.list_types import is_list, joined_lists
from batchrunner.formats.parquet_types import storable_type
from batchrunner.formats.schema_error import CONVERT, SchemaError, first_line
from batchrunner.formats.schemas import DECLARE, drift, family, grown_type, is_the_same

_MOST_DIGITS = 76


def conform(table: pa.Table, schema: pa.Schema, *, lenient: bool = True) -> pa.Table:
    """Return *table* with the columns, order and types of *schema*, altering no value.

    Args:
        table: The rows. Columns and fields that it lacks become null.
        schema: The schema to return.
        lenient: Also convert between types of numbers, units of time and the like, where every value
            stays exact: for types that `sink.schema` declares.

    Raises:
        SchemaError: A column is not in *schema*, or its values do not fit the type there.
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
        raise SchemaError(
            f"{drift(path, column.type, want)}: {first_line(error)}{CONVERT}"
        ) from error
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
    words_type = want.value_type if is_dictionary else storable_type(array.type.value_type)
    words = _shaped(array.dictionary, words_type, path, lenient=lenient)
    if is_dictionary and want.index_type.equals(array.type.index_type):
        return pa.DictionaryArray.from_arrays(array.indices, words, ordered=want.ordered)
    plain = pa.DictionaryArray.from_arrays(array.indices, words).dictionary_decode()
    return _shaped(plain, want, path, lenient=lenient)


def _shaped_struct(array: pa.Array, want: pa.DataType, path: str, *, lenient: bool) -> pa.Array:
    extra = [field.name for field in array.type if want.get_field_index(field.name) < 0]
    if extra:
        raise SchemaError(
            f"{drift(path, array.type, want)}: it has no field {extra[0]!r}; declare it in sink.schema"
        )
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
        raise SchemaError(drift(path, array.type, want) + CONVERT)
    if array.null_count == 0:
        return pa.FixedSizeListArray.from_arrays(child, want.list_size)
    return pa.array(array.to_pylist(), want)  # nulls among fixed lists take room of their own


def _shaped_map(array: pa.Array, want: pa.DataType, path: str, *, lenient: bool) -> pa.Array:
    own = pa.concat_arrays([array])  # a slice's `keys` are those of the whole array
    keys = _shaped(own.keys, want.key_type, f"{path}.key", lenient=lenient)
    items = _shaped(own.items, want.item_type, f"{path}.value", lenient=lenient)
    return pa.MapArray.from_arrays(own.offsets, keys, items, mask=own.is_null())


_NESTED = (
    (pa.types.is_struct, _shaped_struct),
    (is_list, _shaped_list),
    (pa.types.is_map, _shaped_map),
)


def _cast(array: pa.Array, want: pa.DataType, path: str, *, lenient: bool) -> pa.Array:
    have = array.type
    if is_the_same(have, want):
        return array.cast(want)
    if lenient and _may_convert(have, want):
        return _exactly(array, want, path)
    raise SchemaError(drift(path, have, want) + (DECLARE if pa.types.is_null(want) else CONVERT))


def _may_convert(have: pa.DataType, want: pa.DataType) -> bool:
    """Return whether a checked cast from *have* to *want* can keep values exact."""
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
    """Cast *array* to *want*, and check by a cast back: Arrow checks no cast between floats."""
    try:
        made = _through_decimals(array, want).cast(want)
    except pa.ArrowException as error:
        raise SchemaError(
            f"{drift(path, array.type, want)}: {first_line(error)}{CONVERT}"
        ) from error
    if not same_values(made.cast(array.type), array):
        raise SchemaError(f"{drift(path, array.type, want)}: it cannot hold them exactly{CONVERT}")
    return made


def _through_decimals(array: pa.Array, want: pa.DataType) -> pa.Array:
    """Return *array*; integers that are to become decimals, as decimals with the most digits.

    Arrow refuses to cast integers to a decimal with fewer digits than their type can have, whatever
    the values are.
    """
    if pa.types.is_integer(array.type) and pa.types.is_decimal(want):
        return array.cast(pa.decimal256(_MOST_DIGITS, want.scale))
    return array


def represented(array: pa.Array, hints: Sequence[pa.DataType]) -> pa.Array:
    """Return *array* in the first type of *hints* that represents the same values, if there is one.

    Such as strings in a dictionary, dates in days, or points in time with the zone that numpy lacks.
    """
    for hint in map(_without_words, hints):
        if array.type.equals(hint):
            return array
        if _keeps_the_same(array.type, hint):
            return _shaped(array, hint, "", lenient=False)
        if _has_lost_its_zone(array.type, hint):
            return array.cast(hint)
        if pa.types.is_timestamp(array.type) and pa.types.is_date64(hint):
            return array.cast(hint)
    return array


def _without_words(kind: pa.DataType) -> pa.DataType:
    """Return *kind*, or the type of the values of a dictionary that no sink keeps, as of numbers."""
    is_plain = pa.types.is_dictionary(kind) and family(kind.value_type) is None
    return kind.value_type if is_plain else kind


def _keeps_the_same(have: pa.DataType, want: pa.DataType) -> bool:
    try:
        return grown_type(want, have, "").equals(want) and not pa.types.is_null(have)
    except SchemaError:
        return False


def _has_lost_its_zone(have: pa.DataType, want: pa.DataType) -> bool:
    t = pa.types
    if not (t.is_timestamp(have) and t.is_timestamp(want)):
        return False
    return have.tz is None and want.tz is not None and have.unit == want.unit


def without_null_words(table: pa.Table) -> pa.Table:
    """Return *table* without null entries in its dictionaries, which Parquet cannot store."""
    for index, field in enumerate(table.schema):
        column = table.column(index)
        if pa.types.is_dictionary(field.type) and any(
            c.dictionary.null_count for c in column.chunks
        ):
            plain = _column(column, field.type.value_type, path=field.name, lenient=False)
            words = plain.dictionary_encode().cast(field.type)
            table = table.set_column(index, field, words)
    return table
