"""What happens when a call of a stage fails: its rows are halved there, until the guilty ones stand alone.

Earlier stages are not called again for that. Where it is not known which rows of the source the rows of the
call come from, the ticket fails as a whole, and its batch is halved at the source (`worker/resolving.py`).

Code that fails every row is recognised early: as long as no call of the stage has succeeded, rows from all over
the first call that failed are tried alone. If all of them fail alike, the ticket fails as a whole: the rows of
the source, and the budget of the run, then decide.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Sequence
from itertools import groupby

from batchrunner.errors import CapabilityImportError
from batchrunner.user_code import blamed, is_out_of_memory, place_in_code
from batchrunner.worker.lost_calls import CallLostError
from batchrunner.worker.stage_line import Doubt, StageCall, StageLine
from batchrunner.worker.stage_pool import StageAnswer
from batchrunner.worker.tickets import Stretch, Ticket, note_usage, rows_at
from batchrunner.worker.usage import usage_of_error

_PROBES = 3
"""How many rows of the first call that fails are tried alone."""


class Failures:
    """Finds the rows for which calls failed. Used in one thread."""

    def __init__(
        self,
        *,
        tries: int,
        fail: Callable[[Ticket, Exception], None],
        finish: Callable[[Sequence[Ticket]], None],
    ) -> None:
        """Try each row *tries* times; *fail* ends a ticket as a whole, *finish* those that are through."""
        self._tries, self._fail, self._finish = tries, fail, finish

    def of_call(self, line: StageLine, call: StageCall, error: Exception) -> None:
        """Decide what becomes of *call*, which raised *error*."""
        error = blamed(error, line.stage.called)
        is_final = isinstance(error, CapabilityImportError)
        if is_final or not call.tickets:
            self.end_doubt_of(line, call)
        if not call.tickets:
            line.leave(call.taken)
        elif call.rows > 1 and is_out_of_memory(error):
            # From now on: what was too much once is too much again.
            line.most = min(line.most, max(call.rows // 2, 1))
            self._halve(line, call.taken)
        elif is_final:
            self._fail_all(line, call, error)
        elif call.doubt is not None or (call.rows == 1 and _are_known(call.taken)):
            self._of_row(line, call, error)
        elif not _are_known(call.taken) and len(_by_ticket(call.taken)) == 1:
            self._fail_all(line, call, error)
        else:
            self._of_some(line, call, error)

    def _of_some(self, line: StageLine, call: StageCall, error: Exception) -> None:
        """Find the rows of *call* for which it failed: several rows, of several tickets if origins are not known."""
        if isinstance(error, CallLostError):  # no halving: each death costs a new process
            parts = (
                self._singles(line, call.taken)
                if _are_known(call.taken)
                else _by_ticket(call.taken)
            )
            line.first.extend(StageCall(part) for part in parts)
        elif line.has_succeeded:
            self._halve(line, call.taken)
        elif line.is_broken:
            self._of_broken(line, call, error)
        elif line.doubt is not None:
            line.doubt.rest.append(call.taken)
        else:
            self._doubt(line, call, error)

    def _of_broken(self, line: StageLine, call: StageCall, error: Exception) -> None:
        """Fail the ticket of *call*, whose stage is broken; if it is of several, each will have a call of its own."""
        if len(_by_ticket(call.taken)) == 1:
            self._fail_all(line, call, error)
            return
        for stretch in call.taken:
            line.wait(stretch)

    def of_rows(self, line: StageLine, call: StageCall, answer: StageAnswer) -> None:
        """Note the rows of *call* that failed by its *answer*, with all their attempts, while others were answered."""
        failed = []
        for index, error in answer.failed:
            one = StageCall(rows_at(call.taken, index, index + 1), attempts=self._tries)
            failed.append((one, blamed(error, line.stage.called)))
            self._of_failed(line, call.doubt, *failed[-1])
        if call.doubt is not None:
            self._go_on(line, call.doubt)
        elif answer.untried:
            self._of_untried(line, _runs(call.taken, answer.untried), failed)

    def _of_untried(
        self,
        line: StageLine,
        untried: list[list[Stretch]],
        failed: Sequence[tuple[StageCall, Exception]],
    ) -> None:
        """Decide what becomes of rows that were left alone since those that *failed* did."""
        rest = StageCall([stretch for run in untried for stretch in run])
        if not rest.tickets:
            return
        for stretch in rest.taken:
            line.hold(stretch)
        if line.has_succeeded:
            line.first.append(rest)
        elif line.doubt is not None:
            line.doubt.rest.append(rest.taken)
        elif line.is_broken:
            self._of_broken(line, rest, failed[0][1])
        else:
            self._doubt(line, rest, failed[0][1], failed=failed[:1])

    def _of_failed(
        self, line: StageLine, doubt: Doubt | None, call: StageCall, error: Exception
    ) -> None:
        """Note that the only row of *call* failed; if it is a probe, only until it is known what that means."""
        [row] = call.taken
        if doubt is None:
            self._failed(call, error)
        else:
            line.hold(row)
            doubt.failed.append((call, error))

    def _failed(self, call: StageCall, error: Exception) -> None:
        [row] = call.taken
        if row.is_stale:
            return
        if row.origins is None:
            self._fail(row.ticket, error)
            return
        row.ticket.failed.setdefault(row.origins[0], error)
        _count(call)

    def _fail_all(self, line: StageLine, call: StageCall, error: Exception) -> None:
        tickets = call.tickets
        line.leave(call.taken)
        for ticket in tickets:
            self._fail(ticket, error)

    def _of_row(self, line: StageLine, call: StageCall, error: Exception) -> None:
        """Try the only row of *call* again, or note that it failed."""
        call.attempts += 1
        [row] = call.taken
        if used := usage_of_error(error):
            note_usage(call.taken, ((0, used),))
        if isinstance(error, CallLostError):
            call.attempts = self._tries
        is_one_enough = row.ticket.is_sample or (call.doubt is not None and call.doubt.failed)
        if self._has_attempts(call) and not is_one_enough:
            line.first.append(call)
            return
        if is_out_of_memory(error):  # the row was the cause, not the size of the batch
            line.most = line.usual_most
        self._of_failed(line, call.doubt, call, error)
        if call.doubt is not None:
            self._go_on(line, call.doubt)
        line.leave(call.taken)
        self._finish([row.ticket])

    def _has_attempts(self, call: StageCall) -> bool:
        [row] = call.taken
        before = row.ticket.attempts.get(row.origins[0], 0) if row.origins else 0
        return call.attempts + before < self._tries

    def _halve(self, line: StageLine, taken: Sequence[Stretch]) -> None:
        tickets = [] if _are_known(taken) else _by_ticket(taken)
        if len(tickets) > 1:  # each is to answer for its own rows only
            middle = len(tickets) // 2
            halves = [
                [s for one in some for s in one] for some in (tickets[:middle], tickets[middle:])
            ]
        else:
            halves = list(line.parted(taken, sum(map(len, taken)) // 2))
        line.first.extend(StageCall(half) for half in halves if half)

    def _doubt(
        self,
        line: StageLine,
        call: StageCall,
        error: Exception,
        *,
        failed: Sequence[tuple[StageCall, Exception]] = (),
    ) -> None:
        """Try some rows of *call* alone, one after the other, before any other call of the stage.

        Those that have *failed* already are not tried again.
        """
        rows = range(call.rows)
        # At random, as in `Batch.samples`: if every second row is bad, the sample must not be all bad.
        count = min(_PROBES - len(failed), call.rows)
        sample = sorted(random.Random(0).sample(rows, count))  # noqa: S311 - no secret
        probes, rest, at = deque[list[Stretch]](), list[list[Stretch]](), 0
        taken = list(call.taken)
        for index in sample:
            before, taken = line.parted(taken, index - at)
            row, taken = line.parted(taken, 1)
            rest.append(before)
            probes.append(row)
            at = index + 1
        line.doubt = Doubt(error, probes, [*rest, taken])
        for one, why in failed:
            self._of_failed(line, line.doubt, one, why)
        self._probe(line, line.doubt)

    def end_doubt_of(self, line: StageLine, call: StageCall) -> None:
        """Go on as usual if *call* is a probe: nothing can be learned from it."""
        if call.doubt is not None and line.doubt is call.doubt:
            self._resume(line, call.doubt)

    def _resume(self, line: StageLine, doubt: Doubt) -> None:
        """End *doubt*: rows that failed are bad data, not code; the others are called again."""
        line.doubt = None
        calls = (StageCall(some) for some in (*doubt.rest, *doubt.probes) if some)
        line.first.extend(calls)
        for one, error in doubt.failed:
            self._settle(line, one, error)

    def _settle(self, line: StageLine, call: StageCall, error: Exception) -> None:
        """Let the only row of *call*, which failed as a probe, have the attempts that it has left; or it has failed."""
        if self._has_attempts(call) and not call.taken[0].ticket.is_sample:
            line.first.append(StageCall(call.taken, call.attempts))
            return
        self._failed(call, error)
        line.leave(call.taken)
        self._finish(call.tickets)

    def _probe(self, line: StageLine, doubt: Doubt) -> None:
        line.first.append(StageCall(doubt.probes.popleft(), doubt=doubt))

    def _go_on(self, line: StageLine, doubt: Doubt) -> None:
        """Go on after a probe of *doubt*: it has succeeded, or its failure is noted."""
        if line.has_succeeded or len({_kind(error) for _, error in doubt.failed}) > 1:
            self._resume(line, doubt)
        elif doubt.probes:
            self._probe(line, doubt)
        else:
            self._break(line, doubt)

    def _break(self, line: StageLine, doubt: Doubt) -> None:
        """Fail the tickets of the probes of *doubt* as a whole: all have failed alike.

        The rows of others wait until their answer is waited for; neither they, nor a row that is all of its
        ticket, are to answer for the errors of others.
        """
        line.doubt, line.is_broken = None, True
        stretches = [stretch for some in doubt.rest for stretch in some]
        tickets = {one.taken[0].ticket: None for one, _ in doubt.failed}
        if not line.stage.keeps_origins:  # it gets neighbours only, and of one ticket
            tickets |= {stretch.ticket: None for stretch in stretches}
        for one, error in doubt.failed:
            if one.taken[0].ticket.rows == 1:
                self._settle(line, one, error)
                continue
            if self._has_attempts(one):
                _count(one)
            else:
                self._failed(one, error)
            line.leave(one.taken)
        for stretch in stretches:
            if stretch.ticket in tickets and stretch.ticket.rows > 1:
                line.leave([stretch])
            else:
                line.wait(stretch)
        for ticket in tickets:
            if ticket.rows > 1:
                self._fail(ticket, doubt.error)

    def _singles(self, line: StageLine, taken: Sequence[Stretch]) -> list[list[Stretch]]:
        singles, rest = [], list(taken)
        while rest:
            row, rest = line.parted(rest, 1)
            singles.append(row)
        return singles


def _count(call: StageCall) -> None:
    """Let the only row of *call* have used up its attempts, in whatever ticket it is called next."""
    [row] = call.taken
    for origin in row.origins or ():
        attempts = row.ticket.attempts
        attempts[origin] = attempts.get(origin, 0) + call.attempts


def _are_known(taken: Sequence[Stretch]) -> bool:
    """Return whether it is known of all rows which row of the source they come from."""
    return all(stretch.origins is not None for stretch in taken)


def _runs(taken: Sequence[Stretch], indices: Sequence[int]) -> list[list[Stretch]]:
    """Return the rows of the stretches *taken* with these *indices*, neighbours together."""
    starts = [i for n, i in enumerate(indices) if not n or indices[n - 1] != i - 1]
    stops = [i + 1 for n, i in enumerate(indices) if i + 1 not in indices[n + 1 : n + 2]]
    return [rows_at(taken, start, stop) for start, stop in zip(starts, stops, strict=True)]


def _by_ticket(taken: Sequence[Stretch]) -> list[list[Stretch]]:
    """Return the stretches *taken*, which are in order, of each ticket."""
    return [list(some) for _, some in groupby(taken, key=lambda stretch: stretch.ticket.number)]


def _kind(error: Exception) -> tuple[str, str]:
    return getattr(error, "type_name", type(error).__name__), place_in_code(error)
