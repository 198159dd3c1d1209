"""The errors that stand for calls without an answer."""

from __future__ import annotations

from collections.abc import Mapping


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
    """

    def __init__(self, errors: Mapping[int, Exception], has_answers: bool) -> None:
        super().__init__(f"{len(errors):,} rows failed")
        self.errors, self.has_answers = dict(errors), has_answers

    def __reduce__(self) -> tuple[type[RowsFailedError], tuple[Mapping[int, Exception], bool]]:
        return type(self), (self.errors, self.has_answers)
