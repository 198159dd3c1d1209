"""Small ONNX models, made here by onnx's own helper."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

TYPES = {
    "float16": TensorProto.FLOAT16,
    "float32": TensorProto.FLOAT,
    "float64": TensorProto.DOUBLE,
    "int64": TensorProto.INT64,
    "int32": TensorProto.INT32,
    "uint8": TensorProto.UINT8,
    "str": TensorProto.STRING,
}


def value(name, kind, *dims):
    return helper.make_tensor_value_info(name, TYPES[kind], list(dims))


def saved(path, nodes, inputs, outputs, **weights):
    """Write a model into *path*; return it as text, as a spec names it."""
    graph = helper.make_graph(
        nodes,
        "made-for-a-test",
        inputs,
        outputs,
        [numpy_helper.from_array(np.asarray(array), name) for name, array in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 9
    onnx.checker.check_model(model)
    onnx.save(model, str(path))
    return str(path)


def linear(path, *, rows="n", width=3, classes=2):
    """Scores of *classes*, and the number of the best: x @ W + 1."""
    weights = np.arange(width * classes, dtype=np.float32).reshape(width, classes)
    return saved(
        path,
        [
            helper.make_node("MatMul", ["x", "W"], ["product"]),
            helper.make_node("Add", ["product", "one"], ["scores"]),
            helper.make_node("ArgMax", ["scores"], ["best"], axis=1, keepdims=0),
        ],
        [value("x", "float32", rows, width)],
        [value("scores", "float32", rows, classes), value("best", "int64", rows)],
        W=weights,
        one=np.ones(1, np.float32),
    )


def total(path, *, kind="int64"):
    """The sum of a row of any length, and the row itself."""
    return saved(
        path,
        [
            helper.make_node("ReduceSum", ["tokens", "axis"], ["sum"], keepdims=0),
            helper.make_node("Identity", ["tokens"], ["echo"]),
        ],
        [value("tokens", kind, "n", "length")],
        [value("sum", kind, "n"), value("echo", kind, "n", "length")],
        axis=np.array([1]),
    )


def echo(path, kind, *dims):
    """What it is given."""
    return saved(
        path,
        [helper.make_node("Identity", ["x"], ["y"])],
        [value("x", kind, *dims)],
        [value("y", kind, *dims)],
    )


def average(path):
    """One number for all rows together, which no row can have, beside one for each."""
    return saved(
        path,
        [
            helper.make_node("ReduceMean", ["x"], ["mean"], keepdims=0),
            helper.make_node("Identity", ["x"], ["y"]),
        ],
        [value("x", "float32", "n", 2)],
        [value("mean", "float32"), value("y", "float32", "n", 2)],
    )


def classes(path, *, width, classes):
    """What it is given, and beside it the same *labels* whatever that is: no shape says how many."""
    return saved(
        path,
        [
            helper.make_node("Identity", ["x"], ["y"]),
            helper.make_node("Identity", ["names"], ["labels"]),
        ],
        [value("x", "float32", "n", *width)],
        [value("y", "float32", "n", *width), value("labels", "int64", "k")],
        names=np.arange(classes),
    )


def wide(path, *, width):
    """The largest of *width* copies of a number: a small value whose call takes much memory."""
    return saved(
        path,
        [
            helper.make_node("Tile", ["x", "times"], ["copies"]),
            helper.make_node("ReduceMax", ["copies"], ["most"], axes=[1], keepdims=0),
        ],
        [value("x", "float32", "n", 1)],
        [value("most", "float32", "n")],
        times=np.array([1, width]),
    )
