"""Hands out the calls of all stages: which rows go where next, and when nothing more may be begun.

The last stage comes first: what is nearly done makes room. A stage gets no call as long as what waits in front
of the next one is as much as its workers will soon take, or as the blocks on the way take too many bytes. If
no call is in flight, one is made all the same.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future

from batchrunner.worker.stage_clock import Doing
from batchrunner.worker.stage_failures import Failures
from batchrunner.worker.stage_line import StageCall, StageLine
from batchrunner.worker.stage_pool import RowsLostError, StageAnswer
from batchrunner.worker.tickets import BytesOnTheWay, Kept, Stretch, Ticket, note_usage, outputs_of

MOST_TURNS = 3
"""How often the rows of a ticket may be lost with a node before it fails."""


class Staging:
    """The stages of one worker with all that is on its way through them. Used in one thread."""

    def __init__(
        self,
        lines: Sequence[StageLine],
        on_the_way: BytesOnTheWay,
        *,
        most_bytes: int,
        tries: int,
        later: Callable[[Callable[[], None]], None],
    ) -> None:
        """Prepare to hand out calls.

        Args:
            lines: The stages, in order.
            on_the_way: Where they count bytes.
            most_bytes: Bytes on the way beyond which only what is nearly done goes on.
            tries: Attempts at a row.
            later: Runs an action in the thread of this object: calls are completed in others.
        """
        self.lines = list(lines)
        self._on_the_way, self._most_bytes, self._later = on_the_way, most_bytes, later
        self._failures = Failures(tries=tries, fail=self.fail, finish=self._finish)
        self._open: dict[Ticket, Kept] = {}

    @property
    def tickets(self) -> int:
        """How many tickets are on their way."""
        return len(self._open)

    @property
    def has_room(self) -> bool:
        """Whether another ticket would soon be needed."""
        first = self.lines[0]
        return first.rows < first.most_waiting() and self._on_the_way.total < self._most_bytes

    def enter(self, ticket: Ticket, source: Kept) -> None:
        """Begin with *ticket*, whose rows are the block *source*."""
        self._on_the_way.keep(source)  # until the ticket is done: it may have to begin anew
        self._open[ticket] = source
        ticket.open = [0] * len(self.lines)
        self._begin(ticket)

    def _begin(self, ticket: Ticket) -> None:
        rows = range(ticket.rows)
        whole = Stretch(ticket, (), self._open[ticket], 0, ticket.rows, rows, ticket.turn)
        self.lines[0].arrive(whole)

    def fail(self, ticket: Ticket, error: Exception) -> None:
        """End *ticket* as a whole with *error*."""
        if not ticket.done.done():
            outputs, ticket.outputs = ticket.outputs, []
            self.release(outputs)
            ticket.done.set_exception(error)
            self._end(ticket)
            self._purge()

    def _end(self, ticket: Ticket) -> None:
        self._on_the_way.release(self._open.pop(ticket))

    def _purge(self) -> None:
        for line in self.lines:
            line.purge()

    def fail_all(self, error: Exception) -> None:
        """End all tickets with *error*."""
        for ticket in list(self._open):
            self.fail(ticket, error)

    def release(self, stretches: Sequence[Stretch]) -> None:
        """Note that the output *stretches* of a ticket have been read, or are not needed."""
        for stretch in stretches:
            self._on_the_way.release(stretch.kept)

    def advance(self, *, is_all: bool, is_late: bool = False) -> None:
        """Hand out what can be handed out.

        Args:
            is_all: Whether no other tickets come for now.
            is_late: Whether they take their time: a stage without a call then takes what there is.
        """
        while any(
            self._advance(line, is_all=is_all or (is_late and not line.calls))
            for line in reversed(self.lines)
        ):
            pass
        if (is_all or is_late) and not any(line.calls for line in self.lines):
            self._force()
        for line in self.lines:
            line.pool.wants(line.rows, idle=self._idle(line))

    def _idle(self, line: StageLine) -> Doing:
        """Return what a worker of *line* without a call is at."""
        if not self._open:
            return Doing.NOTHING
        is_blocked = line.rows >= line.size and not self._may_go_on(line)
        return Doing.WAITING_OUTPUT if is_blocked else Doing.WAITING_INPUT

    def _advance(self, line: StageLine, *, is_all: bool) -> bool:
        """Hand out calls of *line* as long as there is room; return whether there was one."""
        has_made = False
        while line.pool.room() > 0 and (line.first or self._may_go_on(line)):
            may_be_small = is_all and (self._is_last_for(line) or line.needs_no_more)
            call = line.next_call(may_be_small=may_be_small)
            if call is None:
                break
            self._submit(line, call)
            has_made = True
        return has_made

    def _force(self) -> None:
        """Make one call although there is no room behind it, or its batch is small: nothing else goes on."""
        for line in reversed(self.lines):
            call = line.next_call(may_be_small=True) if line.pool.room() > 0 else None
            if call is not None:
                self._submit(line, call)
                return

    def _is_last_for(self, line: StageLine) -> bool:
        """Whether no more rows come to *line*."""
        return all(before.is_idle for before in self.lines[: line.number])

    def _may_go_on(self, line: StageLine) -> bool:
        """Whether *line* may get a call, by what waits behind it."""
        if line is self.lines[-1]:
            return True
        behind = self.lines[line.number + 1]
        _, nbytes = line.expected(line.rows_in_calls + line.size)
        has_bytes = self._on_the_way.total + nbytes <= self._most_bytes
        # Not the rows that are still in calls: a stage that is slower has many workers, and a call for each.
        # If these counted, it would get no more calls than the faster one has places for.
        return has_bytes and (behind.is_starved or behind.rows < behind.most_waiting())

    def _submit(self, line: StageLine, call: StageCall) -> None:
        line.calls += 1
        line.rows_in_calls += call.rows
        future = line.pool.submit([stretch.span for stretch in call.taken])
        future.add_done_callback(lambda done: self._later(lambda: self._ended(line, call, done)))

    def _ended(self, line: StageLine, call: StageCall, future: Future[StageAnswer]) -> None:
        line.calls -= 1
        line.rows_in_calls -= call.rows
        error = future.exception()
        if error is None:
            self._answered(line, call, future.result())
        elif isinstance(error, RowsLostError):
            self._begin_anew(line, call, error)
        elif isinstance(error, Exception):
            self._failures.of_call(line, call, error)
        else:
            raise error

    def _answered(self, line: StageLine, call: StageCall, answer: StageAnswer) -> None:
        if len(answer.failed) + len(answer.untried) < call.rows:
            line.learn(call.rows, answer)
        note_usage(call.taken, answer.usage)
        keeps = line.stage.keeps_origins
        outputs = outputs_of(answer, call.taken, keeps_origins=keeps)
        self._failures.of_rows(line, call, answer)
        for output in outputs:
            self._pass_on(line, output)
        line.leave(call.taken)
        self._finish([stretch.ticket for stretch in call.taken])

    def _pass_on(self, line: StageLine, output: Stretch) -> None:
        if output.is_stale:
            return
        if line is self.lines[-1]:
            self._on_the_way.keep(output.kept)
            output.ticket.outputs.append(output)
        else:
            self.lines[line.number + 1].arrive(output)

    def _finish(self, tickets: Sequence[Ticket]) -> None:
        """Complete those of *tickets* of which no row is on its way any more."""
        for ticket in tickets:
            if not any(ticket.open) and not ticket.done.done():
                ticket.done.set_result(None)
                self._end(ticket)

    def _begin_anew(self, line: StageLine, call: StageCall, error: Exception) -> None:
        """Let the tickets of *call* begin again: rows of them are gone with their node."""
        tickets = call.tickets
        self._failures.end_doubt_of(line, call)
        line.leave(call.taken)
        for ticket in tickets:
            if ticket.turn + 1 >= MOST_TURNS:
                self.fail(ticket, error)
                continue
            self.release(ticket.outputs)
            ticket.begin_anew(len(self.lines))
            self._purge()
            self._begin(ticket)
