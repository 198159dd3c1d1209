"""Joins small neighbouring chunks of rows of a shard, to cut them into tables together.

The rows of a small file have fewer keys than those of its neighbours, or nulls where these have values:
each file would be a table of another shape, and end a batch. And a table costs a millisecond, however
few rows it has. What is joined depends on the shard alone, as the cuts inside a chunk do.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import TYPE_CHECKING

from batchrunner.formats.chunk import BadRow, Chunk, Position, Row, Segment
from batchrunner.worker.steps import Event

if TYPE_CHECKING:
    import pyarrow as pa

    from batchrunner.formats.shapes import RowTable

JOINED_BYTES = 1 << 20
"""The most bytes of joined chunks: about those of a chunk of a large file."""


@dataclass(frozen=True, slots=True)
class JoinedChunk:
    """A chunk whose rows lie in tables of their own and their neighbours' rows.

    Attributes:
        whole: The chunk.
        first: The number of its first row among the rows of *tables*.
        tables: The tables of the joined rows.
    """

    whole: Chunk
    first: int
    tables: Sequence[RowTable]

    @property
    def bad(self) -> tuple[BadRow, ...]:
        return self.whole.bad

    @property
    def types(self) -> None:
        return None

    @property
    def nbytes(self) -> int:
        return self.whole.nbytes

    def __len__(self) -> int:
        return len(self.whole)

    def rows(self, start: int, stop: int) -> list[Row]:
        return self.whole.rows(start, stop)

    def reread(self, start: int, stop: int) -> list[Row]:
        return self.whole.reread(start, stop)

    def segments(self) -> list[Segment]:
        last = self.first + len(self)
        spans = (
            (max(s.start, self.first), min(s.stop, last), s.shape)
            for s in (table.segment for table in self.tables)
        )
        return [Segment(a - self.first, b - self.first, shape) for a, b, shape in spans if a < b]

    def table(self, start: int, stop: int) -> pa.Table:
        start, stop = start + self.first, stop + self.first
        index = bisect_right(self.tables, start, key=lambda one: one.segment.start) - 1
        return self.tables[index].rows(start, stop)

    def positions(self) -> Sequence[int]:
        return self.whole.positions()

    def locate(self, index: int) -> Position:
        return self.whole.locate(index)


def joined_events(events: Iterable[Event]) -> Iterator[Event]:
    """Yield *events*, with the chunks of the small files of a shard joined."""
    held: list[Event] = []
    nbytes = 0
    for event in events:
        chunk = event.chunk
        joins = chunk is not None and chunk.types is None and event.is_small
        size = chunk.nbytes if chunk is not None else 0
        if held and (not joins or nbytes + size > JOINED_BYTES or _are_apart(held[-1], event)):
            yield from _joined(held)
            held, nbytes = [], 0
        if joins:
            held.append(event)
            nbytes += size
        else:
            yield event
    yield from _joined(held)


def _are_apart(one: Event, other: Event) -> bool:
    """Return whether a large file lies between them, of which no row is retried."""
    between = other.shard.slices[one.number + 1 : other.number]
    return other.wanted is not None and any(piece.size >= JOINED_BYTES for piece in between)


def _joined(events: Sequence[Event]) -> Iterator[Event]:
    from batchrunner.formats.shapes import tables_of

    if all(event.wanted is not None and not event.wanted for event in events):
        return
    chunks = [event.chunk for event in events if event.chunk is not None]
    tables = list(tables_of([row for chunk in chunks for row in chunk.rows(0, len(chunk))]))
    firsts = accumulate(map(len, chunks), initial=0)
    for event, chunk, first in zip(events, chunks, firsts, strict=False):
        yield replace(event, chunk=JoinedChunk(chunk, first, tables), is_small=False)
