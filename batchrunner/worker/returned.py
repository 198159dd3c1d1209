"""Converts what a capability returned for the sink: into bytes or into a table."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from batchrunner.formats.chunk import Row
from batchrunner.worker.batch import InputTypes
from batchrunner.worker.returned_checks import (
    check_lengths,
    check_polars,
    check_rows,
    checked_column,
    is_dataframe,
    module_of,
    no_batch,
    own_table,
)

if TYPE_CHECKING:
    import pyarrow as pa

Encode = Callable[[Sequence[Row]], bytes]
EncodeTable = Callable[["pa.Table"], bytes | None]


def to_bytes(
    returned: Any,
    input_types: InputTypes,
    *,
    encode: Encode,
    encode_table: EncodeTable = lambda _: None,
) -> tuple[bytes, int]:
    """Return the rows in *returned*, encoded by *encode*, and their number.

    A table whose nulls are values is first left to *encode_table*, which may return None.

    Raises:
        TypeError: *returned* has a type that is no batch, or *encode* does not return bytes.
        ValueError: A row cannot be written exactly, or columns differ in length.
    """
    if module_of(returned) == "pyarrow" and not input_types.absent:
        returned = _table(returned, ())  # once: a reader of batches gives its rows only once
        if (lines := encode_table(returned)) is not None:
            return lines, returned.num_rows
    rows = to_rows(returned, input_types)
    data = encode(rows) if rows else b""
    if not isinstance(data, bytes):
        name = getattr(encode, "__qualname__", "encode")
        raise TypeError(f"{name} returned {type(data).__name__}; it must return bytes")
    return data, len(rows)


def to_table(
    returned: Any, input_types: InputTypes, *, lenient: bool = False
) -> tuple[pa.Table, int]:
    """Return the rows in *returned* as a table, and their number.

    Args:
        returned: What the capability returned.
        input_types: Types of the rows that the capability got; columns that it passes on keep them.
        lenient: Whether the spec declares the types: numbers are then converted to them, if exact.

    Raises:
        TypeError: *returned* has a type that is no batch.
        ValueError: A column mixes kinds of values, or columns differ in length.
    """
    table = _table(returned, input_types.hints, lenient=lenient)
    if input_types.inferred is not None and table.num_rows:
        from batchrunner.formats.shapes import without_guesses

        table = without_guesses(table, input_types.inferred)
    return table, table.num_rows


def to_rows(returned: Any, input_types: InputTypes) -> Sequence[Row]:
    """Return the rows in *returned* as dicts with plain Python values.

    Raises:
        TypeError: *returned* has a type that is no batch.
        ValueError: Columns differ in length, or Python cannot hold a value.
    """
    from batchrunner.formats.shapes import without_absent

    if isinstance(returned, list):
        return returned
    if isinstance(returned, Mapping):
        columns = {
            name: _column_values(name, column, input_types.hints)
            for name, column in returned.items()
        }
        return without_absent(_as_rows(columns), input_types.absent)
    if is_dataframe(returned):
        from batchrunner.formats.pandas_columns import frame_values

        return without_absent(_as_rows(frame_values(returned), len(returned)), input_types.absent)
    from batchrunner.formats.columns import table_to_rows

    return without_absent(table_to_rows(_table(returned, ())), input_types.absent)


def _as_rows(columns: Mapping[str, Sequence[Any]], rows: int = 0) -> list[Row]:
    check_lengths({name: len(column) for name, column in columns.items()})
    if not columns:
        return [{} for _ in range(rows)]
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def _table(returned: Any, hints: Sequence[pa.Schema], *, lenient: bool = False) -> pa.Table:
    from batchrunner.formats.columns import rows_to_table

    if isinstance(returned, list):
        check_rows(returned)
        return rows_to_table(returned, hints=hints, lenient=lenient)
    if (own := own_table(returned)) is not None:
        return own
    if isinstance(returned, Mapping):
        return _columns_table(returned, hints, lenient=lenient)
    if is_dataframe(returned):
        from batchrunner.formats.pandas_columns import frame_table

        return frame_table(returned, hints, lenient=lenient)
    check_polars(returned)
    if hasattr(returned, "__arrow_c_stream__"):  # a table of polars or DuckDB
        return _of_another_library(returned, hints)
    raise no_batch(returned)


def _columns_table(
    columns: Mapping[str, Any], hints: Sequence[pa.Schema], *, lenient: bool
) -> pa.Table:
    import pyarrow as pa

    from batchrunner.formats.columns import bare_table, hints_for

    arrays = {
        name: _array(name, checked_column(name, column), hints_for(name, hints), lenient=lenient)
        for name, column in columns.items()
    }
    check_lengths({name: len(array) for name, array in arrays.items()})
    return pa.table(arrays) if arrays else bare_table(0)


def _array(name: str, column: Any, hints: tuple[pa.DataType, ...], *, lenient: bool) -> Any:
    from batchrunner.formats.arrays import array_of
    from batchrunner.formats.numpy_columns import from_numpy, from_vectors

    module = module_of(column)
    if module == "numpy" and column.ndim == 1:
        return from_numpy(column, name=name, hints=hints, lenient=lenient)
    if module == "numpy" and (vectors := from_vectors(column, hints)) is not None:
        return vectors
    if module == "pandas":
        from batchrunner.formats.pandas_columns import series_array

        return series_array(column, name=name, hints=hints, lenient=lenient)
    if hasattr(column, "__arrow_c_stream__"):
        return _arrow(column)
    if hasattr(column, "__arrow_c_array__"):
        return column
    return array_of(list(column), path=name, hints=hints, lenient=lenient)


def _of_another_library(returned: Any, hints: Sequence[pa.Schema]) -> pa.Table:
    """Return a table read through Arrow's C interface, with string views as plain strings."""
    import pyarrow as pa

    from batchrunner.formats.columns import hints_for
    from batchrunner.formats.conform import represented
    from batchrunner.formats.parquet_types import without_views

    table = pa.table(returned)
    for index, field in enumerate(table.schema):
        column = without_views(table.column(index))
        chunks = [represented(chunk, hints_for(field.name, hints)) for chunk in column.chunks]
        column = pa.chunked_array(chunks) if chunks else column
        table = table.set_column(index, pa.field(field.name, column.type), column)
    return table


def _arrow(column: Any) -> Any:
    import pyarrow as pa

    return column if isinstance(column, pa.ChunkedArray) else pa.chunked_array(column)


def _column_values(name: Any, column: Any, types: Sequence[pa.Schema]) -> Sequence[Any]:
    """Return the values of a column as Python objects.

    Times in numpy get the time zone that *types* have for the column, since numpy has none.
    """
    column = checked_column(name, column)
    if isinstance(column, list | tuple):
        return column
    if module_of(column) == "numpy" and column.dtype.kind not in "MmV":
        values: list[Any] = column.tolist()
        return values
    return _exact_values(name, column, types)


def _exact_values(name: str, column: Any, types: Sequence[pa.Schema]) -> list[Any]:
    from batchrunner.formats.columns import hints_for, plain_values

    if getattr(column, "ndim", 1) > 1:
        return list(column)
    if module_of(column) == "pandas":
        from batchrunner.formats.pandas_columns import series_values

        return series_values(column, name)
    hints = hints_for(name, types) if module_of(column) == "numpy" else ()
    array = _array(name, column, hints, lenient=False)
    return plain_values(array if hasattr(array, "chunks") else _chunked(array), name)


def _chunked(array: Any) -> Any:
    import pyarrow as pa

    return pa.chunked_array([array])
