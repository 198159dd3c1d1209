"""Finds columns whose layout is damaged, such as an offset beyond the values that it points into.

An IPC file says of each buffer where it is; nothing says what it should hold, and pyarrow reads past
its end without a check. So a batch is validated before its values are touched. What is wrong with a
value alone, such as bytes that are no text, is not meant here: the layout is the same for bytes.
"""

from __future__ import annotations

from functools import lru_cache

import pyarrow as pa

from batchrunner.formats.unsound import is_valid

_ANY_VALUE = {
    pa.string(): pa.binary(),
    pa.large_string(): pa.large_binary(),
    pa.string_view(): pa.binary_view(),
    pa.date64(): pa.int64(),
}


def check_layout(table: pa.Table, *, first: int) -> None:
    """Check that all buffers of *table* can be read, whatever the values in them.

    Args:
        table: A record batch.
        first: The number of its first row in the file.

    Raises:
        ValueError: They cannot.
    """
    if is_valid(table):
        return
    for name, column in zip(table.column_names, table.columns, strict=True):
        for array in column.chunks:
            try:
                array.validate()
                array.view(without_values(array.type)).validate(full=True)
            except pa.ArrowException as error:
                raise ValueError(
                    f"column {name!r} is damaged in the record batch from row {first:,}: {error}"
                ) from error


@lru_cache(256)
def without_values(kind: pa.DataType) -> pa.DataType:
    """Return a type of the layout of *kind* that takes any value."""
    t = pa.types
    if isinstance(kind, pa.BaseExtensionType):
        return without_values(kind.storage_type)
    if t.is_decimal(kind):
        return pa.binary(kind.byte_width)
    if t.is_time(kind):
        return pa.int32() if t.is_time32(kind) else pa.int64()
    return (
        _nested(kind) if t.is_nested(kind) or t.is_dictionary(kind) else _ANY_VALUE.get(kind, kind)
    )


def _nested(kind: pa.DataType) -> pa.DataType:
    t = pa.types
    if t.is_struct(kind):
        return pa.struct([field.with_type(without_values(field.type)) for field in kind])
    if t.is_map(kind):
        return pa.map_(without_values(kind.key_type), without_values(kind.item_type))
    if t.is_dictionary(kind):
        return pa.dictionary(kind.index_type, without_values(kind.value_type), kind.ordered)
    if t.is_run_end_encoded(kind):
        return pa.run_end_encoded(kind.run_end_type, without_values(kind.value_type))
    if t.is_fixed_size_list(kind):
        return pa.list_(without_values(kind.value_type), kind.list_size)
    lists = {t.is_list: pa.list_, t.is_large_list: pa.large_list}
    lists |= {t.is_list_view: pa.list_view, t.is_large_list_view: pa.large_list_view}
    made = next((make for is_kind, make in lists.items() if is_kind(kind)), None)
    return made(without_values(kind.value_type)) if made else kind
