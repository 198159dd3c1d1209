"""Waits between the attempts of a call; a stop of the run ends those that it leaves no time for."""

from __future__ import annotations

import asyncio
import math
import time

from batchrunner.worker.lost_calls import CallStoppedError
from batchrunner.worker.stopping import StopSignal

_LOOK_SECONDS = 0.2


class Stopped:
    """The stop of what ends now: nothing waits any more."""

    ends_shards = False

    def waited(self) -> float:
        return math.inf


class Waits:
    """Waits in one worker.

    Attributes:
        stop: Says whether the run stops; None as long as nothing can stop it.
    """

    def __init__(self, drain: float = math.inf) -> None:
        """Wait, after a stop, only for what ends within *drain* seconds of it."""
        self.stop: StopSignal | None = None
        self._drain = drain

    def sleep(self, seconds: float) -> None:
        """Wait *seconds*.

        Raises:
            CallStoppedError: The run stops before.
        """
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            self._check(left)
            time.sleep(min(left, _LOOK_SECONDS))

    async def sleep_later(self, seconds: float) -> None:
        """Do as `sleep`, in an event loop."""
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            self._check(left)
            await asyncio.sleep(min(left, _LOOK_SECONDS))

    def _check(self, left: float) -> None:
        # Shards in flight may be finished in the time that a stop gives: a short wait goes on.
        waited = self.stop.waited() if self.stop else 0.0
        if waited and waited + left > self._drain:
            raise CallStoppedError(f"the run stops, and the call would wait {left:.1f} s more")
