"""Columns as numpy arrays, and back, for `batch_format: numpy`.

A column becomes a numpy array of its type if that holds the values exactly. If not (integers with a
null among them, objects, lists with nulls in them), it becomes an array of Python objects. Floats
with nulls become a masked array, with NaN below the mask.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from batchrunner.formats.arrays import array_of
from batchrunner.formats.columns import plain_values
from batchrunner.formats.conform import represented
from batchrunner.formats.list_types import is_list
from batchrunner.formats.schema_error import SchemaError, first_line

_MOST_OFFSET = 2**31


def check_columns(table: pa.Table) -> None:
    """Check that *table* has no rows without columns: a dict of no columns would lose them.

    Raises:
        SchemaError: It has such rows.
    """
    if table.num_rows and not table.num_columns:
        raise SchemaError(
            "a row without any column, which execution.batch_format: numpy cannot hand over; use "
            "execution.batch_format: rows"
        )


def as_numpy(column: pa.ChunkedArray, name: str) -> Any:
    """Return *column* as an array of its own, which the receiver may change.

    Raises:
        SchemaError: Neither numpy's nor Python's type can hold a value.
    """
    if pa.types.is_dictionary(column.type):  # pyarrow gives the wrong word for a null
        column = column.cast(column.type.value_type)
    kind, t = column.type, pa.types
    if t.is_floating(kind) and column.null_count:
        return _masked(column)
    whole = t.is_integer(kind) or t.is_floating(kind) or t.is_boolean(kind)
    dated = t.is_timestamp(kind) or t.is_duration(kind) or t.is_date32(kind)
    if dated or (whole and not column.null_count):
        return _own(column.to_numpy())
    if _is_flat_list(column):
        return _objects([vector for chunk in column.chunks for vector in _vectors(chunk)])
    return _objects(plain_values(column, name))


def _own(array: Any) -> Any:
    return array if array.flags.writeable else array.copy()


def _masked(column: pa.ChunkedArray) -> Any:
    nulls = column.is_null().to_numpy()
    return np.ma.MaskedArray(_own(column.to_numpy()), mask=nulls)


def _is_flat_list(column: pa.ChunkedArray) -> bool:
    """Return whether the values are lists of numbers, without nulls in them."""
    if not is_list(column.type) or pa.types.is_list_view(column.type):
        return False
    inner = column.type.value_type
    numbers = pa.types.is_integer(inner) or pa.types.is_floating(inner)
    return numbers and all(chunk.flatten().null_count == 0 for chunk in column.chunks)


def _vectors(chunk: Any) -> list[Any]:
    """Return the lists of numbers in *chunk* as arrays: parts of one copy, which costs less than a copy of each."""
    numbers = _own(chunk.flatten().to_numpy(zero_copy_only=False))
    sizes = pc.list_value_length(chunk).fill_null(0).to_numpy(zero_copy_only=False)
    stops = np.cumsum(sizes).tolist()
    vectors = [numbers[start:stop] for start, stop in pairwise([0, *stops])]
    if not chunk.null_count:
        return vectors
    return [
        v if known else None for v, known in zip(vectors, chunk.is_valid().to_pylist(), strict=True)
    ]


def _objects(values: list[Any]) -> Any:
    return np.fromiter(values, dtype=object, count=len(values))


def from_numpy(array: Any, *, name: str, hints: tuple[pa.DataType, ...], lenient: bool) -> Any:
    """Return a one-dimensional numpy array as an Arrow array.

    Python objects in it are converted one by one. Points in time have no zone in numpy: they get that
    of a hint with a zone, as points in UTC.

    Raises:
        SchemaError: Its values are not of one kind.
    """
    if array.dtype.names:
        raise SchemaError(
            f"column {name!r} is a structured numpy array; return one column per field"
        )
    if not array.dtype.isnative:
        array = array.astype(array.dtype.newbyteorder("="))
    if array.dtype.kind in "OUSV":
        return array_of(array.tolist(), path=name, hints=hints, lenient=lenient)
    if array.dtype.kind in "Mm" and array.dtype.name.endswith("64"):  # no unit: nothing but NaT
        return array_of([None] * len(array), path=name, hints=hints)
    try:
        made = pa.array(array)
    except (pa.ArrowException, TypeError, ValueError) as error:
        raise SchemaError(
            f"column {name!r}: {first_line(error)}; convert it to one type that Arrow has"
        ) from error
    return represented(made, hints)


def from_vectors(array: Any, hints: tuple[pa.DataType, ...]) -> Any:
    """Return numbers of several dimensions, such as embeddings, as an Arrow array of lists, as `array_of` does.

    In a hundredth of its time, since no row is looked at. None if a hint asks for another type, or if the
    array is empty, masked, or too large for one array of Arrow's.
    """
    plain = type(array) is np.ndarray and array.dtype.kind in "biuf" and array.dtype.isnative
    if not plain or not 0 < array.size < _MOST_OFFSET:
        return None
    made = pa.array(np.ascontiguousarray(array).reshape(-1))
    for size in reversed(array.shape[1:]):
        made = pa.ListArray.from_arrays(np.arange(0, len(made) + 1, size, dtype=np.int32), made)
    return made if all(hint.equals(made.type) for hint in hints) else None
