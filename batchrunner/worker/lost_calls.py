"""The errors that stand for calls without an answer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from batchrunner.user_code import CallRaisedError
from batchrunner.worker.usage import NO_USAGE, Usage


class CallLostError(Exception):
    """The call has no answer: it ended its process, or exceeded the time limit."""

    type_name = "CapabilityDied"


class CallTimedOutError(CallLostError):
    """The call exceeded the time limit."""

    type_name = "CapabilityTimedOut"


class CallLostBesideError(CallLostError):
    """The process of the call ended with other calls in flight: any of them may be the reason."""


class RowTimedOutError(Exception):
    """The call of one row exceeded its time limit, and was cancelled: an attempt like any other."""

    type_name = "CapabilityTimedOut"


def timed_out(seconds: float | None) -> RowTimedOutError:
    """Return the error of a call that was cancelled after *seconds*."""
    return RowTimedOutError(f"the call took more than {seconds:g} s, see errors.row_timeout")


class RemoteCallError(CallRaisedError):
    """Stands for an error that a call in another process raised, with what a retry is decided by.

    Attributes:
        kinds: Module and name of its type and of those above it.
        status: As `Trouble.status`.
        retry_after: As `Trouble.retry_after`.
        usage: What the call used.
    """

    def __init__(self, type_name: str, message: str, traceback: str, facts: ErrorFacts) -> None:
        super().__init__(type_name, message, traceback)
        self.facts, self.kinds, self.usage = facts, facts.kinds, facts.usage
        self.status, self.retry_after = facts.trouble

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.type_name, str(self), self.traceback, self.facts), self.__dict__


class ErrorFacts(NamedTuple):
    """What a retry after an error is decided by: see `RemoteCallError`."""

    kinds: tuple[tuple[str, str], ...]
    trouble: tuple[int | None, float | None]
    usage: Mapping[str, float]


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
