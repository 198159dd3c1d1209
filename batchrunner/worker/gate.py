"""The gate: admits the calls of a run at the rate that `execution.rate_limit` allows.

One budget is handed out to all workers of a run; each process has one gate, which all its calls pass.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from batchrunner.worker.usage import Usage


@dataclass(frozen=True, slots=True)
class CallOutcome:
    """What one admitted call came to.

    Attributes:
        usage: What the call used (`usage_in` its answer, or `usage_of_error`); {} if it reports nothing,
            so that the tokens of an average call count.
        is_refused: Whether the service refused it because it is asked too much (429, overloaded), so
            that the rate has to shrink. Not for any other error.
        retry_after: Seconds for which the service wants no call; 0.0 if it did not say. All workers
            of the run wait for so long.
    """

    usage: Usage = field(default_factory=dict)
    is_refused: bool = False
    retry_after: float = 0.0


class Gate(Protocol):
    """Admits calls. Safe in several threads; never blocks for longer than a lock is held.

    Each `enter` that returned 0.0 is followed by exactly one `leave`, whatever the call raised, also
    if it is cancelled: until then it takes a place of `in_flight`.
    """

    @property
    def is_open(self) -> bool:
        """Whether it admits every call at once: one that used nothing need not pass it."""

    def enter(self) -> float:
        """Return 0.0 if the call may be made now; else the seconds after which to ask again.

        Nothing is reserved for a caller that has to wait: it may ask again, or never.
        """

    def leave(self, outcome: CallOutcome) -> None:
        """Give the place of one call back, and report what the call came to."""


class NoGate:
    """The gate of a run without a rate limit: admits every call."""

    is_open = True

    def enter(self) -> float:
        return 0.0

    def leave(self, outcome: CallOutcome) -> None:
        """Do nothing: there is no budget."""


NO_GATE = NoGate()
