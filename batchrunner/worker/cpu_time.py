"""The time of CPUs: for how long a thread or a process computes, and for how long it would if there were one for it."""

from __future__ import annotations

import resource
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

_OWN = Path("/proc/thread-self")
_TASKS = Path("/proc/self/task")
_LOOK_SECONDS = 0.25
"""How old what is counted elsewhere may be: to look at fifty threads takes as long as a small batch."""


class CpuTime(NamedTuple):
    """Seconds of a thread or a process.

    Attributes:
        used: For how long it computed.
        waited: For how long it was ready to, and had no CPU; of several threads, the sum.
    """

    used: float = 0.0
    waited: float = 0.0

    @property
    def busy(self) -> float:
        """Both: where a machine is full, what computes does not look as if it waited for anything else."""
        return self.used + self.waited

    def plus(self, other: CpuTime) -> CpuTime:
        return CpuTime(self.used + other.used, self.waited + other.waited)

    def since(self, before: CpuTime) -> CpuTime:
        """Return what came after *before*."""
        return CpuTime(self.used - before.used, self.waited - before.waited)


def thread_cpu_time() -> CpuTime:
    """Return that of this thread so far."""
    return CpuTime(time.thread_time(), _waited(_OWN) / 1e9)


def process_cpu_time() -> CpuTime:
    """Return that of this process so far, with the processes that it has started and waited for."""
    used, waited = _elsewhere.time()
    return CpuTime(time.process_time() + used, waited)


class _Elsewhere:
    """What children have computed, and for how long threads waited. Safe in several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waits: dict[str, int] = {}
        self._looked = self._waited = 0.0
        self._time = CpuTime()

    def time(self) -> CpuTime:
        """Return it as it was a moment ago."""
        if time.monotonic() - self._looked >= _LOOK_SECONDS:
            with self._lock:
                self._look()
        return self._time

    def _look(self) -> None:
        now, before = {task.name: _waited(task) for task in _threads()}, self._waits
        self._waited += sum(max(waited - before.get(t, 0), 0) for t, waited in now.items()) / 1e9
        self._waits = now
        children = resource.getrusage(resource.RUSAGE_CHILDREN)
        self._time = CpuTime(children.ru_utime + children.ru_stime, self._waited)
        self._looked = time.monotonic()


_elsewhere = _Elsewhere()


def _waited(thread: Path) -> int:
    """Return the nanoseconds in which *thread* was ready without a CPU; 0 where the system does not count them."""
    with suppress(OSError, IndexError, ValueError):  # as of a thread that ends just now
        # Nanoseconds on a CPU, and ready without one (Linux: Documentation/scheduler/sched-stats.rst).
        return int((thread / "schedstat").read_bytes().split()[1])
    return 0


def _threads() -> list[Path]:
    try:
        return list(_TASKS.iterdir())
    except OSError:
        return []
