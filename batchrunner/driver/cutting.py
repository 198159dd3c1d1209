"""What a shard that ended early leaves to do: new shards, sized by how fast the first one went.

A worker ends a slow shard early and commits it under its own name (`worker/slow_shards.py`); its sentinel
says where. What is left gets ids here, in a generation that also narrows the first shard. A session that
dies between the sentinel and that generation loses nothing: the next one finds the sentinel.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from batchrunner.checkpoint import Generation, Sentinel
from batchrunner.driver.moving import place_of
from batchrunner.driver.stored_plan import StoredPlan
from batchrunner.shard import EarlyEnd, Shard, Slice
from batchrunner.spec import BatchSpec
from batchrunner.spec.model import USUAL_SECONDS

_MOST_SKIPPING = 0.1
"""The most time to spend on reading rows of other shards again, as a share of the calls."""

_LEAST_PACE = 1e-9


def rest_of(
    plan: StoredPlan, committed: Mapping[int, Sentinel], *, spec: BatchSpec
) -> Generation | None:
    """Return the generation with what shards of *plan* left that ended early; None if all of it is planned.

    It narrows these shards, and adds shards of their other rows, with the next ids of *plan*. Reads and
    writes nothing. Once its result is part of the plan, it returns None for the same sentinels.

    Args:
        plan: The plan as it is, active shards and retired ones.
        committed: Sentinels of the committed shards, by id; those of other shards are ignored.
        spec: The spec of the run.
    """
    early = {i: end for i, one in committed.items() if (end := one.early_end)}
    if not early:
        return None
    slow = [s for s in plan.active if s.id in early and not s.ends_at(early[s.id])]
    if not slow:
        return None
    groups = [
        group
        for shard in slow
        for group in _left(shard, early[shard.id], _Pace.of(shard, committed[shard.id], spec))
    ]
    first_id = len(plan.active) + len(plan.retired)
    shards = tuple(Shard(id_, slices) for id_, slices in enumerate(groups, start=first_id))
    ended = {shard.id: early[shard.id] for shard in slow}
    return Generation(plan.facts, shards, place=place_of(spec), ended=ended)


@dataclass(frozen=True, slots=True)
class _Pace:
    """How fast a shard went, and how many rows its like should have.

    Attributes:
        calling: Seconds that the calls took for a row.
        reading: Seconds that it took to read one.
        batch: Rows of a batch: shards have whole ones, and at least one.
        rows: Rows of a shard, a multiple of *batch*.
        by_weight: How many rows there were to a byte of the source.
    """

    calling: float
    reading: float
    batch: int
    rows: int
    by_weight: float

    @classmethod
    def of(cls, shard: Shard, sentinel: Sentinel, spec: BatchSpec) -> _Pace:
        seconds, batch = spec.source.seconds or USUAL_SECONDS, spec.batch_size
        rows = max(sentinel.rows_in, 1)
        # The slice in which it ended was read to its end, to count its rows.
        read = rows + max(sentinel.slice_total - sentinel.slice_rows, 0)
        calling = max(sentinel.calling / rows, _LEAST_PACE)
        reading = max(sentinel.reading / read, _LEAST_PACE)
        batches = max(int(seconds / calling) // batch, 1)
        weight = sum(piece.weight for piece in shard.slices[: sentinel.slices])
        return cls(calling, reading, batch, batches * batch, read / max(weight, 1))

    def window(self, rows: int, *, of: int) -> int:
        """Return the rows of a window if *rows* are cut into windows, each of a slice with *of* rows.

        To read a window, its slice is read from its start.
        """
        most = int(_MOST_SKIPPING * self.calling * rows / (self.reading * of))
        least = math.ceil(rows / max(most, 1))
        return max(self.rows, math.ceil(least / self.batch) * self.batch)


def _left(shard: Shard, end: EarlyEnd, pace: _Pace) -> Iterator[Sequence[Slice]]:
    """Yield the slices of each shard to make of what comes in *shard* after *end*."""
    held: list[Slice] = []
    rows = 0.0
    for piece, count in _pieces(shard, end, pace):
        if held and rows + count > pace.rows:
            yield tuple(held)
            held, rows = [], 0.0
        held.append(piece)
        rows += count
    if held:
        yield tuple(held)


def _pieces(shard: Shard, end: EarlyEnd, pace: _Pace) -> Iterator[tuple[Slice, float]]:
    """Yield what is left of each slice, perhaps in windows, and how many rows that has, by estimate."""
    if end.rows:
        last = shard.slices[end.slices - 1]
        yield from _windows(last, end.rows, pace, of=end.total or last.rows)
    for piece in shard.slices[end.slices :]:
        if piece.rows is not None:
            yield from _windows(piece, 0, pace, of=piece.rows)
        else:
            yield piece, piece.weight * pace.by_weight


def _windows(
    piece: Slice, first: int, pace: _Pace, *, of: int | None
) -> Iterator[tuple[Slice, float]]:
    """Yield the rows of *piece* from number *first* on, in windows if there are too many for a shard.

    It has *of* rows; None if they could not be counted, since its file is damaged further on.
    """
    if of is None:
        yield piece.rows_from(first, None, of=None), pace.rows
        return
    window = pace.window(of - first, of=piece.skip + of)
    # What is left at the end, if that is little, goes with the last window.
    starts = range(first, max(of - window // 2, first + 1), window)
    for start in starts:
        is_last = start == starts[-1]
        count = None if is_last else window
        yield (
            piece.rows_from(start, count, of=of) if start or not is_last else piece,
            count or of - start,
        )
