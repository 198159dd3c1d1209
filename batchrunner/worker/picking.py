"""Picks rows out of chunks by their positions: those of dead letters, to try them again."""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from batchrunner.checkpoint.dead_letters import dead_letters_of
from batchrunner.errors import ShardFailedError
from batchrunner.formats.chunk import BadRow, Chunk, Position, Row, Segment
from batchrunner.shard import Shard, Slice
from batchrunner.worker.steps import Event
from batchrunner.worker.work import Work

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True, slots=True)
class PickedChunk:
    """A chunk reduced to some of its rows.

    Attributes:
        whole: The chunk.
        numbers: Indexes in the chunk of the rows that are kept.
        bad: The unreadable rows that are kept.
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

    @property
    def count(self) -> int:
        """How many rows are kept, unreadable ones included."""
        return len(self.numbers) + len(self.bad)

    def positions(self) -> list[int]:
        positions = self.whole.positions()
        return [positions[number] for number in self.numbers]

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


def positions_to_retry(work: Work, shard: Shard, origin: int) -> dict[int, frozenset[int]]:
    """Return, by slice, the positions of the dead letters of shard *origin*, which *shard* retries.

    Raises:
        ShardFailedError: The origin has no sentinel any more.
        DamagedOutputError: Its dead letters are gone or damaged.
    """
    checkpoint = work.checkpoint()
    sentinel = checkpoint.sentinel(work.facts.stem(origin), run_uid=work.run_uid)
    if sentinel is None:
        raise ShardFailedError(
            f"{shard}: shard {origin}, whose failed rows it retries, has no sentinel any more; "
            "`batchrunner verify SPEC` lists what is missing"
        )
    positions: dict[int, set[int]] = defaultdict(set)
    for dead_letter in dead_letters_of(checkpoint, sentinel):
        positions[dead_letter.get("slice", 0)].add(dead_letter["at"])
    return {number: frozenset(at) for number, at in positions.items()}


def picked(chunks: Iterator[Chunk], wanted: frozenset[int], *, piece: Slice) -> Iterator[Chunk]:
    """Yield the rows of *chunks* at the *wanted* positions, readable or not.

    Raises:
        ShardFailedError: A position is missing in *chunks*, so the file is another one.
    """
    count = 0
    for chunk in chunks:
        some = _picked(chunk, wanted)
        if some.count:
            yield some
        count += some.count
        if count == len(wanted):
            return
    raise _gone(piece, len(wanted) - count)


def all_with(chunks: Iterator[Chunk], wanted: frozenset[int], *, piece: Slice) -> Iterator[Chunk]:
    """Yield *chunks* as they are.

    Raises:
        ShardFailedError: At their end, if a row at the *wanted* positions was not among them.
    """
    count = 0
    for chunk in chunks:
        count += _picked(chunk, wanted).count if wanted else 0
        yield chunk
    if count < len(wanted):
        raise _gone(piece, len(wanted) - count)


def picked_events(events: Iterable[Event]) -> Iterator[Event]:
    """Yield *events*, with only the wanted rows of chunks that were joined."""
    for event in events:
        if event.chunk is None or event.wanted is None:
            yield event
        elif (some := _picked(event.chunk, event.wanted)).count:
            yield replace(event, chunk=some, wanted=None)


def _picked(chunk: Chunk, wanted: frozenset[int]) -> PickedChunk:
    numbers = tuple(n for n, at in enumerate(chunk.positions()) if at in wanted)
    return PickedChunk(chunk, numbers, tuple(b for b in chunk.bad if b.position.at in wanted))


def _gone(piece: Slice, count: int) -> ShardFailedError:
    return ShardFailedError(
        f"{piece}: {count:,} rows to retry are not in the file any more; bring back the "
        "file as it was, or run with --fresh to start over"
    )
