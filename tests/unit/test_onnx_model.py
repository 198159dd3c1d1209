"""An ONNX model of any shape, on columns of any kind: row by row what numpy computes."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

import onnx_models
from batchrunner.capabilities.onnx import Model
from batchrunner.capabilities.tensors import Tensor
from batchrunner.worker.batch import in_format


def objects(values):
    return np.fromiter(values, dtype=object, count=len(values))


@pytest.mark.parametrize("rows", ["n", 1, 4])
def test_each_row_gets_its_own_outputs_whatever_the_model_takes_at_a_time(tmp_path, rows):
    """A first axis of fixed size is filled up, and what fills it comes out nowhere."""
    model = Model(onnx_models.linear(tmp_path / "m.onnx", rows=rows))
    x = np.random.default_rng(0).normal(size=(10, 3))
    weights = np.arange(6).reshape(3, 2)

    found = model({"id": np.arange(10), "x": objects(list(x))})

    expected = x.astype(np.float32) @ weights.astype(np.float32) + 1
    assert list(found) == ["id", "x", "scores", "best"]
    assert found["id"].tolist() == list(range(10))
    assert found["scores"].dtype == np.float32
    np.testing.assert_allclose(found["scores"], expected, rtol=1e-5)
    assert found["best"].tolist() == expected.argmax(axis=1).tolist()


def test_rows_of_several_lengths_keep_their_order(tmp_path):
    """They are run in groups of one length: no row is filled up with zeros, which would count."""
    model = Model(onnx_models.total(tmp_path / "m.onnx"), inputs={"tokens": "words"})
    rows = [np.arange(length) for length in (3, 0, 7, 3, 1, 7, 0)]

    found = model({"words": objects(rows)})

    assert found["sum"].tolist() == [int(row.sum()) for row in rows]
    assert [row.tolist() for row in found["echo"]] == [row.tolist() for row in rows]


def test_columns_and_outputs_are_named_and_dropped_as_asked(tmp_path):
    """What is large and not needed does not go on."""
    path = onnx_models.linear(tmp_path / "m.onnx")
    model = Model(path, inputs={"x": "features"}, outputs={"best": "label"}, keep=["id"])

    found = model({"id": objects(["a"]), "features": np.ones((1, 3)), "other": np.zeros(1)})

    assert {name: column.tolist() for name, column in found.items()} == {"id": ["a"], "label": [1]}


@pytest.mark.parametrize(
    ("kind", "dims", "column", "expected"),
    [
        ("uint8", (2, 2), objects([b"\x00\x01\x02\xff"]), [[[0, 1], [2, 255]]]),
        ("float32", (2, 2), objects([[1, 2, 3, 4]]), [[[1.0, 2.0], [3.0, 4.0]]]),
        ("float32", (2, 2), objects([[[1, 2], [3, 4]]]), [[[1.0, 2.0], [3.0, 4.0]]]),
        ("float32", (1,), np.array([7, 8]), [[7.0], [8.0]]),
        ("float32", (), np.ma.MaskedArray([7.5, 8.5], mask=[False, False]), [7.5, 8.5]),
        ("int32", ("k",), objects([np.array([1, 2]), np.array([3])]), [[1, 2], [3]]),
        ("str", (), objects(["ä", ""]), ["ä", ""]),
        ("str", ("k",), objects([["a", "b"]]), [["a", "b"]]),
        ("float32", (), np.array([2**24 + 2, 5]), [2.0**24 + 2, 5.0]),
        ("float32", ("k",), objects([[0.1, np.inf, 3]]), [[np.float32(0.1), np.inf, 3.0]]),
        ("float64", (), np.array([True, False]), [1.0, 0.0]),
    ],
)
def test_values_reach_the_model_in_its_type_and_shape(tmp_path, kind, dims, column, expected):
    """Pixels as bytes, and lists as Parquet and JSON have them: flat, or nested."""
    model = Model(onnx_models.echo(tmp_path / "m.onnx", kind, "n", *dims), keep=[])

    found = model({"x": column})["y"]

    assert [row.tolist() if hasattr(row, "tolist") else row for row in found] == expected


FLAT = [[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]
KINDS = [
    *(pa.list_(kind()) for kind in (pa.float16, pa.float32, pa.float64, pa.int64, pa.uint8)),
    pa.large_list(pa.float32()),
    pa.list_(pa.float32(), 3),
    pa.binary(),
    pa.dictionary(pa.int8(), pa.binary()),
    pa.fixed_shape_tensor(pa.float32(), (3,)),
]


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_numbers_are_found_in_each_type_that_a_source_may_have_for_them(tmp_path, kind):
    """As the product hands them over: arrays, lists, bytes."""
    model = Model(onnx_models.echo(tmp_path / "m.onnx", "float32", "n", 3), keep=[])
    if isinstance(kind, pa.FixedShapeTensorType):
        column = pa.FixedShapeTensorArray.from_numpy_ndarray(np.array(FLAT, np.float32))
    elif pa.types.is_list(kind) or pa.types.is_large_list(kind) or hasattr(kind, "list_size"):
        column = pa.array(FLAT, pa.list_(pa.float64())).cast(kind)
    else:
        column = pa.array([bytes(map(int, row)) for row in FLAT]).cast(kind)

    found = model(in_format(pa.table({"x": column}), "numpy"))["y"]

    assert [list(map(float, row)) for row in found] == FLAT


@pytest.mark.parametrize(
    ("kind", "column", "message"),
    [
        ("float32", objects([[1.0, None]]), "column 'x' has a null"),
        ("float32", objects([None]), "column 'x' has a null"),
        ("float32", objects([["a", "b"]]), "column 'x' has a null, or no value of type float32"),
        ("float32", objects([[1.0]]), "column 'x' has a value of 1 elements; the model takes 2"),
        ("uint8", objects([[1, 256]]), "column 'x' has a value that uint8 cannot hold"),
        ("int32", objects([[1.5, 2.0]]), "column 'x' has a value that int32 cannot hold"),
        ("int64", objects([[np.nan, 2.0]]), "column 'x' has a value that int64 cannot hold"),
        ("float16", objects([[70000.0, 1.0]]), "column 'x' has a value that float16 cannot hold"),
        ("float16", np.array([[70000, 1]]), "column 'x' has a value that float16 cannot hold"),
        ("float32", np.array([[1e39, 1.0]]), "column 'x' has a value that float32 cannot hold"),
        ("float32", np.array([[2**24 + 1, 1]]), "has a value that float32 cannot hold"),
        ("float64", objects([[2**53 + 1, 1]]), "has a value that float64 cannot hold"),
        ("float64", objects([[2**53 + 1, 0.5]]), "column 'x' has an integer beside fractions"),
        ("float32", np.array([["2020", "2021"]], "datetime64[us]"), "no value of type float32"),
        ("float32", np.array([[1 + 2j, 1]]), "no value of type float32"),
        ("float32", objects([[b"1", b"2"]]), "no value of type float32"),
        ("str", objects([["a", 1]]), "column 'x' has a null, or no value of type"),
        ("str", objects([["a", None]]), "column 'x' has a null"),
        ("str", objects([[1, 2]]), "column 'x' has a null, or no value of type"),
    ],
)
def test_a_value_that_the_model_cannot_take_fails_with_its_column(tmp_path, kind, column, message):
    """Rather than as NaN, a wrapped integer or the word None."""
    model = Model(onnx_models.echo(tmp_path / "m.onnx", kind, "n", 2))

    with pytest.raises(ValueError, match=message):
        model({"x": column})


def test_texts_reach_the_model_with_all_their_characters(tmp_path):
    """Numpy's own type for text drops NULs at the end."""
    texts = ["a\0", "\0", "b\0c", ""]
    alone = Model(onnx_models.echo(tmp_path / "1.onnx", "str", "n"), keep=[])
    lists = Model(onnx_models.echo(tmp_path / "2.onnx", "str", "n", 4), keep=[])

    assert alone({"x": objects(texts)})["y"].tolist() == texts
    assert lists({"x": objects([texts])})["y"].tolist() == [texts]


