"""Conversion of a DataFrame that a capability returns, column by column.

pandas would write NaN as null, and leave an index out. Here NaN stays NaN, except among objects, where
pandas marks missing values with it; and an index with a name becomes a column.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from batchrunner.formats.arrays import array_of
from batchrunner.formats.columns import bare_table, check_names, hints_for, plain_values
from batchrunner.formats.conform import represented
from batchrunner.formats.numpy_columns import from_numpy
from batchrunner.formats.schema_error import SchemaError, first_line


def frame_table(frame: Any, hints: Sequence[pa.Schema], *, lenient: bool) -> pa.Table:
    """Return *frame* as a table.

    Raises:
        SchemaError: A column's name is no string or not unique, or its values are of several kinds.
    """
    columns = {
        name: series_array(series, name=name, hints=hints_for(name, hints), lenient=lenient)
        for name, series in _columns(frame)
    }
    return pa.table(columns) if columns else bare_table(len(frame))


def frame_values(frame: Any) -> dict[str, list[Any]]:
    """Return the values of each column of *frame* as plain Python values.

    Raises:
        SchemaError: A column's name is no string or not unique, or Python cannot hold its values.
    """
    return {name: series_values(series, name) for name, series in _columns(frame)}


def _columns(frame: Any) -> list[tuple[str, Any]]:
    if any(name is not None for name in frame.index.names):
        check_names([*filter(None, frame.index.names), *frame.columns])
        frame = frame.reset_index()
    names = list(frame.columns)
    wrong = next((name for name in names if not isinstance(name, str)), None)
    if wrong is not None:
        raise SchemaError(f"the column {wrong!r} of a DataFrame: its name is no string: rename it")
    check_names(names)
    return [(name, frame[name]) for name in names]


def series_array(
    series: Any, *, name: str, hints: tuple[pa.DataType, ...], lenient: bool
) -> pa.Array | pa.ChunkedArray:
    """Return a pandas column as an Arrow array.

    Raises:
        SchemaError: Its values are of several kinds.
    """
    if series.dtype == object:
        return array_of(_objects(series), path=name, hints=hints, lenient=lenient)
    if type(series.dtype).__module__.partition(".")[0] == "numpy":
        return from_numpy(series.to_numpy(), name=name, hints=hints, lenient=lenient)
    try:
        array = pa.array(series)
    except (pa.ArrowException, TypeError, ValueError) as error:
        raise SchemaError(
            f"column {name!r}: {first_line(error)}; convert it to one type that Arrow has"
        ) from error
    if isinstance(array, pa.ChunkedArray):
        array = array.combine_chunks() if array.num_chunks != 1 else array.chunk(0)
    return represented(array, hints)


def series_values(series: Any, name: str) -> list[Any]:
    """Return the values of a pandas column as plain Python values.

    Raises:
        SchemaError: The values are of several kinds, or Python cannot hold them.
    """
    if series.dtype == object:
        return _objects(series)
    array = series_array(series, name=name, hints=(), lenient=False)
    return plain_values(pa.chunked_array([array]), name)


def _objects(series: Any) -> list[Any]:
    missing = series.isna()
    values: list[Any] = series.where(~missing, None).tolist() if missing.any() else series.tolist()
    return values
