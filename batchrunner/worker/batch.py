"""Batches: rows regrouped from chunks, in the shape that the capability wants."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from batchrunner.formats.chunk import Chunk, Position, Row

if TYPE_CHECKING:
    import pyarrow as pa


MAX_BATCH_BYTES = 64 << 20


@dataclass(frozen=True, slots=True)
class Batch:
    """Neighbouring rows of one shard.

    Attributes:
        pieces: (chunk, start, stop) of each run of rows.
        again: The rows were handed out before, and may have been changed since.
    """

    pieces: tuple[tuple[Chunk, int, int], ...]
    again: bool = False

    def __len__(self) -> int:
        return sum(stop - start for _, start, stop in self.pieces)

    def rows(self) -> list[Row]:
        if len(self.pieces) == 1 and not self.again:
            chunk, start, stop = self.pieces[0]
            return chunk.rows(start, stop)
        runs = ((c.reread if self.again else c.rows)(start, stop) for c, start, stop in self.pieces)
        return [row for run in runs for row in run]

    def halves(self) -> tuple[Batch, Batch]:
        """Return the first and the second half of the rows, as they stand in the source."""
        middle = len(self) // 2
        return self._slice(0, middle), self._slice(middle, len(self))

    def singles(self) -> Iterator[Batch]:
        """Yield the rows one by one, as they stand in the source."""
        for index in range(len(self)):
            yield self._slice(index, index + 1)

    def once_more(self) -> Batch:
        """Return the same rows, as they stand in the source."""
        return Batch(self.pieces, again=True)

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
        return Batch(tuple(pieces), again=True)

    def table(self) -> pa.Table:
        from batchrunner.formats.columns import unify

        return unify([chunk.table(start, stop) for chunk, start, stop in self.pieces])

    def in_format(self, batch_format: str) -> Any:
        """Return the rows as `rows`, `pyarrow`, `pandas` or `numpy`; the receiver may change them."""
        return self.rows() if batch_format == "rows" else in_format(self.table(), batch_format)


def in_format(table: pa.Table, batch_format: str) -> Any:
    """Return *table* as `pyarrow`, `pandas` or `numpy`; the receiver may change it."""
    if batch_format == "pyarrow":
        return table
    if batch_format == "pandas":
        return table.to_pandas()
    return {name: _writable(table.column(name)) for name in table.column_names}


def _writable(column: pa.ChunkedArray) -> Any:
    array = column.to_numpy()
    return array if array.flags.writeable else array.copy()


def batches(chunks: Iterable[Chunk], size: int) -> Iterator[Batch]:
    """Regroup *chunks* into batches of *size* rows.

    The last one may be smaller, and so may those whose rows are large: none holds much more than
    `MAX_BATCH_BYTES` of the source.
    """
    pieces: list[tuple[Chunk, int, int]] = []
    rows = held = 0
    for chunk in chunks:
        start, length = 0, len(chunk)
        while start < length:
            stop = min(start + size - rows, length)
            pieces.append((chunk, start, stop))
            rows += stop - start
            held += chunk.nbytes * (stop - start) // length
            start = stop
            if rows == size or held >= MAX_BATCH_BYTES:
                yield Batch(tuple(pieces))
                pieces, rows, held = [], 0, 0
    if pieces:
        yield Batch(tuple(pieces))
