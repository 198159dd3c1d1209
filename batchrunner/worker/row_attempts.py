"""Attempts at rows: what a call gets, what came of it, and what follows.

A row that fails is tried again as `errors.retry` says. A service that refuses a call for now makes its row
wait; that is no attempt.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from batchrunner.errors import CapabilityImportError
from batchrunner.formats.chunk import Row
from batchrunner.spec.execution import ErrorsSpec
from batchrunner.user_code import free_memory_of, is_out_of_memory
from batchrunner.worker.dividing import check_counts
from batchrunner.worker.gate import CallOutcome
from batchrunner.worker.lost_calls import CallLostBesideError, CallLostError
from batchrunner.worker.metering import MeteredGate
from batchrunner.worker.retrying import RetryPolicy, Trouble, not_waited_for, trouble_of
from batchrunner.worker.row_call import Answered, RowCall
from batchrunner.worker.row_probe import Probe
from batchrunner.worker.row_results import fanned_out
from batchrunner.worker.usage import NO_USAGE, Usage, added, usage_of_error

Came = list[Row] | Exception
"""What came of one call: the rows that the capability gave, or what it raised."""

_NOTHING_USED = CallOutcome()


@dataclass(frozen=True, slots=True)
class RowRules:
    """What the spec says of the calls of a capability of mode `row`.

    Attributes:
        errors: How often to try a row, when, and for how long.
        max_concurrency: Calls in flight at a time, of all batches, if they are asynchronous.
        one_to_one: Whether each row has to give exactly one.
    """

    errors: ErrorsSpec
    max_concurrency: int = 8
    one_to_one: bool = False


class RowAttempts:
    """Makes attempts at rows with one capability, and notes what comes of them.

    Attributes:
        function: The capability.
        kwargs: Its keyword arguments.
        meter: What admits each call, and counts what it used.
        probe: The row that shows whether the capability fails every row.
        policy: What follows an attempt that failed.
    """

    def __init__(
        self, function: Any, kwargs: Mapping[str, Any], rules: RowRules, meter: MeteredGate
    ) -> None:
        self.function, self.kwargs, self.meter = function, kwargs, meter
        self.probe, self.policy = Probe(), RetryPolicy(rules.errors.retry)
        self._one_to_one = rules.one_to_one

    def taken(self, call: RowCall) -> Row:
        """Return the row of *call*, for one call."""
        row = call.take()
        call.brings_usage = self.meter.brings_usage(row)
        return row

    def checked(self, result: Any) -> list[Row]:
        """Return what the capability returned for a row as rows.

        Raises:
            TypeError: It is no row, and no rows.
            ValueError: It has to be exactly one row, and is not.
        """
        rows = fanned_out(result)
        if self._one_to_one:
            check_counts([len(rows)], [1])
        return rows

    def note(self, call: RowCall, came: Came) -> float | None:
        """Note what *came* of an admitted attempt at *call*; return the seconds until the next, None for none."""
        if not isinstance(came, Exception):
            self.meter.leave(self._accepted(call, came))
            return None
        if is_out_of_memory(came):  # before the next call, which needs the room
            free_memory_of(came)
        trouble, used = _said_by(came)
        if used:
            call.usage = added(call.usage, used)
        self.meter.leave(CallOutcome(used, trouble.is_refused, trouble.pause_of_all))
        return self._after(call, came, trouble)

    def _accepted(self, call: RowCall, rows: list[Row]) -> CallOutcome:
        used = NO_USAGE if call.brings_usage else self.meter.usage_in(rows)
        if used:
            call.usage = added(call.usage, used)
        call.answer = Answered(rows, call.usage)
        if call.keep is not None:
            call.keep(call.answer)
        self.probe.succeed()
        return CallOutcome(used) if used else _NOTHING_USED

    def _after(self, call: RowCall, error: Exception, trouble: Trouble) -> float | None:
        if isinstance(error, CallLostBesideError):
            call.is_suspect = True
            return None
        now = self.policy.clock()
        call.refused_at = now if call.refused_at is None else call.refused_at
        waited = now - call.refused_at
        wait = self.policy.wait(trouble, waited=waited)
        if wait is not None:
            return wait
        call.error, call.attempts = error, call.attempts + 1
        # What ends its process is not tried again: a try would cost another process. Nor is an engine that is
        # lost for good: no row can succeed.
        is_lost = isinstance(error, CallLostError | CapabilityImportError)
        call.is_dropped = is_lost or not self.policy.may_retry(error, trouble)
        if trouble.retry_after is not None and self.policy.is_too_long(trouble, waited=waited):
            call.is_dropped = True
            call.error = not_waited_for(error, trouble, max_wait=self.policy.max_wait)
        return None if call.is_settled else self.policy.pause(call.attempts, trouble)


def _said_by(error: Exception) -> tuple[Trouble, Usage]:
    try:
        return trouble_of(error), usage_of_error(error)
    except Exception:  # noqa: BLE001 - attributes of an error are the user's code, too
        return Trouble(), NO_USAGE
