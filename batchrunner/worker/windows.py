"""Windows over the rows of a slice: a window counts readable and unreadable rows, in file order."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import TYPE_CHECKING

from batchrunner.formats.chunk import BadRow, Chunk, Position, Row, Segment

if TYPE_CHECKING:
    import pyarrow as pa

_at = attrgetter("position.at")


@dataclass(frozen=True, slots=True)
class ChunkWindow:
    """A chunk reduced to neighbouring rows.

    Attributes:
        whole: The chunk.
        first: Index in the chunk of the first row that is kept.
        last: One past the index of the last.
        bad: The unreadable rows that are kept.
    """

    whole: Chunk
    first: int
    last: int
    bad: tuple[BadRow, ...]

    @property
    def types(self) -> pa.Schema | None:
        return self.whole.types

    @property
    def nbytes(self) -> int:
        return self.whole.nbytes * len(self) // max(len(self.whole), 1)

    def __len__(self) -> int:
        return self.last - self.first

    def rows(self, start: int, stop: int) -> list[Row]:
        return self.whole.rows(start + self.first, stop + self.first)

    def reread(self, start: int, stop: int) -> list[Row]:
        return self.whole.reread(start + self.first, stop + self.first)

    def segments(self) -> list[Segment]:
        spans = (
            (max(s.start, self.first), min(s.stop, self.last), s.shape)
            for s in self.whole.segments()
        )
        return [Segment(a - self.first, b - self.first, shape) for a, b, shape in spans if a < b]

    def table(self, start: int, stop: int) -> pa.Table:
        return self.whole.table(start + self.first, stop + self.first)

    def positions(self) -> Sequence[int]:
        return self.whole.positions()[self.first : self.last]

    def locate(self, index: int) -> Position:
        return self.whole.locate(index + self.first)


def rows_of(chunk: Chunk) -> int:
    """Return how many rows *chunk* has, unreadable ones included."""
    return len(chunk) + len(chunk.bad)


def windowed(chunks: Iterator[Chunk], *, skip: int, take: int | None) -> Iterator[Chunk]:
    """Yield the rows of *chunks* after the first *skip* ones, at most *take*; read no further."""
    at = 0
    for chunk in chunks:
        start, at = at, at + rows_of(chunk)
        stop = at if take is None else min(at, skip + take)
        if stop > max(start, skip):
            yield _window(chunk, max(skip - start, 0), stop - start)
        if take is not None and at >= skip + take:
            return


def _window(chunk: Chunk, first: int, last: int) -> Chunk:
    if last - first == rows_of(chunk):
        return chunk
    positions, bad = chunk.positions() if chunk.bad else (), sorted(chunk.bad, key=_at)
    # Among all rows of the chunk, an unreadable one comes after those rows that stand before it.
    places = [n + bisect_left(positions, _at(row)) for n, row in enumerate(bad)]
    before, until = bisect_left(places, first), bisect_left(places, last)
    return ChunkWindow(chunk, first - before, last - until, tuple(bad[before:until]))


def bad_rows_before(chunk: Chunk) -> Callable[[int], Sequence[BadRow]]:
    """Return a function that, asked for a row of *chunk*, returns the unreadable rows before it.

    It is asked for later and later rows, and returns each unreadable one once.
    """
    if not chunk.bad:
        return lambda _: ()
    positions, left = chunk.positions(), sorted(chunk.bad, key=_at)

    def before(index: int) -> Sequence[BadRow]:
        count = len(left)
        if index < len(positions):
            count = bisect_left(left, positions[index], key=_at)
        taken, left[:count] = left[:count], ()
        return taken

    return before
