"""The one retry policy: full-jitter exponential backoff, bounded in attempts and in time."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

T = TypeVar("T")


class AttemptError(Exception):
    """One attempt failed.

    Attributes:
        passes: Whether the same attempt may succeed later.
        retry_after: Seconds that the server asked to wait before a retry; 0 when it did not.
        attempts: How many attempts were made; this is the error of the last one.
    """

    passes = False
    retry_after = 0.0
    attempts = 1


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """Limits how often, and for how long, a request is retried.

    Attributes:
        max_attempts: Attempts in all, the first one included.
        deadline: Seconds from the first attempt after which no attempt starts and no wait goes on.
        first_delay: Longest wait before the second attempt, in seconds; doubles from there on.
        max_delay: Longest wait before any attempt, in seconds.
    """

    max_attempts: int = 6
    deadline: float = 180.0
    first_delay: float = 0.25
    max_delay: float = 10.0

    def longest_delay(self, failures: int) -> float:
        """Return the longest wait after *failures* failed attempts, in seconds."""
        return min(self.max_delay, self.first_delay * 2.0 ** (failures - 1))


STANDARD = RetryPolicy()


@dataclass(frozen=True, slots=True)
class Timing:
    """The clock, the sleep and the randomness of retries; tests pass their own."""

    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    random: Callable[[], float] = random.random


async def retrying(
    attempt: Callable[[float], Awaitable[T]],
    *,
    policy: RetryPolicy,
    timing: Timing = Timing(),
) -> T:
    """Call *attempt* until it succeeds, retrying failures that may pass; return its result.

    Args:
        attempt: Called with the seconds that are left, which it must not exceed.
        policy: When to give up.
        timing: Clock, sleep and randomness.

    Raises:
        AttemptError: The last failure, with `attempts` set.
    """
    end = timing.clock() + policy.deadline
    failures = 0
    while True:
        try:
            return await attempt(end - timing.clock())
        except AttemptError as failure:
            failure.attempts = failures = failures + 1
            # Full jitter: callers that failed together must not come back together.
            delay = max(timing.random() * policy.longest_delay(failures), failure.retry_after)
            out_of_time = timing.clock() + delay >= end
            if not failure.passes or failures >= policy.max_attempts or out_of_time:
                raise
        await timing.sleep(delay)
