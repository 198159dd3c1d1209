"""How many workers each stage should have: as many as let the slowest stage that cannot grow never wait.

A pipeline is as fast as its slowest stage. A stage with n workers, of which one works s seconds for each
row of the source, does n / s rows a second. So the slowest stage gets the next worker, as long as there
is room for one: this makes the slowest as fast as it can be (greedy allocation is optimal for a maximum
of minima whose terms only grow with what they are given). Once the slowest cannot grow, more workers for
the others would only idle.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

MARGIN = 1.25
"""How much faster than the slowest a stage should be that can grow: its calls take longer at times, and
a stage that only just keeps up lets the accelerator wait each time."""


@dataclass(frozen=True, slots=True)
class StageLoad:
    """What one stage has to do, and the workers that it has.

    Attributes:
        workers: How many it has, those that start or load included.
        least: The fewest that it may have, at least 1.
        most: The most that it may have; infinity if only the room bounds it.
        seconds: What it takes one of its workers to do one row of the source; None as long as that is
            unknown.
        is_short: Whether calls wait in front of it for a worker.
        is_behind: Whether it waits for an accelerator that has not given anything yet.
    """

    workers: int
    least: int = 1
    most: float = math.inf
    seconds: float | None = None
    is_short: bool = True
    is_behind: bool = False

    @property
    def cap(self) -> float:
        """The most workers that it is worth to give it now."""
        return self.most if self.is_short else max(self.least, self.workers)


def shares(loads: Sequence[StageLoad], fits: Callable[[Sequence[int]], bool]) -> list[int]:
    """Return how many workers each stage should have.

    As long as it is unknown how long the stages take, all of them count as equally slow, so that what
    there is is shared out; but a stage behind an accelerator that still loads has nothing to do.

    Args:
        loads: The stages, in order.
        fits: Returns whether there is room for so many workers of each stage.
    """
    counts = [load.least for load in loads]
    usual = _usual_seconds(loads)
    rates = [_Rate(load, usual) for load in loads]
    while True:
        slowest = min(range(len(loads)), key=lambda at: rates[at].of(counts[at]))
        if rates[slowest].is_fixed or rates[slowest].of(counts[slowest]) == math.inf:
            return counts
        more = [*counts]
        more[slowest] += 1
        if more[slowest] > loads[slowest].cap or not fits(more):
            rates[slowest].is_fixed = True
        else:
            counts = more


def _usual_seconds(loads: Sequence[StageLoad]) -> float:
    known = [load.seconds for load in loads if load.seconds]
    return sum(known) / len(known) if known else 1.0


class _Rate:
    """Rows a second of a stage, by its workers.

    Attributes:
        is_fixed: Whether it gets no more workers.
    """

    def __init__(self, load: StageLoad, usual: float) -> None:
        self._load, self._usual = load, usual
        self.is_fixed = load.least >= load.cap

    def of(self, workers: int) -> float:
        """Return how fast so many *workers* are; less by the margin while there may be more."""
        known = self._load.seconds
        # Not known to be slow: it keeps the others from nothing.
        if known is None and (self.is_fixed or self._load.is_behind):
            return math.inf
        seconds = (self._usual if known is None else known) * (1 if self.is_fixed else MARGIN)
        return workers / seconds if seconds else math.inf
