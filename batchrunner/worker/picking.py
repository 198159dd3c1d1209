"""Rows picked out of a file by their positions: how rows that were set aside are read again."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from batchrunner.errors import ShardFailedError
from batchrunner.formats.chunk import BadRow, Chunk, Position, Row, Segment
from batchrunner.shard import Shard

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True, slots=True)
class PickedChunk:
    """Some rows of a chunk.

    Attributes:
        whole: The chunk.
        numbers: Of its rows, those that are here.
        bad: Of the rows that could not be read, those that are here.
    """

    whole: Chunk
    numbers: tuple[int, ...]
    bad: tuple[BadRow, ...]

    @property
    def types(self) -> pa.Schema | None:
        return self.whole.types

    @property
    def nbytes(self) -> int:
        return self.whole.nbytes * len(self.numbers) // max(len(self.whole), 1)

    def __len__(self) -> int:
        return len(self.numbers)

    def positions(self) -> list[int]:
        every = self.whole.positions()
        return [every[number] for number in self.numbers]

    def rows(self, start: int, stop: int) -> list[Row]:
        return [self.whole.rows(n, n + 1)[0] for n in self.numbers[start:stop]]

    def reread(self, start: int, stop: int) -> list[Row]:
        return [self.whole.reread(n, n + 1)[0] for n in self.numbers[start:stop]]

    def segments(self) -> list[Segment]:
        segments = (
            (bisect_left(self.numbers, r.start), bisect_left(self.numbers, r.stop), r.shape)
            for r in self.whole.segments()
        )
        return [Segment(start, stop, shape) for start, stop, shape in segments if start < stop]

    def table(self, start: int, stop: int) -> pa.Table:
        from batchrunner.formats.columns import joined

        return joined([self.whole.table(n, n + 1) for n in self.numbers[start:stop]])

    def locate(self, index: int) -> Position:
        return self.whole.locate(self.numbers[index])


def picked(chunks: Iterator[Chunk], wanted: frozenset[int], *, shard: Shard) -> Iterator[Chunk]:
    """Yield the rows of *chunks* at the *wanted* positions, readable or not.

    Raises:
        ShardFailedError: Not all of them are there.
    """
    found = 0
    for chunk in chunks:
        numbers = tuple(n for n, at in enumerate(chunk.positions()) if at in wanted)
        bad = tuple(row for row in chunk.bad if row.position.at in wanted)
        found += len(numbers) + len(bad)
        if numbers or bad:
            yield PickedChunk(chunk, numbers, bad)
        if found == len(wanted):
            return
    raise ShardFailedError(f"{shard}: {len(wanted) - found:,} of them are not in the file any more")
