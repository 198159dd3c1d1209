"""For how long a process is busy: that it computes, or would if there were a CPU for it."""

from __future__ import annotations

import resource
import threading
import time
from contextlib import suppress
from pathlib import Path

_TASKS = Path("/proc/self/task")
_LOOK_SECONDS = 0.25
"""How old what is counted elsewhere may be: to look at fifty threads takes as long as a small batch."""


def busy_process_seconds() -> float:
    """Return for how long this process has computed, or been ready to without a CPU to do it on.

    With the processes that it has started and waited for. Where a machine is full, what computes does not
    look as if it waited.
    """
    return time.process_time() + _elsewhere.seconds()


class _Elsewhere:
    """What children have computed, and for how long threads were ready without a CPU. Safe in several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._delays: dict[str, int] = {}
        self._looked = self._delayed = self._seconds = 0.0

    def seconds(self) -> float:
        """Return it as it was a moment ago."""
        if time.monotonic() - self._looked >= _LOOK_SECONDS:
            with self._lock:
                self._look()
        return self._seconds

    def _look(self) -> None:
        now, before = _delays(), self._delays
        self._delayed += sum(delay - before.get(thread, 0) for thread, delay in now.items()) / 1e9
        self._delays = now
        children = resource.getrusage(resource.RUSAGE_CHILDREN)
        self._seconds = self._delayed + children.ru_utime + children.ru_stime
        self._looked = time.monotonic()


_elsewhere = _Elsewhere()


def _delays() -> dict[str, int]:
    """Return the nanoseconds of each thread; nothing on another system, or with a kernel that does not count it."""
    found = {}
    for thread in _threads():
        with suppress(OSError, IndexError, ValueError):  # of a thread that ends just now
            found[thread.name] = int((thread / "schedstat").read_bytes().split()[1])
    return found


def _threads() -> list[Path]:
    try:
        return list(_TASKS.iterdir())
    except OSError:
        return []
