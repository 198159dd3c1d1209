"""The errors that stand for calls without an answer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from batchrunner.worker.usage import NO_USAGE, Usage


class CallLostError(Exception):
    """The call has no answer: it ended its process, or exceeded the time limit."""

    type_name = "CapabilityDied"


class CallTimedOutError(CallLostError):
    """The call exceeded the time limit."""

    type_name = "CapabilityTimedOut"


class CallStoppedError(Exception):
    """The run stops, and leaves no time for what the call would have to wait for: its rows were not tried."""


class RowsFailedError(Exception):
    """Rows of a batch of mode `row` failed, with all their attempts; the others are answered.

    Attributes:
        errors: The error of each row that failed, by its index in the batch, in order.
        has_answers: Whether another row is answered.
        usage: What the calls with the rows that failed have used.
    """

    def __init__(
        self, errors: Mapping[int, Exception], has_answers: bool, usage: Usage = NO_USAGE
    ) -> None:
        super().__init__(f"{len(errors):,} rows failed")
        self.errors, self.has_answers, self.usage = dict(errors), has_answers, usage

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.errors, self.has_answers, self.usage)
