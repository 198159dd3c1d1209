"""Tickets: batches of the source on their way through all stages, and where each of their rows is.

A row is followed by its *origin*, the index of the source row that it comes from, through every stage that
keeps origins. After one that does not, only the ticket is known.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from itertools import accumulate
from typing import Any

from batchrunner.worker.batch import Batch
from batchrunner.worker.stage_pool import RowUsages, Span, StageAnswer
from batchrunner.worker.usage import NO_USAGE, Usage, added

Origins = Sequence[int] | None
"""The index of the source row that each row comes from; None if that is not known."""


@dataclass(slots=True, eq=False)
class Kept:
    """A block in the store, and how many stretches of it are still needed.

    Attributes:
        handle: Where it is; the store frees it once no stretch refers to it.
        nbytes: About how many bytes it takes.
        stretches: How many stretches of it are on their way.
    """

    handle: Any
    nbytes: int
    stretches: int = 0


@dataclass(slots=True)
class BytesOnTheWay:
    """How many bytes the blocks take that rows on their way are in."""

    total: int = 0

    def keep(self, kept: Kept) -> None:
        """Count one stretch more of *kept*."""
        if not kept.stretches:
            self.total += kept.nbytes
        kept.stretches += 1

    def release(self, kept: Kept) -> None:
        """Count one stretch less of *kept*."""
        kept.stretches -= 1
        if not kept.stretches:
            self.total -= kept.nbytes


@dataclass(frozen=True, slots=True)
class Stretch:
    """Neighbouring rows of one ticket in one block.

    Attributes:
        ticket: The ticket.
        key: Sorts the stretches of a ticket into the order of its rows, at whatever stage they are.
        kept: The block.
        start: Its first row in the block.
        stop: One past its last row.
        origins: Of its rows.
        turn: Which run through the stages of its ticket it belongs to.
    """

    ticket: Ticket
    key: tuple[int, ...]
    kept: Kept
    start: int
    stop: int
    origins: Origins
    turn: int = 0

    def __len__(self) -> int:
        return self.stop - self.start

    @property
    def order(self) -> tuple[int, tuple[int, ...], int]:
        """Sorts stretches of all tickets: the rows of the oldest ticket first."""
        return self.ticket.number, self.key, self.start

    @property
    def span(self) -> Span:
        return Span(self.kept.handle, self.start, self.stop)

    @property
    def is_stale(self) -> bool:
        """Whether its rows are not needed any more: the ticket has its answer, or begins anew."""
        return self.turn != self.ticket.turn or self.ticket.done.done()

    def cut(self, rows: int) -> tuple[Stretch, Stretch]:
        """Return the first *rows* rows, and the others."""
        middle = self.start + rows
        before, after = (None, None) if self.origins is None else _halves(self.origins, rows)
        return (
            replace(self, stop=middle, origins=before),
            replace(self, start=middle, origins=after),
        )


def _halves(origins: Sequence[int], at: int) -> tuple[Sequence[int], Sequence[int]]:
    return origins[:at], origins[at:]


@dataclass(slots=True, eq=False)
class Ticket:
    """One batch of the source on its way. Only the thread that hands out calls changes it.

    Attributes:
        number: Its place in the order of tickets.
        batch: The batch.
        rows: How many rows it has.
        done: Completed when all its rows are through the last stage, or it has failed as a whole.
        open: Stretches of it that wait or are in a call, by the number of the stage.
        outputs: What came out of the last stage, in any order.
        failed: The errors of rows that failed, by their origin.
        usage: What calls have used for its rows.
        is_wanted: Whether its answer is waited for.
        has_fanned_out: Whether a row of it has given several.
        attempts: By origin, how many attempts a row has used up.
        turn: How often it has begun anew.
    """

    number: int
    batch: Batch
    rows: int
    done: Future[None] = field(default_factory=Future)
    open: list[int] = field(default_factory=list)
    outputs: list[Stretch] = field(default_factory=list)
    failed: dict[int, Exception] = field(default_factory=dict)
    usage: Usage = field(default_factory=dict)
    is_wanted: bool = False
    has_fanned_out: bool = False
    attempts: dict[int, int] = field(default_factory=dict)
    turn: int = 0

    @property
    def is_sample(self) -> bool:
        """Whether one attempt at its rows is enough."""
        return bool(getattr(self.batch, "is_sample", False))

    def is_complete_at(self, stage: int) -> bool:
        """Whether all rows of it that ever come to *stage* are there."""
        return not any(self.open[:stage])

    def begin_anew(self, stages: int) -> None:
        """Forget how far it is: some of its rows were lost."""
        self.turn += 1
        self.open, self.outputs = [0] * stages, []
        self.failed.clear()
        self.usage = NO_USAGE
        self.attempts.clear()


def outputs_of(
    answer: StageAnswer, taken: Sequence[Stretch], *, keeps_origins: bool
) -> list[Stretch]:
    """Return the rows that came of the stretches *taken* by one call, which gave *answer*."""
    if answer.handle is None:
        return []
    kept = Kept(answer.handle, answer.nbytes)
    if not keeps_origins or answer.counts is None:
        first = taken[0]
        # Of a ticket of one row, every row comes from that one.
        origins = (0,) * answer.rows if first.ticket.rows == 1 else None
        made = [_after(first, kept, 0, answer.rows, origins)]
    else:
        made = list(_divided(kept, taken, answer.counts))
    return [stretch for stretch in made if len(stretch)]


def _divided(kept: Kept, taken: Sequence[Stretch], counts: Sequence[int]) -> list[Stretch]:
    made, at, rows_in = [], 0, 0
    for stretch in taken:
        of_it = counts[rows_in : rows_in + len(stretch)]
        rows_in += len(stretch)
        stretch.ticket.has_fanned_out |= any(count > 1 for count in of_it)
        made.append(_after(stretch, kept, at, at + sum(of_it), _repeated(stretch.origins, of_it)))
        at += sum(of_it)
    return made


def _repeated(origins: Origins, counts: Sequence[int]) -> Origins:
    if origins is None or all(count == 1 for count in counts):
        return origins
    return tuple(o for o, count in zip(origins, counts, strict=True) for _ in range(count))


def _after(stretch: Stretch, kept: Kept, start: int, stop: int, origins: Origins) -> Stretch:
    # What comes of rows stands where they stood, whichever call is done first.
    key = (*stretch.key, stretch.start)
    return Stretch(stretch.ticket, key, kept, start, stop, origins, stretch.turn)


def note_usage(taken: Sequence[Stretch], usages: RowUsages) -> None:
    """Add to the tickets of the stretches *taken* what one call with them has used, by the index of the row."""
    ends = list(accumulate(map(len, taken)))
    for index, used in usages:
        stretch = taken[bisect_right(ends, index)]
        if not stretch.is_stale:
            stretch.ticket.usage = added(stretch.ticket.usage, used)


def rows_at(taken: Sequence[Stretch], start: int, stop: int) -> list[Stretch]:
    """Return rows *start* to *stop* of the stretches *taken*."""
    found = []
    for stretch in taken:
        first, last = max(start, 0), min(stop, len(stretch))
        if first < last:
            found.append(stretch.cut(last)[0].cut(first)[1])
        start, stop = start - len(stretch), stop - len(stretch)
    return found