def test_nulls_among_numbers_fail_instead_of_what_lies_below_them():
    """A masked array has NaN there, or anything."""
    tensor = Tensor("x", np.dtype("float32"), ())

    with pytest.raises(ValueError, match="column 'x' has a null"):
        tensor.rows({"x": np.ma.MaskedArray([1.0, 2.0], mask=[False, True])})


def test_a_wrong_name_or_batch_is_answered_with_what_there_is(tmp_path):
    """The way out is in the message."""
    path = onnx_models.linear(tmp_path / "m.onnx")

    with pytest.raises(ValueError, match=r"m.onnx has no 'pixels'; it has x$"):
        Model(path, inputs={"pixels": "image"})
    with pytest.raises(ValueError, match=r"has no 'label'; it has scores, best$"):
        Model(path, outputs={"label": "label"})
    with pytest.raises(ValueError, match=r"no column 'x', there are a, b: .*kwargs.inputs"):
        Model(path)({"a": np.ones(1), "b": np.ones(1)})
    with pytest.raises(ValueError, match=r"no column 'id', .*kwargs.keep"):
        Model(path, keep=["id"])({"x": np.ones((1, 3))})
    with pytest.raises(TypeError, match="batch_format: numpy"):
        Model(path)([{"x": [1, 2, 3]}])


def test_an_output_without_rows_is_refused(tmp_path):
    """One mean of a batch is no value of any of its rows."""
    path = onnx_models.average(tmp_path / "m.onnx")

    with pytest.raises(ValueError, match="the output 'mean' has not one value for each row"):
        Model(path)
    found = Model(path, outputs={"y": "y"})({"x": np.ones((3, 2))})

    assert found["y"].tolist() == [[1.0, 1.0]] * 3


@pytest.mark.parametrize(("width", "rows"), [((), 1), ((3,), 1), (("k",), 2)])
def test_an_output_of_fixed_length_is_refused_also_where_it_fits_by_chance(tmp_path, width, rows):
    """Two rows would get the names of two classes, each one of them."""
    path = onnx_models.classes(tmp_path / "m.onnx", width=width, classes=rows)
    batch = {"x": np.ones((rows, *(3 for _ in width)))}

    with pytest.raises(ValueError, match="the output 'labels' has not one value for each row"):
        Model(path)(batch)
    assert len(Model(path, outputs={"y": "y"})(batch)["y"]) == rows
