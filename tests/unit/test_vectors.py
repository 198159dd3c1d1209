"""Vectors as one array of numpy's become the lists that the same vectors, one by one, become."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from batchrunner.formats.arrays import array_of
from batchrunner.formats.numpy_columns import from_vectors

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
