"""The rows that wait in front of one stage, and the batches that its next calls get."""

from __future__ import annotations

import heapq
import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import count

from batchrunner.spec import StageSpec
from batchrunner.worker.room import Room
from batchrunner.worker.stage_pool import StageAnswer, StagePool
from batchrunner.worker.tickets import BytesOnTheWay, Stretch, Ticket

_SECONDS = 1.0
"""About how long a call in mode `row` is to take: no answer of it goes on before all are there."""


@dataclass(slots=True, eq=False)
class StageCall:
    """One call of a stage.

    Attributes:
        taken: What it gets, in order.
        attempts: How often a call with exactly these rows has failed.
        doubt: The doubt that it is a probe of; None for any other call.
    """

    taken: list[Stretch]
    attempts: int = 0
    doubt: Doubt | None = None

    @property
    def rows(self) -> int:
        return sum(map(len, self.taken))

    @property
    def tickets(self) -> list[Ticket]:
        """The tickets of its rows that still need them."""
        return list(dict.fromkeys(s.ticket for s in self.taken if not s.is_stale))


@dataclass(slots=True, eq=False)
class Doubt:
    """A call failed before any call of its stage had succeeded: is it its rows, or the code?

    Attributes:
        error: What the call raised.
        probes: Single rows of it, from all over it, to be tried one after the other.
        rest: The rows between them, and those of other calls that failed meanwhile. They stay apart: a
            stage that does not keep origins gets neighbours only.
        failed: The probes that failed, each as its call, with its error.
    """

    error: Exception
    probes: deque[list[Stretch]]
    rest: list[list[Stretch]]
    failed: list[tuple[StageCall, Exception]] = field(default_factory=list)


