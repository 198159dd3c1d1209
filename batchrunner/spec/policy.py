"""What to do about rows and shards that fail."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from batchrunner.spec.fields import Budget, Count, Duration
from batchrunner.spec.section import NEUTRAL, Section

_LONGEST_CALL = 24 * 24 * 3600.0
"""Seconds; nothing waits for a pipe much longer: the kernel counts milliseconds in 32 bits."""


def _of_a_call(seconds: float) -> float:
    if seconds > _LONGEST_CALL:
        raise ValueError('must be at most "24d"')
    return seconds


class RetrySpec(Section):
    """How often to try again what the user's side fails."""

    max_attempts: Annotated[Count, NEUTRAL] = Field(
        default=3, description="Attempts at a row or a shard before it is given up."
    )


class ErrorsSpec(Section):
    """What to do about rows that cannot be read, mapped or written."""

    on_row_error: Literal["record", "fail"] = Field(
        default="record",
        description="`record` sets the row aside with its error and goes on; `fail` fails its shard.",
    )
    max_row_errors: Annotated[Budget, NEUTRAL] = Field(
        default=0.001,
        description="Rows that may be set aside before the run has failed: a count such as 10, or "
        "a share such as 0.001 or 0.1%.",
    )
    retry: RetrySpec = Field(
        default_factory=RetrySpec, description="How often to try again before giving up."
    )
    batch_timeout: Annotated[Annotated[Duration, AfterValidator(_of_a_call)] | None, NEUTRAL] = (
        Field(
            default=None,
            description="Longest time that a call of the capability may take, such as 30s. It then runs "
            "in a process of its own, which is killed when time is up.",
        )
    )

    def allowed(self, rows: float) -> float:
        """Return how many of *rows* may be set aside."""
        most = self.max_row_errors
        return most if isinstance(most, int) else most * rows
