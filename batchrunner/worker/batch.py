"""Batches: the rows of chunks, regrouped and converted to the format that the capability takes."""

from __future__ import annotations

import random
from collections.abc import Collection, Hashable, Iterator
from dataclasses import dataclass, field, replace
from functools import reduce
from itertools import groupby, pairwise
from typing import TYPE_CHECKING, Any

from batchrunner.formats.chunk import Absent, Chunk, Position, Row
from batchrunner.shard import Shard

if TYPE_CHECKING:
    from collections.abc import Sequence

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
        earlier: The types of earlier rows of the sink, which come after *schemas*; None if there are
            none yet.
        grow: Whether rows of the sink add to *earlier*.
    """

    schemas: tuple[pa.Schema, ...] = ()
    absent: Absent = field(default_factory=dict)
    inferred: pa.Schema | None = None
    earlier: pa.Schema | None = None
    grow: bool = False

    @property
    def hints(self) -> tuple[pa.Schema, ...]:
        """The schemas whose types the output should have if its values fit, in that order."""
        return self.schemas if self.earlier is None else (*self.schemas, self.earlier)

    def after(self, tables: Sequence[pa.Table]) -> InputTypes:
        """Return the types for the rows after those of the sink's *tables*.

        Raises:
            SchemaError: The type of a column conflicts with that of earlier rows.
        """
        if not self.grow or not tables:
            return self
        return replace(self, earlier=grown_by(self.earlier, [table.schema for table in tables]))


def grown_by(earlier: pa.Schema | None, schemas: Sequence[pa.Schema]) -> pa.Schema:
    """Return the types of *earlier* rows with what *schemas*, at least one, add to them.

    Raises:
        SchemaError: The type of a column conflicts with that of earlier rows.
    """
    from batchrunner.formats.schemas import grown

    first, *others = schemas if earlier is None else (earlier, *schemas)
    return reduce(grown, others, first)


@dataclass(frozen=True, slots=True)
class ChunkRows:
    """Neighbouring rows of one chunk.

    Attributes:
        shard: The shard that they are of.
        number: The number of their slice in it.
        chunk: The chunk.
        start: Index of the first row in the chunk.
        stop: One past the last row.
    """

    shard: Shard
    number: int
    chunk: Chunk
    start: int
    stop: int

    def __len__(self) -> int:
        return self.stop - self.start

    @property
    def nbytes(self) -> int:
        """About how many bytes of the source the rows take."""
        return self.chunk.nbytes * len(self) // max(len(self.chunk), 1)

    @property
    def place(self) -> tuple[Hashable, ...]:
        """Where they stand. Only theirs as long as their chunk is kept."""
        chunk = getattr(self.chunk, "place", id(self.chunk))
        return self.shard.id, self.number, chunk, self.start, self.stop

    def cut(self, first: int, last: int) -> ChunkRows | None:
        """Return rows *first* to *last* of these, as far as there are such; None if there are none."""
        start, stop = self.start + max(first, 0), min(self.start + last, self.stop)
        return replace(self, start=start, stop=stop) if start < stop else None


@dataclass(frozen=True, slots=True)
class Batch:
    """Neighbouring rows, in the order of their shards, slices and chunks.

    Attributes:
        pieces: The rows.
        input_types: The types of the columns.
        is_retry: Whether to read the rows from the chunk again: an earlier call may have changed
            them.
        is_fraction: Whether a failed call had these rows of their shard together with others of it.
        is_sample: Whether one attempt at each row is enough.
    """

    pieces: tuple[ChunkRows, ...]
    input_types: InputTypes = field(default_factory=InputTypes)
    is_retry: bool = False
    is_fraction: bool = False
    is_sample: bool = False

    def __len__(self) -> int:
        return sum(map(len, self.pieces))

    @property
    def nbytes(self) -> int:
        """About how many bytes of the source the rows take."""
        return sum(piece.nbytes for piece in self.pieces)

    @property
    def shards(self) -> list[Shard]:
        """The shards of the rows, in order."""
        if len(self.pieces) == 1:  # the usual case, and asked for several times a batch
            return [self.pieces[0].shard]
        return list({piece.shard.id: piece.shard for piece in self.pieces}.values())

    @property
    def counts(self) -> list[int]:
        """How many of the rows each shard has, in the order of `shards`."""
        if len(self.pieces) == 1:
            return [len(self.pieces[0])]
        of_shards = groupby(self.pieces, key=lambda piece: piece.shard.id)
        return [sum(map(len, pieces)) for _, pieces in of_shards]

    def rows(self) -> list[Row]:
        if len(self.pieces) == 1 and not self.is_retry:
            [piece] = self.pieces
            return piece.chunk.rows(piece.start, piece.stop)
        read = ((p.chunk.reread if self.is_retry else p.chunk.rows, p) for p in self.pieces)
        return [row for rows_of, piece in read for row in rows_of(piece.start, piece.stop)]

    def halves(self) -> tuple[Batch, Batch]:
        """Return the first and the second half of the rows, read from the source again."""
        middle = len(self) // 2
        return self._slice(0, middle), self._slice(middle, len(self))

    def halves_by_shard(self) -> tuple[Batch, Batch]:
        """Return two batches, read from the source again, that have no shard in common.

        They have about half of the rows each. Only for batches of several shards.
        """
        ids, before = [shard.id for shard in self.shards], 0
        stop = 0
        for count in self.counts[:-1]:
            if stop and before + count > len(self) // 2:
                break
            before, stop = before + count, stop + 1
        return self._again(ids[:stop]), self._again(ids[stop:])

    def by_shard(self) -> list[Batch]:
        """Return a batch of the rows of each shard, read from the source again."""
        return [self._again({shard.id}) for shard in self.shards]

    def _again(self, shards: Collection[int]) -> Batch:
        return replace(self.of(shards), is_retry=True)

    def of(self, shards: Collection[int]) -> Batch:
        """Return the rows of the shards with these ids."""
        return replace(self, pieces=tuple(p for p in self.pieces if p.shard.id in shards))

    def singles(self) -> Iterator[Batch]:
        """Yield the rows one by one, read from the source again."""
        for index in range(len(self)):
            yield self.single(index)

    def single(self, index: int) -> Batch:
        """Return row *index* alone, read from the source again."""
        return self._slice(index, index + 1)

    def without(self, rows: Collection[int]) -> Batch | None:
        """Return the rows but those with the indices *rows*, read from the source again; None for none."""
        edges = [-1, *sorted(rows), len(self)]
        between = [self._slice(a + 1, b) for a, b in pairwise(edges) if b - a > 1]
        pieces = tuple(piece for part in between for piece in part.pieces)
        return Batch(pieces, self.input_types, is_retry=True, is_fraction=True) if pieces else None

    def samples(self, count: int) -> Iterator[Batch]:
        """Yield *count* rows of this batch as batches of one row, the same rows each time.

        They are chosen at random: if every second row is bad, or the first and the last, the sample
        must not suggest that all are. A single sample is the first row.
        """
        rows = range(len(self))
        sample = random.Random(0).sample(rows, count) if count > 1 else rows[:count]  # noqa: S311 - no secret
        for index in sorted(sample):
            yield replace(self.single(index), is_sample=True)

    def retry(self) -> Batch:
        """Return the same rows, read from the source again."""
        return replace(self, is_retry=True, is_fraction=True)

    def position(self) -> Position:
        """Return the position of the first row in its file."""
        first = self.pieces[0]
        return first.chunk.locate(first.start)

    @property
    def number(self) -> int:
        """The number of the first row's slice in its shard."""
        return self.pieces[0].number

    def _slice(self, first: int, last: int) -> Batch:
        pieces = []
        for piece in self.pieces:
            if cut := piece.cut(first, last):
                pieces.append(cut)
            first, last = first - len(piece), last - len(piece)
        return Batch(tuple(pieces), self.input_types, is_retry=True, is_fraction=True)

    def table(self) -> pa.Table:
        """Return the rows as a table. Only for batches made with `by_shape`.

        Raises:
            SchemaError: No Arrow type holds one of the values.
        """
        from batchrunner.formats.columns import joined

        return joined([piece.chunk.table(piece.start, piece.stop) for piece in self.pieces])

    def in_format(self, batch_format: str) -> Any:
        """Return the rows as `rows`, `pyarrow`, `pandas` or `numpy`; the caller may change them."""
        return self.rows() if batch_format == "rows" else in_format(self.table(), batch_format)


def in_format(table: pa.Table, batch_format: str) -> Any:
    """Return *table* as `pyarrow`, `pandas` or `numpy`; the caller may change it, but not Arrow's memory.

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
