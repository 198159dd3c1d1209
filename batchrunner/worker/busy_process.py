"""For how long a process is busy: that it computes, or would if there were a CPU for it."""

from __future__ import annotations

import resource
import threading
import time
from pathlib import Path

_TASKS = Path("/proc/self/task")
_LOOK_SECONDS = 0.25
"""How old the waits for a CPU may be: to look for those of fifty threads takes as long as a small batch."""


class _Delays:
    """How long all threads of this process have been ready without a CPU. Safe in several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._of_threads: dict[str, int] = {}
        self._looked, self._seconds = 0.0, 0.0

    def seconds(self) -> float:
        """Return it as it was a moment ago."""
        with self._lock:
            if time.monotonic() - self._looked >= _LOOK_SECONDS:
                self._look()
                self._looked = time.monotonic()
            return self._seconds

    def _look(self) -> None:
        now = _delays()
        before, self._of_threads = self._of_threads, now
        waited = sum(delay - before.get(thread, 0) for thread, delay in now.items())
        self._seconds += max(waited, 0) / 1e9


def _delays() -> dict[str, int]:
    """Return the nanoseconds of each thread; nothing on another system, or with a kernel that does not count it."""
    found = {}
    try:
        for thread in _TASKS.iterdir():
            found[thread.name] = int((thread / "schedstat").read_bytes().split()[1])
    except (OSError, IndexError, ValueError):  # also of a thread that ends just now
        pass
    return found


_delays_of_process = _Delays()


def busy_process_seconds() -> float:
    """Return for how long this process has computed, or been ready to without a CPU to do it on.

    With the processes that it has started and waited for. Where a machine is full, what computes does not
    look as if it waited.
    """
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    own = time.process_time() + _delays_of_process.seconds()
    return own + children.ru_utime + children.ru_stime
