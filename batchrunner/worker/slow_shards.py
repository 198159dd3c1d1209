"""Ends slow shards early, so that progress moves and a crash costs little; the rest becomes new shards.

An attempt ends between two batches: what was submitted is awaited and written, and no answer is thrown
away. The part has the shard's own name, so of two attempts that end in different places, the one whose
part is published counts, as ever; its sentinel says where it ended.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from batchrunner.shard import EarlyEnd, Shard
from batchrunner.worker.pulse import Pulse
from batchrunner.worker.steps import Portion, Step
from batchrunner.worker.stopping import StopSignal


@dataclass(slots=True)
class _Begun:
    """How far the calls for a shard are.

    Attributes:
        since: When the first was submitted, by the clock.
        number: The number of the slice of the last row submitted.
        rows: How many rows of that slice were, unreadable ones included.
    """

    since: float
    number: int = 0
    rows: int = 0


class SlowShards:
    """Decides which shards of one attempt end early, and where. `is_ended` may be asked in any thread.

    Attributes:
        stop: Set once it is known: whether to end each shard before its next batch.
    """

    def __init__(
        self,
        seconds: float | None,
        pulse: Pulse,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Let a shard take about *seconds* by *clock*, or as long as it takes if that is None."""
        self._seconds, self._pulse, self._clock = seconds, pulse, clock
        self.stop: StopSignal | None = None
        self._begun: dict[int, _Begun] = {}
        self._ends: dict[int, EarlyEnd] = {}

    def is_ended(self, shard: int) -> bool:
        """Return whether the shard with this id ends early: its other rows need not be read."""
        return shard in self._ends

    def ending(self, steps: Iterator[Step]) -> Iterator[Step]:
        """Yield *steps*, without the rows of shards after their early end.

        The caller asks for a step when it is about to submit it, which is when it is decided.
        """
        if self._seconds is None:
            yield from steps
            return
        for step in steps:
            first = step.portions[0]
            if first.rows_in and first.shard.id not in self._ends and self._is_slow(first.shard):
                self._ends[first.shard.id] = self._end_before(step)
            rest = self._without_ended(step)
            if rest.portions:
                self._note(rest)
                yield rest

    def _is_slow(self, shard: Shard) -> bool:
        """Return whether *shard* is to end: the rest of it would take as long again, or must not be paid."""
        begun = self._begun.get(shard.id)
        if begun is None or self._seconds is None or shard.retries is not None:
            return False
        if self.stop is not None and self.stop.waited() and self.stop.ends_shards:
            return True
        took = self._clock() - begun.since
        if took < self._seconds:
            return False
        share = self._share(shard)
        if share >= 1:  # by the bytes of a compressed file: how much is left is not known
            return took >= 2 * self._seconds
        return took * (1 - share) > self._seconds * share

    def _share(self, shard: Shard) -> float:
        """Return what share of *shard* has gone through the capability; 1.0 or more if that is not known."""
        attempt = self._pulse.attempt(shard.id)
        if shard.rows is not None:
            return attempt.rows / max(shard.rows, 1)
        return attempt.bytes / max(shard.weight, 1)

    def _end_before(self, step: Step) -> EarlyEnd:
        """Return the end of the first shard of *step* before its rows in it."""
        first = step.portions[0]
        numbers = [number for number, _ in first.bad[:1]]
        if step.batch and first.rows:
            numbers.append(step.batch.number)
        number, begun = min(numbers), self._begun[first.shard.id]
        if number > begun.number:
            return EarlyEnd(number)
        return EarlyEnd(number + 1, begun.rows)

    def _without_ended(self, step: Step) -> Step:
        if not any(portion.shard.id in self._ends for portion in step.portions):
            return step
        going_on = step.of({p.shard.id for p in step.portions} - self._ends.keys())
        ended = (self._last(p) for p in step.portions if p.shard.id in self._ends)
        ends = tuple(portion for portion in ended if portion is not None)
        return Step((*ends, *going_on.portions), going_on.batch)

    def _last(self, portion: Portion) -> Portion | None:
        """Return the end of a shard that ended early, once its reader has come to an end; None before."""
        if not portion.is_end and portion.failure is None:
            return None
        end = self._ends[portion.shard.id]
        hashes = portion.source_hash.split(" ")[: end.slices]
        total = portion.counts[end.slices - 1] if end.rows and portion.counts else 0
        return Portion(
            portion.shard,
            is_end=True,
            source_hash=" ".join(hashes) if any(hashes) else "",
            early_end=replace(end, total=total),
        )

    def _note(self, step: Step) -> None:
        for portion in step.portions:
            if portion.rows_in:
                begun = self._begun.setdefault(portion.shard.id, _Begun(self._clock()))
                _count(begun, portion, step)


def _count(begun: _Begun, portion: Portion, step: Step) -> None:
    pieces = step.batch.pieces if step.batch else ()
    counts = [(piece.number, len(piece)) for piece in pieces if piece.shard.id == portion.shard.id]
    counts += [(number, 1) for number, _ in portion.bad]
    last = max(number for number, _ in counts)
    rows = sum(count for number, count in counts if number == last)
    begun.rows = rows + (begun.rows if last == begun.number else 0)
    begun.number = last
