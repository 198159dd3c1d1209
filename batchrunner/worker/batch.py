"""Batches: the rows of chunks, regrouped and converted to the format that the capability takes."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from batchrunner.formats.chunk import Absent, Chunk, Position, Row, Segment, Shape

if TYPE_CHECKING:
    import pyarrow as pa


MAX_BATCH_BYTES = 24 << 20
"""The most bytes of the source in one batch, and in all batches of one queue. A worker may use 256
MiB beside the model. It holds this much in the batch that it collects, in the queue before the
calls and in the calls, each time as bytes and as objects, and this much output in the queue before
the writer."""


@dataclass(frozen=True, slots=True)
class InputTypes:
    """The types that a batch's columns have before the capability is called.

    Attributes:
        schemas: Schemas with types for the columns; an earlier one takes precedence.
        absent: By column, whether a null in the table that the capability gets means an absent key.
        inferred: The schema of that table if its types were inferred from values alone; else None.
    """

    schemas: tuple[pa.Schema, ...] = ()
    absent: Absent = field(default_factory=dict)
    inferred: pa.Schema | None = None


@dataclass(frozen=True, slots=True)
class Batch:
    """Neighbouring rows of one slice.

    Attributes:
        number: Which slice of its shard the rows are from, from 0.
        pieces: The rows, as (chunk, start, stop).
        input_types: The types of the columns.
        is_retry: Whether to read the rows from the chunk again: an earlier call may have changed
            them.
        nbytes: About how many bytes of the source the rows take; 0 if cut out of another batch.
    """

    pieces: tuple[tuple[Chunk, int, int], ...]
    number: int = 0
    input_types: InputTypes = field(default_factory=InputTypes)
    is_retry: bool = False
    nbytes: int = 0

    def __len__(self) -> int:
        return sum(stop - start for _, start, stop in self.pieces)

    def rows(self) -> list[Row]:
        if len(self.pieces) == 1 and not self.is_retry:
            chunk, start, stop = self.pieces[0]
            return chunk.rows(start, stop)
        segments = (
            (c.reread if self.is_retry else c.rows)(start, stop) for c, start, stop in self.pieces
        )
        return [row for segment in segments for row in segment]

    def halves(self) -> tuple[Batch, Batch]:
        """Return the first and the second half of the rows, read from the source again."""
        middle = len(self) // 2
        return self._slice(0, middle), self._slice(middle, len(self))

    def singles(self) -> Iterator[Batch]:
        """Yield the rows one by one, read from the source again."""
        for index in range(len(self)):
            yield self._slice(index, index + 1)

    def samples(self, count: int) -> Iterator[Batch]:
        """Yield *count* rows of this batch as batches of one row, the same rows each time.

        They are chosen at random: if every second row is bad, or the first and the last, the sample
        must not suggest that all are. A single sample is the first row.
        """
        rows = range(len(self))
        sample = random.Random(0).sample(rows, count) if count > 1 else rows[:count]  # noqa: S311 - no secret
        for index in sorted(sample):
            yield self._slice(index, index + 1)

    def retry(self) -> Batch:
        """Return the same rows, read from the source again."""
        return replace(self, is_retry=True)

    def position(self) -> Position:
        """Return the position of the first row in the source."""
        chunk, start, _ = self.pieces[0]
        return chunk.locate(start)

    def _slice(self, first: int, last: int) -> Batch:
        pieces = []
        for chunk, start, stop in self.pieces:
            a, b = max(first, 0), min(last, stop - start)
            if a < b:
                pieces.append((chunk, start + a, start + b))
            first, last = first - (stop - start), last - (stop - start)
        return Batch(tuple(pieces), self.number, self.input_types, is_retry=True)

    def table(self) -> pa.Table:
        """Return the rows as a table. Only for batches made with `by_shape`.

        Raises:
            SchemaError: No Arrow type holds one of the values.
        """
        from batchrunner.formats.columns import joined

        return joined([chunk.table(start, stop) for chunk, start, stop in self.pieces])

    def in_format(self, batch_format: str) -> Any:
        """Return the rows as `rows`, `pyarrow`, `pandas` or `numpy`; the caller may change them."""
        return self.rows() if batch_format == "rows" else in_format(self.table(), batch_format)


def in_format(table: pa.Table, batch_format: str) -> Any:
    """Return *table* as `pyarrow`, `pandas` or `numpy`; the caller may change it.

    Raises:
        SchemaError: The format cannot hold one of the values.
    """
    if batch_format == "pyarrow":
        return table
    if batch_format == "pandas":
        import pandas as pd

        # As in Ray Data: each column has its Arrow type, and a former index is a plain column.
        return table.to_pandas(types_mapper=pd.ArrowDtype, ignore_metadata=True)
    from batchrunner.formats.numpy_columns import as_numpy, check_columns

    check_columns(table)
    return {name: as_numpy(table.column(name), name) for name in table.column_names}


def batches(
    chunks: Iterable[Chunk], size: int, *, by_shape: bool, number: int = 0
) -> Iterator[Batch]:
    """Regroup *chunks* of slice *number* into batches of *size* rows.

    The last batch may be smaller, and so may batches of large rows: none holds much more than
    `MAX_BATCH_BYTES` of the source, or half of that if tables are made from JSON. With *by_shape*,
    a batch also ends where one table could not hold its rows and the next ones.
    """
    collected = _Collected(number)
    for chunk in chunks:
        # Rows of JSON that go into a table also take memory as objects.
        most = MAX_BATCH_BYTES // 2 if by_shape and chunk.types is None else MAX_BATCH_BYTES
        for segment in chunk.segments() if by_shape else (Segment(0, len(chunk), None),):
            if collected.rows and by_shape and not collected.goes_on_with(segment):
                yield collected.batch()
                collected = _Collected(number)
            start = segment.start
            while start < segment.stop:
                start = collected.take(
                    chunk, segment, start, min(start + size - collected.rows, segment.stop)
                )
                if collected.rows == size or collected.bytes >= most:
                    yield collected.batch()
                    collected = _Collected(number)
    if collected.rows:
        yield collected.batch()


@dataclass(slots=True)
class _Collected:
    """The rows collected for the next batch."""

    number: int
    pieces: list[tuple[Chunk, int, int]] = field(default_factory=list)
    shape: Shape | None = None
    rows: int = 0
    bytes: int = 0

    def goes_on_with(self, segment: Segment) -> bool:
        return segment.shape is not None and segment.shape == self.shape

    def take(self, chunk: Chunk, segment: Segment, start: int, stop: int) -> int:
        """Add rows *start* to *stop* of *chunk*; return *stop*."""
        self.pieces.append((chunk, start, stop))
        self.shape = segment.shape
        self.rows += stop - start
        self.bytes += chunk.nbytes * (stop - start) // len(chunk)
        return stop

    def batch(self) -> Batch:
        return Batch(tuple(self.pieces), self.number, self._input_types(), nbytes=self.bytes)

    def _input_types(self) -> InputTypes:
        if self.shape is None:
            types = self.pieces[0][0].types
            return InputTypes(() if types is None else (types,))
        types = self.shape.schema
        return InputTypes((types,), self.shape.absent, types if self.shape.is_inferred else None)
