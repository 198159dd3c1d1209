"""Measures what a worker does before its calls and after them: it reads the source, and writes the parts.

Both last as long as the calls: the reader waits until they take rows, also when it is done, and the writer for
rows. So their shares are of the worker's time, whether they have threads of their own or not.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from batchrunner.worker.cpu_time import CpuTime, thread_cpu_time
from batchrunner.worker.pulse import Pulse
from batchrunner.worker.stage_clock import Doing
from batchrunner.worker.steps import Step


class ThreadMeters:
    """Measures the reading and the writing of one group of shards into the meters of a pulse."""

    def __init__(self, pulse: Pulse) -> None:
        self._reads, self._writes = pulse.reads, pulse.writes
        self._reading_cpu, self._writing_cpu = _ThreadCpu(), _ThreadCpu()
        self._is_over = False

    @contextmanager
    def work(self) -> Iterator[None]:
        """All that is read and written is inside the block."""
        with self._reads.at(Doing.WAITING_OUTPUT), self._writes.at(Doing.WAITING_INPUT):
            try:
                yield
            finally:
                self._is_over = True

    def reading(self, steps: Iterator[Step]) -> Iterator[Step]:
        """Yield *steps*, which are read while the next one is asked for."""
        while (step := self._next(steps)) is not None:
            yield step

    def _next(self, steps: Iterator[Step]) -> Step | None:
        self._turn_reading_to(Doing.CALLING)
        self._reading_cpu.begin()
        try:
            step = next(steps, None)
        finally:
            cpu = self._reading_cpu.spent()
            self._turn_reading_to(Doing.WAITING_OUTPUT)
        rows = sum(portion.rows_in for portion in step.portions) if step else 0
        self._reads.count(rows=rows, calls=int(step is not None), cpu=cpu)
        return step

    def _turn_reading_to(self, doing: Doing) -> None:
        if not self._is_over:  # a thread that hangs in a read outlives its group
            self._reads.turn_to(doing)

    @contextmanager
    def writing(self, rows: int = 0) -> Iterator[None]:
        """The writer writes *rows* inside the block."""
        with self._writes.at(Doing.CALLING):
            self._writing_cpu.begin()
            yield
            cpu = self._writing_cpu.spent()
        self._writes.count(rows=rows, cpu=cpu)


_LONG_SECONDS = 0.001


class _ThreadCpu:
    """Measures what a thread uses of CPUs between `begin` and `spent`, both of which it calls."""

    def __init__(self) -> None:
        self._clock: Callable[[], CpuTime] = _used
        self._since, self._before = 0.0, CpuTime()

    def begin(self) -> None:
        self._since, self._before = time.monotonic(), self._clock()

    def spent(self) -> CpuTime:
        """Return it; where that takes long enough, with the wait for a CPU."""
        spent = self._clock().since(self._before)
        # To look for such waits takes as long as a small batch.
        is_long = time.monotonic() - self._since >= _LONG_SECONDS
        self._clock = thread_cpu_time if is_long else _used
        return spent


def _used() -> CpuTime:
    return CpuTime(time.thread_time())
