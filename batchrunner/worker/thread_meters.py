"""Measures what a worker does before its calls and after them: it reads the source, and writes the parts.

Both last as long as the calls: the reader waits until they take rows, also when it is done, and the writer for
rows. So their shares are of the worker's time, whether they have threads of their own or not.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from batchrunner.worker.overlap import Overlap, busy_seconds
from batchrunner.worker.pulse import Pulse
from batchrunner.worker.stage_clock import Doing
from batchrunner.worker.steps import Step


class ThreadMeters:
    """Measures the reading and the writing of one group of shards into the meters of a pulse."""

    def __init__(self, pulse: Pulse, overlap: Overlap) -> None:
        self._reads, self._writes, self._overlap = pulse.reads, pulse.writes, overlap
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
        try:
            step = next(steps, None)
        finally:
            self._turn_reading_to(Doing.WAITING_OUTPUT)
        rows = sum(portion.rows_in for portion in step.portions) if step else 0
        self._reads.count(rows=rows, calls=int(step is not None), cpu=self._cpu(self._reading_cpu))
        return step

    def _turn_reading_to(self, doing: Doing) -> None:
        if not self._is_over:  # a thread that hangs in a read outlives its group
            self._reads.turn_to(doing)

    @contextmanager
    def writing(self, rows: int = 0) -> Iterator[None]:
        """The writer writes *rows* inside the block."""
        with self._writes.at(Doing.CALLING):
            yield
        self._writes.count(rows=rows, cpu=self._cpu(self._writing_cpu))

    def _cpu(self, thread: _ThreadCpu) -> float | None:
        """Return the CPU time since the last call; unknown where one thread also makes the calls."""
        return thread.spent() if self._overlap.is_on else None


_LOOK_SECONDS = 0.05


class _ThreadCpu:
    """Measures for how long a thread is busy between two calls of `spent`."""

    def __init__(self) -> None:
        self._thread, self._busy, self._next = 0, 0.0, 0.0

    def spent(self) -> float:
        """Return for how long this thread was busy since its last call; 0.0 in its first call.

        And where that is not long ago: to look takes as long as a small batch. The next call makes it up.
        """
        thread, now = threading.get_ident(), time.monotonic()
        if thread == self._thread and now < self._next:
            return 0.0
        busy = busy_seconds()
        spent = busy - self._busy if thread == self._thread else 0.0
        self._thread, self._busy, self._next = thread, busy, now + _LOOK_SECONDS
        return spent
