"""Regroups what is read of shards into steps: a batch, and what happened to its shards beside it.

A batch is as large as the spec says, whatever the files are cut into: it has rows of several slices
of a shard and, if its output can be divided among them, of several shards. It ends early where one
table cannot hold its rows and the next ones.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from batchrunner.formats.chunk import BadRow, Chunk, Segment, Shape
from batchrunner.shard import EarlyEnd, Shard
from batchrunner.worker.batch import MAX_BATCH_BYTES, Batch, ChunkRows, InputTypes
from batchrunner.worker.receipt import Failure
from batchrunner.worker.windows import bad_rows_before

MOST_SHARDS = 32
"""The most shards that a batch has rows of. Each has its part open until the batch is written; and
when a worker dies, each shard that it may have begun is tried alone."""


@dataclass(frozen=True, slots=True)
class Event:
    """One event in reading a shard: a chunk of a slice, the end of the shard, or its failure.

    Attributes:
        shard: The shard.
        number: The number of the chunk's slice.
        chunk: Some of its rows; None at the end of the shard.
        failure: Why the shard cannot be read.
        source_hash: At the end, the hashes of the bytes read, if they are needed.
        counts: At the end, the rows of each slice read, unreadable ones included.
        is_small: Whether the slice is one of several, and has fewer bytes than a chunk may have.
        wanted: The positions of the rows of the chunk to keep, once it is joined; None for all.
    """

    shard: Shard
    number: int = 0
    chunk: Chunk | None = None
    failure: Failure | None = None
    source_hash: str = ""
    counts: tuple[int, ...] = ()
    is_small: bool = False
    wanted: frozenset[int] | None = None


@dataclass(frozen=True, slots=True)
class Portion:
    """What a step has of one shard: rows of its batch, unreadable rows, and perhaps its end.

    Attributes:
        shard: The shard.
        rows: Number of its rows in the batch.
        nbytes: About how many bytes of the source these take.
        bad: Its rows that could not be read, each with the number of its slice.
        failure: Why it cannot be read any further.
        is_end: Whether it has been read completely.
        source_hash: At the end, the hashes of the bytes read, if they are needed.
        counts: At the end, the rows of each slice read, unreadable ones included.
        early_end: At the end, where that is, if other rows of the shard are left to new ones.
    """

    shard: Shard
    rows: int = 0
    nbytes: int = 0
    bad: tuple[tuple[int, BadRow], ...] = ()
    failure: Failure | None = None
    is_end: bool = False
    source_hash: str = ""
    counts: tuple[int, ...] = ()
    early_end: EarlyEnd | None = None

    @property
    def rows_in(self) -> int:
        """Number of rows of the source, unreadable ones included."""
        return self.rows + len(self.bad)


@dataclass(frozen=True, slots=True)
class Step:
    """A batch, and what has been read of its shards beside it, in the order of the shards.

    Attributes:
        portions: What it has of each shard. All but the last shard end in this step.
        batch: The rows; None if there are none.
    """

    portions: tuple[Portion, ...]
    batch: Batch | None = None

    @property
    def nbytes(self) -> int:
        """About how many bytes of the source this step holds."""
        return sum(portion.nbytes for portion in self.portions)

    def shares(self, seconds: float) -> Iterator[tuple[Portion, float]]:
        """Yield each portion with its share of *seconds*, by its rows."""
        rows = sum(portion.rows_in for portion in self.portions)
        for portion in self.portions:
            yield portion, seconds * (portion.rows_in / rows if rows else 1 / len(self.portions))

    def of(self, shards: Collection[int]) -> Step:
        """Return the step with only the shards with these ids; it may be without any."""
        portions = tuple(p for p in self.portions if p.shard.id in shards)
        batch = self.batch and self.batch.of(shards)
        return Step(portions, batch or None)


@dataclass(frozen=True, slots=True)
class Grouping:
    """How rows are grouped into batches.

    Attributes:
        size: Rows of a batch.
        by_shape: Whether a batch becomes a table, so that one table has to hold its rows.
        spans_shards: Whether a batch may have rows of several shards.
        alone: Id of a shard after which a batch ends all the same; None if there is none.
    """

    size: int
    by_shape: bool
    spans_shards: bool = False
    alone: int | None = None


def steps_of(events: Iterable[Event], grouping: Grouping) -> Iterator[Step]:
    """Yield *events*, which come shard by shard, as steps, in the same order.

    A batch may be smaller where the rows are large: none holds much more than `MAX_BATCH_BYTES` of
    the source, or half of that if tables are made from JSON.
    """
    collected = _Collected(grouping)
    for event in events:
        if event.failure is not None:
            collected.forget(event.shard)
            yield from collected.taken()
            yield Step((Portion(event.shard, failure=event.failure),))
        elif event.chunk is None:
            yield from collected.end(event)
        else:
            yield from collected.add(event, event.chunk)
    yield from collected.taken()


@dataclass(slots=True)
class _Open:
    """A portion that is being collected."""

    shard: Shard
    rows: int = 0
    nbytes: int = 0
    bad: list[tuple[int, BadRow]] = field(default_factory=list)
    is_end: bool = False
    source_hash: str = ""
    counts: tuple[int, ...] = ()

    def closed(self) -> Portion:
        return Portion(
            self.shard,
            self.rows,
            self.nbytes,
            tuple(self.bad),
            is_end=self.is_end,
            source_hash=self.source_hash,
            counts=self.counts,
        )


class _Collected:
    """What is collected for the next step."""

    def __init__(self, grouping: Grouping) -> None:
        self._grouping = grouping
        self._begin()

    def _begin(self) -> None:
        self._pieces: list[ChunkRows] = []
        self._portions: list[_Open] = []
        self._shape: Shape | None = None
        self._rows = self._bytes = self._bad = 0

    def add(self, event: Event, chunk: Chunk) -> Iterator[Step]:
        """Add the rows of *chunk*, and the unreadable ones between them; yield each step that is full."""
        bad = bad_rows_before(chunk)
        for segment in self._segments(chunk):
            if self._rows and not self._goes_on_with(chunk, segment):
                yield from self.taken()
            start = segment.start
            while start < segment.stop:
                stop = min(start + self._grouping.size - self._rows, segment.stop)
                self._shape = segment.shape
                self._take(ChunkRows(event.shard, event.number, chunk, start, stop))
                # A step holds all rows up to its last one: a shard may end after any step.
                self._take_bad(event, bad(stop))
                start = stop
                if self._is_full(chunk):
                    yield from self.taken()
        self._take_bad(event, bad(len(chunk)))
        if self._bad >= self._grouping.size:
            yield from self.taken()

    def _take_bad(self, event: Event, bad: Sequence[BadRow]) -> None:
        if bad:
            self._portion(event.shard).bad += [(event.number, row) for row in bad]
            self._bad += len(bad)

    def end(self, event: Event) -> Iterator[Step]:
        """Add the end of a shard; yield the step, unless its batch goes on with the next shard."""
        portion = self._portion(event.shard)
        portion.is_end, portion.counts = True, event.counts
        portion.source_hash = event.source_hash
        may_go_on = self._grouping.spans_shards and event.shard.id != self._grouping.alone
        # Bad rows may fail their shard, whose types then do not count for the next one. Without rows,
        # the end of the shard would only wait for a call that has none of them.
        if not may_go_on or self._bad or not self._rows or len(self._portions) >= MOST_SHARDS:
            yield from self.taken()

    def forget(self, shard: Shard) -> None:
        """Drop what is collected of *shard*, which cannot be read."""
        self._portions = [p for p in self._portions if p.shard.id != shard.id]
        self._pieces = [p for p in self._pieces if p.shard.id != shard.id]
        self._rows = sum(portion.rows for portion in self._portions)

    def taken(self) -> Iterator[Step]:
        """Yield what is collected as a step, if there is something, and begin the next one."""
        if self._portions:
            batch = Batch(tuple(self._pieces), self._input_types()) if self._pieces else None
            yield Step(tuple(portion.closed() for portion in self._portions), batch)
        self._begin()

    def _segments(self, chunk: Chunk) -> Sequence[Segment]:
        return chunk.segments() if self._grouping.by_shape else (Segment(0, len(chunk), None),)

    def _goes_on_with(self, chunk: Chunk, segment: Segment) -> bool:
        if self._grouping.by_shape:
            return segment.shape is not None and segment.shape == self._shape
        have, want = self._pieces[0].chunk.types, chunk.types
        return have is want or (have is not None and want is not None and have.equals(want))

    def _take(self, rows: ChunkRows) -> None:
        portion = self._portion(rows.shard)
        portion.rows += len(rows)
        portion.nbytes += rows.nbytes
        self._pieces.append(rows)
        self._rows += len(rows)
        self._bytes += rows.nbytes

    def _portion(self, shard: Shard) -> _Open:
        if not self._portions or self._portions[-1].shard.id != shard.id:
            self._portions.append(_Open(shard))
        return self._portions[-1]

    def _is_full(self, chunk: Chunk) -> bool:
        # Rows of JSON that go into a table also take memory as objects.
        of_objects = self._grouping.by_shape and chunk.types is None
        most = MAX_BATCH_BYTES // 2 if of_objects else MAX_BATCH_BYTES
        return self._rows == self._grouping.size or self._bytes >= most

    def _input_types(self) -> InputTypes:
        if self._shape is None:
            types = self._pieces[0].chunk.types
            return InputTypes(() if types is None else (types,))
        types = self._shape.schema
        return InputTypes((types,), self._shape.absent, types if self._shape.is_inferred else None)
