"""A model in an ONNX file, run by onnxruntime on a GPU or on CPUs. `pip install 'batchrunner[onnx]'`."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from batchrunner.capabilities.batches import kept
from batchrunner.capabilities.devices import loading, note_device
from batchrunner.capabilities.extras import extra
from batchrunner.capabilities.files import local_copy
from batchrunner.capabilities.tensors import Feed, Tensor, in_order, of_one_shape

_FASTEST_FIRST = ("CUDAExecutionProvider", "CPUExecutionProvider")
_TYPES = {"float": "float32", "double": "float64", "string": "object"}


class Model:
    """Runs an ONNX model on columns; for `batch_format: numpy` and `one_to_one: true`.

    Each input is filled from a column, and each output becomes one, beside the columns of the source. Rows
    of different sizes are run in groups of one size. A model whose first axis has a fixed size is called
    with so many rows, and its last call is filled up.
    """

    def __init__(
        self,
        model: str,
        *,
        inputs: Mapping[str, str] | None = None,
        outputs: Mapping[str, str] | None = None,
        keep: Sequence[str] | None = None,
        providers: Sequence[Any] | None = None,
    ) -> None:
        """Load the file *model*, and run it once, so that no row waits for what it compiles.

        Args:
            model: The file: a path, or s3://….
            inputs: By input of the model, the column that it takes; others take that of their own name.
            outputs: By output of the model, the column that it becomes; by default all, each under its name.
            keep: The columns of the source that are returned, too; by default all.
            providers: What onnxruntime runs on, first choice first; by default a GPU if there is one.

        Raises:
            CapabilityImportError: onnxruntime is not installed, or memory does not hold the model.
            ValueError: The model has no such input or output.
        """
        self._session = _session(model, providers)
        nodes, made = self._session.get_inputs(), [o.name for o in self._session.get_outputs()]
        _check(model, inputs or {}, [node.name for node in nodes])
        _check(model, outputs or {}, made)
        self._tensors = {node.name: _tensor(node, inputs or {}) for node in nodes}
        self._outputs = dict(outputs or zip(made, made, strict=True))
        fixed = [node.shape[0] for node in nodes if node.shape and isinstance(node.shape[0], int)]
        self._rows, self._keep = min(fixed, default=None), keep
        self._is_per_row = self._rows is not None  # one that takes no other number cannot be asked
        if all(None not in tensor.dims for tensor in self._tensors.values()):
            self._run({n: tensor.empty(1) for n, tensor in self._tensors.items()}, rows=1)

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Return the columns of *batch* and the outputs for each of its rows.

        Raises:
            ValueError: A column is missing, a value does not fit its input, or an output has not one value
                for each row.
        """
        columns = {name: tensor.rows(batch) for name, tensor in self._tensors.items()}
        runs = [(rows, self._run(feed, rows=len(rows))) for rows, feed in of_one_shape(columns)]
        result = kept(batch, self._keep)
        for number, column in enumerate(self._outputs.values()):
            result[column] = in_order([(rows, outputs[number]) for rows, outputs in runs])
        return result

    def _run(self, feed: Feed, *, rows: int) -> list[Any]:
        """Return each output for *rows* rows, in as many calls as the model's fixed size needs."""
        size = self._rows or rows
        calls = [self._run_once(feed, first, size) for first in range(0, rows, size)]
        if not self._is_per_row:
            self._run_with_another(feed, size + 1)
            self._is_per_row = True
        return [_joined(parts)[:rows] for parts in zip(*calls, strict=True)]

    def _run_with_another(self, feed: Feed, size: int) -> None:
        """Run once more, with another number of rows: an output of fixed length may fit the first by chance."""
        try:
            outputs = self._outputs_for(feed, 0, size)
        except Exception:  # noqa: BLE001 - the model, or the memory, takes no other number
            return
        self._check_rows(outputs, size)

    def _run_once(self, feed: Feed, first: int, size: int) -> list[Any]:
        outputs = self._outputs_for(feed, first, size)
        self._check_rows(outputs, size)
        return outputs

    def _outputs_for(self, feed: Feed, first: int, size: int) -> list[Any]:
        cut = {name: _cut(values, first, size) for name, values in feed.items()}
        outputs: list[Any] = self._session.run(list(self._outputs), cut)
        return outputs

    def _check_rows(self, outputs: Sequence[Any], size: int) -> None:
        for name, output in zip(self._outputs, outputs, strict=True):
            if np.ndim(output) == 0 or len(output) != size:
                raise ValueError(
                    f"the output {name!r} has not one value for each row: name those that have, as in "
                    "fn_constructor_kwargs: {outputs: {logits: scores}}"
                )


def _session(model: str, providers: Sequence[Any] | None) -> Any:
    with extra("onnx"):
        import onnxruntime
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = int(os.environ.get("OMP_NUM_THREADS") or 0)  # Ray sets it
    there = onnxruntime.get_available_providers()
    chosen = list(providers or [name for name in _FASTEST_FIRST if name in there])
    with loading(model):
        session = onnxruntime.InferenceSession(local_copy(model), options, providers=chosen)
    note_device(model, session.get_providers()[0])
    return session


def _check(model: str, named: Iterable[str], there: Sequence[str]) -> None:
    for name in named:
        if name not in there:
            raise ValueError(f"{model} has no {name!r}; it has {', '.join(there)}")


def _tensor(node: Any, inputs: Mapping[str, str]) -> Tensor:
    kind = node.type.removeprefix("tensor(").removesuffix(")")
    dims = tuple(size if isinstance(size, int) else None for size in node.shape[1:])
    return Tensor(inputs.get(node.name, node.name), np.dtype(_TYPES.get(kind, kind)), dims)


def _cut(values: Any, first: int, size: int) -> Any:
    """Return *size* rows of *values* from *first* on, the last of them again and again if it has no more."""
    if size == len(values):
        return values
    return values[np.minimum(np.arange(first, first + size), len(values) - 1)]


def _joined(parts: Sequence[Any]) -> Any:
    if isinstance(parts[0], np.ndarray):
        return np.concatenate(parts) if len(parts) > 1 else parts[0]
    return [value for part in parts for value in part]  # a sequence, such as a map for each row
