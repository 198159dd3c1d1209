"""Batches: rows regrouped from chunks, in the shape that the capability wants."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from batchrunner.formats.chunk import Absent, Chunk, Position, Row, Segment, Shape

if TYPE_CHECKING:
    import pyarrow as pa


MAX_BATCH_BYTES = 24 << 20
"""Of the source. A worker holds 256 MiB beside the model: such a batch at most is being put
together, waits, and is in a call, each as bytes and as objects; and as much returned is on its way
into the part."""


@dataclass(frozen=True, slots=True)
class Given:
    """What is known of the rows of a batch before the capability has seen them.

    Attributes:
        types: Schemas with types that their columns have, those that count most first.
        absent: What nulls mean in the table that they were handed over as.
        inferred: The types in that table that nothing but values say.
    """

    types: tuple[pa.Schema, ...] = ()
    absent: Absent = field(default_factory=dict)
    inferred: pa.Schema | None = None


@dataclass(frozen=True, slots=True)
class Batch:
    """Neighbouring rows of one shard.

    Attributes:
        pieces: (chunk, start, stop) of some rows each.
        given: What is known of them.
        again: The rows were handed out before, and may have been changed since.
        nbytes: About how many bytes of the source they are; 0 for those of another batch.
    """

    pieces: tuple[tuple[Chunk, int, int], ...]
    given: Given = field(default_factory=Given)
    again: bool = False
    nbytes: int = 0

    def __len__(self) -> int:
        return sum(stop - start for _, start, stop in self.pieces)

    def rows(self) -> list[Row]:
        if len(self.pieces) == 1 and not self.again:
            chunk, start, stop = self.pieces[0]
            return chunk.rows(start, stop)
        segments = (
            (c.reread if self.again else c.rows)(start, stop) for c, start, stop in self.pieces
        )
        return [row for segment in segments for row in segment]

    def halves(self) -> tuple[Batch, Batch]:
        """Return the first and the second half of the rows, as they stand in the source."""
        middle = len(self) // 2
        return self._slice(0, middle), self._slice(middle, len(self))

    def singles(self) -> Iterator[Batch]:
        """Yield the rows one by one, as they stand in the source."""
        for index in range(len(self)):
            yield self._slice(index, index + 1)

    def samples(self, count: int) -> Iterator[Batch]:
        """Yield *count* of the rows, from all over them; the same ones each time. The first, of one.

        At random: what is wrong with every second row, or with the first and the last, is not
        taken for what is wrong with all.
        """
        rows = range(len(self))
        picked = random.Random(0).sample(rows, count) if count > 1 else rows[:count]  # noqa: S311 - no secret
        for index in sorted(picked):
            yield self._slice(index, index + 1)

    def once_more(self) -> Batch:
        """Return the same rows, as they stand in the source."""
        return replace(self, again=True)

    def position(self) -> Position:
        """Tell where the first row stands."""
        chunk, start, _ = self.pieces[0]
        return chunk.locate(start)

    def _slice(self, first: int, last: int) -> Batch:
        pieces = []
        for chunk, start, stop in self.pieces:
            a, b = max(first, 0), min(last, stop - start)
            if a < b:
                pieces.append((chunk, start + a, start + b))
            first, last = first - (stop - start), last - (stop - start)
        return Batch(tuple(pieces), self.given, again=True)

    def table(self) -> pa.Table:
        """Return the rows as a table; only of a batch of one shape.

        Raises:
            SchemaError: There is none that holds the row.
        """
        from batchrunner.formats.columns import joined

        return joined([chunk.table(start, stop) for chunk, start, stop in self.pieces])

    def in_format(self, batch_format: str) -> Any:
        """Return the rows as `rows`, `pyarrow`, `pandas` or `numpy`; the receiver may change them."""
        return self.rows() if batch_format == "rows" else in_format(self.table(), batch_format)


def in_format(table: pa.Table, batch_format: str) -> Any:
    """Return *table* as `pyarrow`, `pandas` or `numpy`; the receiver may change it.

    Raises:
        SchemaError: A value is more than the format can hold.
    """
    if batch_format == "pyarrow":
        return table
    if batch_format == "pandas":
        import pandas as pd

        # As Ray Data: each column in Arrow's own type, and what was an index is a column, too.
        return table.to_pandas(types_mapper=pd.ArrowDtype, ignore_metadata=True)
    from batchrunner.formats.numpy_columns import as_numpy, check_columns

    check_columns(table)
    return {name: as_numpy(table.column(name), name) for name in table.column_names}


def batches(chunks: Iterable[Chunk], size: int, *, by_shape: bool) -> Iterator[Batch]:
    """Regroup *chunks* into batches of *size* rows.

    The last one may be smaller, and so may those whose rows are large: none holds much more than
    `MAX_BATCH_BYTES` of the source, or half of that where tables are made of JSON. With *by_shape*, a batch also ends where its rows and the next
    ones go into no table together.
    """
    held = _Held()
    for chunk in chunks:
        # Rows of JSON are held as objects, too, when they go into a table.
        most = MAX_BATCH_BYTES // 2 if by_shape and chunk.types is None else MAX_BATCH_BYTES
        for segment in chunk.segments() if by_shape else (Segment(0, len(chunk), None),):
            if held.rows and by_shape and not held.goes_on_with(segment):
                yield held.batch()
                held = _Held()
            start = segment.start
            while start < segment.stop:
                start = held.take(
                    chunk, segment, start, min(start + size - held.rows, segment.stop)
                )
                if held.rows == size or held.bytes >= most:
                    yield held.batch()
                    held = _Held()
    if held.rows:
        yield held.batch()


@dataclass(slots=True)
class _Held:
    """A batch in the making."""

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
        return Batch(tuple(self.pieces), self._given(), nbytes=self.bytes)

    def _given(self) -> Given:
        if self.shape is None:
            types = self.pieces[0][0].types
            return Given(() if types is None else (types,))
        types = self.shape.schema
        return Given((types,), self.shape.absent, types if self.shape.is_inferred else None)
