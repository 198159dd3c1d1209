"""Calls a capability that is not asynchronous with one row after the other.

Most rows come for the first time and have an answer at once. A plain loop calls those: what each costs beside
the call decides what a capability of a few microseconds costs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from batchrunner.formats.chunk import Row
from batchrunner.user_code import Containment
from batchrunner.worker.gate import CallOutcome
from batchrunner.worker.row_attempts import Came, RowAttempts
from batchrunner.worker.row_call import Outcomes, RowCall, outcomes_of
from batchrunner.worker.waiting import Waits


class Stretch:
    """The rows of a batch that come for the first time, on their way.

    Attributes:
        waiting: The rows that are not called yet, the next one last.
        outcomes: What has come of the others.
        calls: The calls of rows with which something was unusual, by index.
    """

    def __init__(self, rows: Sequence[Row], again: Callable[[int], Row]) -> None:
        """Take *rows*; *again* returns the one of an index as the source has it."""
        self.waiting = [*reversed(rows)]  # each is let go with its call: the call may make it large
        self.outcomes, self.calls = Outcomes(), dict[int, RowCall]()
        self._size, self._again = len(rows), again

    def __len__(self) -> int:
        return self._size

    @property
    def is_done(self) -> bool:
        """Whether each row has its outcome."""
        return len(self.outcomes) == self._size

    def next_call(self) -> RowCall:
        """Return the call of the first row without an outcome."""
        index = len(self.outcomes)
        row = self.waiting.pop() if len(self.waiting) == self._size - index else None
        call = self.calls[index] = RowCall(row, lambda: self._again(index))
        return call


class RowsInTurn:
    """Calls with one row after the other."""

    def __init__(self, attempts: RowAttempts, waits: Waits) -> None:
        self._attempts, self._waits = attempts, waits

    def of_calls(self, calls: Sequence[RowCall]) -> Outcomes:
        """Settle *calls*, and return what came of them.

        Raises:
            CallStoppedError: The run stops, and leaves no time for a wait.
        """
        probe = self._attempts.probe
        with Containment() as containment:
            for call in calls:
                if call.is_settled:
                    continue
                if len(calls) > 1 and probe.is_hopeless:
                    break
                self._settle(call, containment)
                if len(calls) > 1:
                    probe.take(call)
        return outcomes_of(calls)

    def of_stretch(self, stretch: Stretch) -> Outcomes:
        """Do as `of_calls`, for rows that come for the first time."""
        probe, outcomes = self._attempts.probe, stretch.outcomes
        with Containment() as containment:
            while not stretch.is_done:
                if len(stretch) > 1 and probe.is_hopeless:
                    outcomes.add(None)
                    continue
                came = self._streak(stretch, containment)
                if stretch.is_done:
                    break
                call = stretch.next_call()
                call.most = self._attempts.policy.max_attempts
                self._settle(call, containment, came)
                outcomes.add(call.outcome)
                if len(stretch) > 1:
                    probe.take(call)
        return outcomes

    def _streak(self, stretch: Stretch, containment: Containment) -> Came | None:
        """Call with the next rows of *stretch* until something is unusual, and keep their answers.

        Return what came of the call with the row at which it ended; None if that is not called yet.
        """
        came: Came | None
        before = len(stretch.outcomes)
        try:
            came = containment.call(self._call_each, stretch, containment)
        except Exception as error:  # noqa: BLE001 - the user's code may raise anything
            came = error
        if len(stretch.outcomes) > before:
            self._attempts.probe.succeed()
        return came

    def _call_each(self, stretch: Stretch, containment: Containment) -> list[Row] | None:
        attempts, rows, outcomes = self._attempts, stretch.waiting, stretch.outcomes
        function, kwargs, usage_key = attempts.function, attempts.kwargs, attempts.meter.usage_key
        keep, count, check = outcomes.rows.append, outcomes.counts.append, containment.check
        while rows:
            if usage_key in rows[-1] and attempts.meter.brings_usage(rows[-1]):
                return None
            result = function(rows.pop(), **kwargs)
            check()
            if type(result) is dict and usage_key not in result:
                keep(result.copy())
                count(1)
                continue
            given = attempts.checked(result)
            check()  # a generator is the user's code, too
            if attempts.meter.usage_in(given):
                return given
            outcomes.rows.extend(given)
            count(len(given))
        return None

    def _settle(self, call: RowCall, containment: Containment, came: Came | None = None) -> None:
        """Make attempts at *call* until it is settled; *came* is what came of the first, if it is made."""
        wait: float | None = 0.0
        while wait is not None:
            if wait:
                self._waits.sleep(wait)
            while seconds := self._attempts.meter.enter():
                self._waits.sleep(seconds)
            came = self._attempt(call, containment) if came is None else came
            wait, came = self._attempts.note(call, came), None

    def _attempt(self, call: RowCall, containment: Containment) -> Came:
        try:
            return containment.call(self._answer, call)
        except Exception as error:  # noqa: BLE001 - the user's code may raise anything
            return error
        except BaseException:  # a real interrupt
            self._attempts.meter.leave(CallOutcome())
            raise

    def _answer(self, call: RowCall) -> list[Row]:
        attempts = self._attempts
        return attempts.checked(attempts.function(attempts.taken(call), **attempts.kwargs))
