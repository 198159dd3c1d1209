"""Calls a capability of mode `row`, row by row: a failure costs its row alone, an answer is asked for once."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from batchrunner.formats.chunk import Row
from batchrunner.worker.metering import MeteredGate
from batchrunner.worker.row_attempts import RowAttempts, RowRules
from batchrunner.worker.row_call import Outcomes, RowCall, RowOutcome
from batchrunner.worker.row_results import is_async
from batchrunner.worker.rows_at_once import CallPlace, RowsAtOnce
from batchrunner.worker.rows_in_turn import RowsInTurn, Stretch
from batchrunner.worker.waiting import Waits

RowAnswers = Callable[[], Outcomes]
"""Waits for what comes of each row."""


class RowCalls:
    """Calls one capability with rows, in turn or, if it is asynchronous, with many at a time.

    Attributes:
        is_async: Whether `start` makes the calls; else reading the answers does.
        waits: How its calls wait; set its `stop`, so that a stop of the run ends them.
    """

    def __init__(
        self,
        function: Any,
        kwargs: Mapping[str, Any],
        *,
        rules: RowRules,
        meter: MeteredGate | None = None,
        waits: Waits | None = None,
    ) -> None:
        """Prepare to call *function* with a row and *kwargs*.

        Args:
            function: The capability: a function, or an object that can be called.
            kwargs: Its keyword arguments.
            rules: What the spec says of calls.
            meter: What each call passes; without one, no gate.
            waits: How to wait.
        """
        self.waits = waits or Waits()
        self._attempts = RowAttempts(function, kwargs, rules, meter or MeteredGate())
        self._in_turn = RowsInTurn(self._attempts, self.waits)
        self.is_async = is_async(function)
        self._at_once = RowsAtOnce(self._attempts, rules, self.waits) if self.is_async else None

    @property
    def takes_stretches(self) -> bool:
        """Whether `start_stretch` may be called: with nothing to ask before each call, in turn."""
        return not self.is_async and self._attempts.meter.is_open

    def make_at(self, place: CallPlace) -> None:
        """Make asynchronous calls at *place* from now on, and not in this process."""
        if self._at_once is not None:
            self._at_once.place = place

    def call(self, rows: Sequence[Row], *, again: Callable[[int], Row]) -> list[RowOutcome]:
        """Call with each of *rows*, and return their outcomes; *again* returns the row of an index as it was.

        Raises:
            CallStoppedError: The run stops, and leaves no time for a wait.
        """
        if self.takes_stretches:
            return list(self.start_stretch(Stretch(rows, again))())
        return list(self.start([RowCall(row, partial(again, i)) for i, row in enumerate(rows)])())

    def start(self, calls: Sequence[RowCall], *, tries: int | None = None) -> RowAnswers:
        """Begin the *calls* if they are asynchronous; else reading the answers makes them.

        Those that have their answer, or used up their attempts, are not made again; those that an earlier
        start began are joined. The answers raise `CallStoppedError` if the run stops, and leaves no time for
        a wait.

        Args:
            calls: The rows of a batch.
            tries: How many attempts each row gets now; None for all that it has left.
        """
        most = self._attempts.policy.max_attempts
        for call in calls:
            call.most = most if tries is None else min(most, call.attempts + tries)
        if self._at_once is not None:
            return self._at_once.start(calls)
        return partial(self._in_turn.of_calls, calls)

    def start_stretch(self, stretch: Stretch) -> RowAnswers:
        """Do as `start`, with rows that come for the first time, and cheaper."""
        return partial(self._in_turn.of_stretch, stretch)

    def close(self) -> None:
        """End the calls that are in flight, and the thread of their loop."""
        if self._at_once is not None:
            self._at_once.close()

    def renew(self) -> None:
        """Begin another attempt at the rows that failed: what failed before decides nothing any more."""
        self._attempts.probe.renew()

    @property
    def doubt(self) -> Exception | None:
        """The error for which rows are left alone: that of the first that failed; None if none are."""
        return self._attempts.probe.doubt
