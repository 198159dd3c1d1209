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

from batchrunner.errors import CapabilityImportError
from batchrunner.user_code import blamed, is_out_of_memory, place_in_code
from batchrunner.worker.lost_calls import CallLostError
from batchrunner.worker.stage_line import Doubt, StageCall, StageLine
from batchrunner.worker.tickets import Stretch, Ticket, row_at

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
        elif is_final or any(stretch.origins is None for stretch in call.taken):
            self._fail_all(line, call, error)
        elif call.rows == 1:
            self._of_row(line, call, error)
        else:
            self._of_some(line, call, error)

    def _of_some(self, line: StageLine, call: StageCall, error: Exception) -> None:
        """Find the rows of *call* for which it failed: several rows, whose origins are known."""
        if isinstance(error, CallLostError):  # no halving: each death costs a new process
            line.first.extend(StageCall(row) for row in self._singles(line, call.taken))
        elif line.has_succeeded:
            self._halve(line, call.taken)
        elif line.is_broken:
            self._fail_all(line, call, error)
        elif line.doubt is not None:
            line.doubt.rest.append(call.taken)
        else:
            self._doubt(line, call, error)

    def of_rows(
        self, line: StageLine, call: StageCall, failed: Sequence[tuple[int, Exception]]
    ) -> None:
        """Note the rows of *call* that *failed*, by their index, while the others gave an answer."""
        for index, error in failed:
            row = row_at(call.taken, index)
            self._of_failed(line, call, row, blamed(error, line.stage.called))
        if call.doubt is not None:
            self._go_on(line, call.doubt)

    def _of_failed(self, line: StageLine, call: StageCall, row: Stretch, error: Exception) -> None:
        if call.doubt is None:
            self._failed(row, error)
            return
        line.hold(row)  # its ticket is not done before it is known what the failure means
        call.doubt.failed.append((row, error))

    def _failed(self, row: Stretch, error: Exception) -> None:
        if row.is_stale:
            return
        if row.origins is None:
            self._fail(row.ticket, error)
        else:
            row.ticket.failed.setdefault(row.origins[0], error)

    def _fail_all(self, line: StageLine, call: StageCall, error: Exception) -> None:
        tickets = call.tickets
        line.leave(call.taken)
        for ticket in tickets:
            self._fail(ticket, error)

    def _of_row(self, line: StageLine, call: StageCall, error: Exception) -> None:
        """Try the only row of *call* again, or note that it failed."""
        call.attempts += 1
        [row] = call.taken
        is_sample = row.ticket.is_sample or (call.doubt is not None and call.doubt.failed)
        tries = 1 if is_sample or isinstance(error, CallLostError) else self._tries
        if call.attempts < tries:
            line.first.append(call)
            return
        if is_out_of_memory(error):  # the row was the cause, not the size of the batch
            line.most = line.usual_most
        self.of_rows(line, call, [(0, error)])
        line.leave(call.taken)
        self._finish([row.ticket])

    def _halve(self, line: StageLine, taken: Sequence[Stretch]) -> None:
        rows = sum(map(len, taken))
        halves = line.parted(taken, rows // 2)
        line.first.extend(StageCall(half) for half in halves if half)

    def _doubt(self, line: StageLine, call: StageCall, error: Exception) -> None:
        """Try some rows of *call* alone, one after the other, before any other call of the stage."""
        rows = range(call.rows)
        # At random, as in `Batch.samples`: if every second row is bad, the sample must not be all bad.
        sample = sorted(random.Random(0).sample(rows, min(_PROBES, call.rows)))  # noqa: S311 - no secret
        probes, rest, at = deque[list[Stretch]](), list[list[Stretch]](), 0
        taken = list(call.taken)
        for index in sample:
            before, taken = line.parted(taken, index - at)
            row, taken = line.parted(taken, 1)
            rest.append(before)
            probes.append(row)
            at = index + 1
        line.doubt = Doubt(error, probes, [*rest, taken])
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
        tried = [row for row, _ in doubt.failed]
        for row, error in doubt.failed:
            self._failed(row, error)
        line.leave(tried)
        self._finish([row.ticket for row in tried])

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
        """Fail the tickets of *doubt* as a whole: all probes have failed alike."""
        line.doubt, line.is_broken = None, True
        stretches = [*(s for some in doubt.rest for s in some), *(row for row, _ in doubt.failed)]
        tickets = dict.fromkeys(stretch.ticket for stretch in stretches)
        line.leave(stretches)
        for ticket in tickets:
            self._fail(ticket, doubt.error)

    def _singles(self, line: StageLine, taken: Sequence[Stretch]) -> list[list[Stretch]]:
        singles, rest = [], list(taken)
        while rest:
            row, rest = line.parted(rest, 1)
            singles.append(row)
        return singles


def _kind(error: Exception) -> tuple[str, str]:
    return getattr(error, "type_name", type(error).__name__), place_in_code(error)
