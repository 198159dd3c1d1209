"""Measures the threads of a worker that read ahead of the calls and write behind them.

As long as the worker does all in one thread, their time is the time in which the calls wait for them.
"""

from __future__ import annotations

import threading
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
        self._cpu = _ThreadCpu()

    def reading(self, steps: Iterator[Step]) -> Iterator[Step]:
        """Yield *steps*: the reader works until it has one, and then waits until it is taken."""
        cpu = _ThreadCpu()
        with self._reads.at(Doing.CALLING):
            for step in steps:
                rows = sum(portion.rows_in for portion in step.portions)
                self._reads.count(rows=rows, cpu=cpu.spent() if self._overlap.is_on else None)
                self._reads.turn_to(self._or_nothing(Doing.WAITING_OUTPUT))
                yield step
                self._reads.turn_to(Doing.CALLING)

    @contextmanager
    def writes(self) -> Iterator[None]:
        """Whatever is written is written inside the block: until then, the writer waits."""
        with self._writes.at(self._or_nothing(Doing.WAITING_INPUT)):
            yield

    @contextmanager
    def writing(self, rows: int = 0) -> Iterator[None]:
        """The writer writes *rows* inside the block."""
        self._writes.turn_to(Doing.CALLING)
        try:
            yield
        finally:
            self._writes.count(rows=rows, cpu=self._cpu.spent() if self._overlap.is_on else None)
            self._writes.turn_to(self._or_nothing(Doing.WAITING_INPUT))

    def _or_nothing(self, waiting: Doing) -> Doing:
        """Return *waiting* for a thread of its own; in one thread, other work goes on meanwhile."""
        return waiting if self._overlap.is_on else Doing.NOTHING


class _ThreadCpu:
    """Measures for how long a thread is busy between two calls of `spent`."""

    def __init__(self) -> None:
        self._thread, self._busy = 0, 0.0

    def spent(self) -> float:
        """Return for how long this thread was busy since its last call; 0.0 in its first call."""
        thread, busy = threading.get_ident(), busy_seconds()
        spent = busy - self._busy if thread == self._thread else 0.0
        self._thread, self._busy = thread, busy
        return spent
