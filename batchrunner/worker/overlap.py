"""Decides whether a worker reads and writes in threads of their own, or in that of the calls.

Threads help while one of them waits, for a storage, an accelerator or a service, or while the worker
has more than one CPU. Else they only cost: data grows cold in the cache on its way from one to the
next, and the interpreter's lock changes hands (docs/decisions/0056).
"""

from __future__ import annotations

import time
from collections.abc import Callable

from batchrunner.worker.cpu_time import thread_cpu_time

_LOOK_SECONDS = 0.25
_SHARE = 0.25
"""The share of the time for which one thread may wait: threads of their own cost about as much."""


def busy_seconds() -> float:
    """Return for how long this thread has computed, or been ready to without a CPU to do it on.

    On a full machine, more threads would only wait for that CPU, too.
    """
    return thread_cpu_time().busy


class Overlap:
    """Turns on once the thread that calls `look` waits for more than a quarter of its time.

    It takes two looks in a row: the first call may wait for what it imports.

    Attributes:
        is_on: Whether reading and writing overlap with the calls. Never turned off again.
    """

    def __init__(
        self,
        *,
        is_on: bool,
        clock: Callable[[], float] = time.monotonic,
        cpu: Callable[[], float] = busy_seconds,
    ) -> None:
        """Start on or off; *clock* and *cpu* count the seconds that pass, and those that this thread is busy."""
        self.is_on, self._clock, self._cpu = is_on, clock, cpu
        self._since, self._cpu_then = clock(), cpu()
        self._has_waited = False

    def look(self) -> bool:
        """Measure the time since the last look, if it was long enough; return `is_on`."""
        now = self._clock()
        if not self.is_on and now - self._since >= _LOOK_SECONDS:
            cpu = self._cpu()
            waited = now - self._since - (cpu - self._cpu_then)
            waits = waited > _SHARE * (now - self._since)
            self.is_on, self._has_waited = waits and self._has_waited, waits
            self._since, self._cpu_then = now, cpu
        return self.is_on
