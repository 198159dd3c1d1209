"""Columns as the inputs of a model, whose outputs are put into the order of the rows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np

from batchrunner.capabilities.batches import column_of

_EXACT = 2**53
"""Above it, not every integer is a float."""

Array = Any
Feed = dict[str, Array]


@dataclass(frozen=True, slots=True)
class Tensor:
    """One input of a model.

    Attributes:
        column: The column that it is filled from.
        dtype: The type of its elements, to which values are converted.
        dims: The size of a row along each axis; None for any size.
    """

    column: str
    dtype: np.dtype[Any]
    dims: tuple[int | None, ...]

    def rows(self, batch: Mapping[str, Array]) -> Array:
        """Return the values of the column in *batch*, each as an array of this type and these dims.

        They come as one array if the column is one. Bytes are taken as numbers from 0 to 255. A flat value
        that has as many elements as the dims say gets these dims.

        Raises:
            TypeError: The batch is no dict of columns.
            ValueError: It has no such column, or a value is null or does not fit.
        """
        column = column_of(batch, self.column, way_out="inputs")
        if isinstance(column, np.ndarray) and column.dtype != object:
            return self._shaped(self._converted(column), axes=1)
        return [self._shaped(self._converted(self._array(value)), axes=0) for value in column]

    def empty(self, rows: int) -> Array:
        """Return values for *rows* rows, all zero or empty. Only if no dim is None."""
        shape = (rows, *(dim or 0 for dim in self.dims))
        return np.full(shape, "" if self.dtype == object else 0, self.dtype)

    def _converted(self, values: Array) -> Array:
        if np.ma.is_masked(values) or not self._takes(values):
            raise ValueError(f"column {self.column!r} has a null, or no value of type {self.dtype}")
        values = np.asarray(values)
        with np.errstate(invalid="ignore", over="ignore"):  # what it cannot hold: refused below
            made = values.astype(self.dtype, copy=False)
            is_held = self.dtype == object or _holds(made, values)
        if not is_held:
            raise ValueError(f"column {self.column!r} has a value that {self.dtype} cannot hold")
        return made

    def _array(self, value: Any) -> Array:
        if isinstance(value, bytes):
            return np.frombuffer(value, np.uint8)
        made = np.asarray(value)
        if (
            made.dtype.kind == "U"
        ):  # without the NULs at the end of a text, and with numbers as text
            return np.array(value, object)
        if (
            made.dtype.kind == "f"
            and not isinstance(value, np.ndarray)
            and np.any(abs(made) >= _EXACT)
        ):
            pairs = zip(np.array(value, object).flat, made.ravel().tolist(), strict=True)
            if any(isinstance(one, int) and one != found for one, found in pairs):
                raise ValueError(
                    f"column {self.column!r} has an integer beside fractions that no float holds"
                )
        return made

    def _takes(self, values: Array) -> bool:
        """Return whether *values* are all strings, or all numbers, as the model takes them."""
        if self.dtype != object:
            return values.dtype.kind in "biuf"
        is_text = values.dtype == object and all(isinstance(value, str) for value in values.flat)
        return is_text or not values.size

    def _shaped(self, values: Array, *, axes: int) -> Array:
        """Return *values* with these dims after the first *axes*, which count rows."""
        rows, shape = values.shape[:axes], values.shape[axes:]
        if (
            len(shape) != len(self.dims)
            and None not in self.dims
            and prod(shape) == prod(d or 0 for d in self.dims)
        ):
            return values.reshape(*rows, *self.dims)
        if len(shape) != len(self.dims) or any(
            dim not in (None, size) for dim, size in zip(self.dims, shape, strict=True)
        ):
            raise ValueError(
                f"column {self.column!r} has a value of {_times(shape)} elements; the model takes "
                f"{_times(self.dims)}"
            )
        return values


def _holds(made: Array, values: Array) -> bool:
    """Return whether *made* are the numbers *values* in another type: of fractions, to its precision."""
    if made.dtype.kind != "f":
        return np.array_equal(made, values)
    if values.dtype.kind == "f":
        return np.array_equal(np.isfinite(made), np.isfinite(values))
    return np.array_equal(made.astype(values.dtype), values)


def _times(sizes: Sequence[int | None]) -> str:
    return " x ".join("any" if size is None else str(size) for size in sizes) or "1"


def of_one_shape(columns: Mapping[str, Sequence[Array]]) -> Iterator[tuple[list[int], Feed]]:
    """Yield the rows of *columns* in groups of one shape: their indices, and an array for each column."""
    rows = range(len(next(iter(columns.values()))))
    if all(isinstance(column, np.ndarray) for column in columns.values()):
        yield list(rows), dict(columns)
        return
    groups: dict[Any, list[int]] = {}
    for index in rows:
        shapes = tuple(column[index].shape for column in columns.values())
        groups.setdefault(shapes, []).append(index)
    for indices in groups.values():
        yield indices, {name: np.stack([c[i] for i in indices]) for name, c in columns.items()}


def in_order(groups: Sequence[tuple[list[int], Sequence[Any]]]) -> Any:
    """Return the values of all rows in the order of their indices: as an array, if they have one shape."""
    if len(groups) == 1:
        return groups[0][1]
    by_index = {i: v for indices, values in groups for i, v in zip(indices, values, strict=True)}
    values = [by_index[index] for index in range(len(by_index))]
    return np.stack(values) if len({np.shape(value) for value in values}) == 1 else values