class StageLine:
    """One stage with what waits in front of it. Used in one thread.

    Attributes:
        number: Number of the stage.
        stage: The stage.
        pool: Its workers.
        most: The most rows of a batch; fewer once memory did not suffice.
        rows: How many rows wait.
        calls: How many calls are in flight, with `rows_in_calls` rows.
        first: Calls that come before all others: those that look for the rows for which one failed.
        has_succeeded: Whether a call has succeeded yet.
        doubt: What is in doubt; no other call is made meanwhile.
        is_broken: Whether all probes have failed alike. Until a call succeeds, only rows are tried whose
            answer is waited for.
    """

    def __init__(
        self, number: int, stage: StageSpec, pool: StagePool, on_the_way: BytesOnTheWay
    ) -> None:
        self.number, self.stage, self.pool = number, stage, pool
        self.most = self.usual_most = stage.batch_size or 1
        self._soon: float = self._fewest if stage.mode == "row" else math.inf
        self._room = Room(f"batch_size of the stage {stage.called!r}")
        self.rows = self.calls = self.rows_in_calls = 0
        self.first: deque[StageCall] = deque()
        self.has_succeeded = self.is_broken = False
        self.doubt: Doubt | None = None
        self._on_the_way = on_the_way
        self._waiting: list[tuple[tuple[int, tuple[int, ...], int], int, Stretch]] = []
        self._order = count()
        self._seen_in = self._seen_out = self._seen_bytes = 0

    @property
    def is_idle(self) -> bool:
        """Whether no row is here, waiting or in a call."""
        return not (self._waiting or self.first or self.calls)

    def arrive(self, stretch: Stretch) -> None:
        """Let *stretch*, which comes from the stage before, wait."""
        self.hold(stretch)
        self.wait(stretch)

    def hold(self, stretch: Stretch) -> None:
        """Count *stretch* once more: its ticket is not done, and its block not free, until it leaves."""
        self._on_the_way.keep(stretch.kept)
        if stretch.turn == stretch.ticket.turn:
            stretch.ticket.open[self.number] += 1

    def leave(self, taken: Sequence[Stretch]) -> None:
        """Note that the stretches *taken* are through the stage, or are not needed any more."""
        for stretch in taken:
            self._on_the_way.release(stretch.kept)
            if stretch.turn == stretch.ticket.turn:
                stretch.ticket.open[self.number] -= 1

    @property
    def size(self) -> int:
        """Rows of the next batch."""
        return int(min(self.most, self._soon))

    @property
    def _fewest(self) -> int:
        """Rows of a call in mode `row`, however long they take: enough for all that are called at the same time."""
        return 2 * (self.stage.max_concurrency or 1)

    @property
    def needs_no_more(self) -> bool:
        """Whether a call gains nothing by waiting for more rows: each gets a call, and no worker has one."""
        return self.stage.mode == "row" and not self.calls

    @property
    def is_starved(self) -> bool:
        """Whether no call could be made with what waits, however much that is."""
        return not self.stage.keeps_origins and self._complete_ticket() is None

    def most_waiting(self) -> int:
        """Return how many rows may wait in front of the stage: as many as its workers will soon take."""
        return (self.calls + max(self.pool.room(), 0) + 2) * self.size

    def expected(self, rows: int) -> tuple[float, float]:
        """Return how many rows and bytes a call with *rows* is likely to give, by the calls so far."""
        if not self._seen_in:
            return float(rows), 0.0
        share = rows / self._seen_in
        return share * self._seen_out, share * self._seen_bytes

    def learn(self, rows: int, answer: StageAnswer) -> None:
        """Note what a call with *rows* gave."""
        self.has_succeeded, self.is_broken = True, False
        self._seen_in += rows
        self._seen_out += answer.rows
        self._seen_bytes += answer.nbytes
        if self.stage.mode == "row" and answer.seconds:
            self._soon = max(rows * _SECONDS / answer.seconds, self._fewest)
        if self.most < self.usual_most:
            self._room.rows = self.most
            self._room.report()

    def next_call(self, *, may_be_small: bool) -> StageCall | None:
        """Take and return the next call; None if none is to be made now.

        Args:
            may_be_small: Whether a batch may have fewer rows than the stage wants: no others come.
        """
        while self.first:
            call = self.first.popleft()
            if call.tickets or call.doubt is not None:
                return self._fitting(call)
            self.leave(call.taken)
        if self.doubt is not None:
            return None
        if self.is_broken:
            wanted = (s.ticket for *_, s in self._waiting if s.ticket.is_wanted)
            return self._of_ticket(next(wanted, None))
        if not self.stage.keeps_origins:
            return self._of_ticket(self._complete_ticket())
        if self.rows < self.size and not (may_be_small and self.rows):
            return None
        return StageCall(self._taken(self.size))

    def _fitting(self, call: StageCall) -> StageCall:
        """Return *call*, or the beginning of it if it has more rows than memory has held by now."""
        if call.rows <= self.most:
            return call
        taken, rest = self.parted(call.taken, self.most)
        self.first.appendleft(StageCall(rest))
        return StageCall(taken)

    def _complete_ticket(self) -> Ticket | None:
        """Return the oldest ticket of which all rows have come.

        A stage that does not keep origins may look at the neighbours of a row: it gets them in their order.
        And what comes out of a call has to be known to be of one ticket.
        """
        tickets = {s.ticket for *_, s in self._waiting if s.ticket.is_complete_at(self.number)}
        return min(tickets, key=lambda ticket: ticket.number, default=None)

    def _of_ticket(self, ticket: Ticket | None) -> StageCall | None:
        if ticket is None or not ticket.is_complete_at(self.number):
            return None
        others = [entry for entry in self._waiting if entry[2].ticket is not ticket]
        if len(others) < len(self._waiting):
            mine = [entry for entry in self._waiting if entry[2].ticket is ticket]
            self._waiting = mine
            heapq.heapify(self._waiting)
        call = StageCall(self._taken(self.size))
        self._waiting += others
        heapq.heapify(self._waiting)
        return call

    def _taken(self, rows: int) -> list[Stretch]:
        """Take the first *rows* rows that wait, or all."""
        taken: list[Stretch] = []
        while rows and self._waiting:
            *_, stretch = heapq.heappop(self._waiting)
            self.rows -= len(stretch)
            if len(stretch) > rows:
                stretch, rest = self.split(stretch, rows)
                self.wait(rest)
            taken.append(stretch)
            rows -= len(stretch)
        return taken

    def wait(self, stretch: Stretch) -> None:
        """Let *stretch*, which is here, wait for a call."""
        heapq.heappush(self._waiting, (stretch.order, next(self._order), stretch))
        self.rows += len(stretch)

    def split(self, stretch: Stretch, rows: int) -> tuple[Stretch, Stretch]:
        """Return the first *rows* rows of *stretch*, which is here, and the others."""
        self.hold(stretch)
        return stretch.cut(rows)

    def parted(self, taken: Sequence[Stretch], rows: int) -> tuple[list[Stretch], list[Stretch]]:
        """Return the first *rows* rows of the stretches *taken*, which are here, and the others."""
        before: list[Stretch] = []
        for index, stretch in enumerate(taken):
            if rows < len(stretch):
                if not rows:
                    return before, list(taken[index:])
                first, rest = self.split(stretch, rows)
                return [*before, first], [rest, *taken[index + 1 :]]
            before.append(stretch)
            rows -= len(stretch)
        return before, []

    def purge(self) -> None:
        """Let go of the rows that wait and are not needed any more."""
        stale = [stretch for *_, stretch in self._waiting if stretch.is_stale]
        self._waiting = [entry for entry in self._waiting if not entry[2].is_stale]
        heapq.heapify(self._waiting)
        self.rows -= sum(map(len, stale))
        self.leave(stale)
