"""One row on its way through a capability of mode `row`, and what came of the rows of a batch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING

from batchrunner.formats.chunk import Row
from batchrunner.worker.usage import NO_USAGE, Usage, added

if TYPE_CHECKING:
    import asyncio

    from batchrunner.worker.rows_at_once import Round


@dataclass(frozen=True, slots=True)
class Answered:
    """What came of a row: its answer.

    Attributes:
        rows: The rows that the capability gave for it: none, one or many.
        usage: What its calls used, failed ones included.
    """

    rows: Sequence[Row]
    usage: Usage = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Failed:
    """What came of a row: the error of its last attempt.

    Attributes:
        error: What the call raised; an `Exception` that stands for it if it is none.
        usage: What its calls used.
    """

    error: Exception
    usage: Usage = field(default_factory=dict)


RowOutcome = Answered | Failed | None
"""None for a row that was not called: no call has ever succeeded, and another row of its batch failed."""


class Outcomes:
    """What has come of the rows of a batch, in order. Iterates over the outcome of each.

    Attributes:
        rows: What the capability gave for all of them.
        counts: How many of `rows` each gave; 0 for one without an answer.
        failed: Those that failed, by index.
        usages: What the calls of those that are answered used, by index, if they used anything.
        left: The indices of those that were not called.
    """

    __slots__ = ("counts", "failed", "left", "rows", "usages")

    def __init__(self) -> None:
        self.rows: list[Row] = []
        self.counts: list[int] = []
        self.failed: dict[int, Failed] = {}
        self.usages: dict[int, Usage] = {}
        self.left: set[int] = set()

    def __len__(self) -> int:
        return len(self.counts)

    def __iter__(self) -> Iterator[RowOutcome]:
        rows = iter(self.rows)
        for index, count in enumerate(self.counts):
            if index in self.failed:
                yield self.failed[index]
            elif index in self.left:
                yield None
            else:
                yield Answered(list(islice(rows, count)), self.usages.get(index, NO_USAGE))

    def add(self, outcome: RowOutcome) -> None:
        """Note the *outcome* of the next row."""
        index = len(self.counts)
        self.counts.append(len(outcome.rows) if isinstance(outcome, Answered) else 0)
        if isinstance(outcome, Answered):
            self.rows.extend(outcome.rows)
            if outcome.usage:
                self.usages[index] = outcome.usage
        elif outcome is None:
            self.left.add(index)
        else:
            self.failed[index] = outcome

    def divided(self, sizes: Sequence[int]) -> Iterator[tuple[list[Row], Usage]]:
        """Yield what so many neighbouring rows each as *sizes* says gave, and what their calls used."""
        rows, start = iter(self.rows), 0
        for size in sizes:
            stop = start + size
            used = added(*(usage for n, usage in self.usages.items() if start <= n < stop))
            yield list(islice(rows, sum(self.counts[start:stop]))), used
            start = stop


class RowCall:
    """One row on its way through the capability, over all its attempts, and its answer afterwards.

    Attributes:
        answer: Its answer; None as long as it has none.
        error: The error of its last attempt; None if there was none.
        attempts: How many attempts have failed.
        most: How many may fail, by what the latest start allowed; 0 before.
        refused_at: When the service first refused it; None if it did not.
        is_dropped: Whether it gets no other attempt.
        is_suspect: Whether its process ended with it and other calls in flight: it is then called alone.
        task: What makes its calls at the moment, if it is asynchronous.
        rounds: What waits for it while it is on its way; None if it is not.
        keep: Called with its answer, once.
        usage: What its attempts have used so far.
        brings_usage: Whether the row has usage already, which its answer may pass on.
    """

    __slots__ = (
        *("answer", "error", "attempts", "is_dropped", "most", "refused_at", "usage", "task"),
        *("rounds", "keep", "is_suspect", "brings_usage", "_row", "_again"),
    )

    def __init__(self, row: Row | None, again: Callable[[], Row]) -> None:
        """Prepare the call with *row*, unless that is None; *again* returns it as the source has it."""
        self.answer: Answered | None = None
        self.error: Exception | None = None
        self.attempts = self.most = 0
        self.is_dropped = self.is_suspect = self.brings_usage = False
        self.refused_at: float | None = None
        self.usage: Usage = NO_USAGE
        self.task: asyncio.Future[None] | None = None
        self.rounds: list[Round] | None = None
        self.keep: Callable[[Answered], None] | None = None
        self._row = row
        self._again = again

    @property
    def is_settled(self) -> bool:
        """Whether there is nothing more to do for it, by what the latest start allowed."""
        return self.answer is not None or self.is_dropped or 0 < self.most <= self.attempts

    @property
    def outcome(self) -> RowOutcome:
        """What has come of it so far."""
        if self.answer is not None:
            return self.answer
        return None if self.error is None else Failed(self.error, self.usage)

    def take(self) -> Row:
        """Return the row, for one call."""
        row, self._row = self._row, None
        return self._again() if row is None else row

    def peek(self) -> Row:
        """Return the row as it is before its first call; do not change it."""
        if self._row is None:
            self._row = self._again()
        return self._row

    def forgive(self) -> None:
        """Forget failed attempts: the shard of the row is attempted again. Its answer stays."""
        if self.rounds is None:
            self.attempts, self.is_dropped, self.error, self.refused_at = 0, False, None, None


def outcomes_of(calls: Sequence[RowCall]) -> Outcomes:
    """Return what has come of *calls* so far."""
    outcomes = Outcomes()
    for call in calls:
        outcomes.add(call.outcome)
    return outcomes
