"""Vectors as one array of numpy's become the lists that the same vectors, one by one, become."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from batchrunner.formats.arrays import array_of
from batchrunner.formats.numpy_columns import as_numpy, from_vectors

NUMBERS = np.array([[0, 1, 2], [250, 4, 5], [6, 7, 8], [1, 0, 1]])


@pytest.mark.parametrize(
    "kind", ["float16", "float32", "float64", "int8", "uint8", "int32", "int64", "uint64", "bool"]
)
@pytest.mark.parametrize("shape", [(4, 3), (2, 6), (2, 2, 3), (1, 2, 3, 2)])
def test_vectors_of_any_kind_and_shape_are_the_same_lists(kind, shape):
    """In type and value: the part of a run that goes on is to be the same."""
    array = NUMBERS.astype(kind).reshape(shape)

    made = from_vectors(array, ())

    expected = array_of(list(array), path="v")
    assert made.type.equals(expected.type)
    assert made.equals(expected)


@pytest.mark.parametrize(
    "array",
    [
        np.asfortranarray(NUMBERS, dtype=np.float32),
        NUMBERS.astype(np.float64).T,
        NUMBERS.astype(np.float32)[::2, ::2],
        np.array([[np.nan, -0.0], [np.inf, 1e-45]], np.float32),
    ],
)
def test_values_stay_what_they_are_wherever_they_lie_in_memory(array):
    """To the bit, also where rows do not lie one behind the other."""
    made = from_vectors(array, ())

    found = np.array(made.to_pylist(), array.dtype)
    assert found.tobytes() == np.ascontiguousarray(array).tobytes()


@pytest.mark.parametrize(
    ("array", "hints"),
    [
        (NUMBERS.astype(np.float32), (pa.list_(pa.float64()),)),
        (NUMBERS, (pa.list_(pa.int8()),)),
        (NUMBERS.astype(">f4"), ()),
        (np.ma.MaskedArray(NUMBERS, mask=NUMBERS > 6), ()),
        (np.zeros((3, 0)), ()),
        (NUMBERS.astype(object), ()),
        (NUMBERS.astype("datetime64[s]"), ()),
    ],
)
def test_what_needs_a_look_at_each_value_gets_it(array, hints):
    """Other types of the sink, nulls, and what is no number."""
    assert from_vectors(array, hints) is None
    assert from_vectors(NUMBERS, (pa.list_(pa.int64()),)) is not None


@pytest.mark.parametrize(
    "kind", [pa.list_(pa.int32()), pa.large_list(pa.float64()), pa.list_(pa.int64(), 2)], ids=str
)
@pytest.mark.parametrize("absent", [None, [0, 0]], ids=["a null", "no null"])
@pytest.mark.parametrize("chunks", [1, 2])
def test_lists_of_numbers_are_arrays_that_can_be_changed_one_by_one(kind, absent, chunks):
    """Those that were views of Arrow's memory could not; and a null made numbers of a fixed size floats."""
    values = [[9, 9], [1, 2], absent, [3, 4], [5, 6], [9, 9]]
    column = pa.chunked_array([pa.array(values, kind)] * chunks).slice(1, 6 * chunks - 2)
    lists = column.to_pylist()
    number = kind.value_type.to_pandas_dtype()
    expected = [one and (np.dtype(number), one) for one in lists]

    cells = as_numpy(column, "v")
    assert [v if v is None else (v.dtype, v.tolist()) for v in cells] == expected
    cells[0][0] = 7
    cells[-1][:] = 8

    found = [v if v is None else v.tolist() for v in cells]
    assert found == [[7, 2], *lists[1:-1], [8, 8]]
    assert column.to_pylist() == lists
