"""Sums of the clocks that workers send, with heartbeats and receipts, of which any may be lost, late or doubled."""

from __future__ import annotations

import threading
from dataclasses import replace

from batchrunner.worker.heartbeat import WorkerClocks
from batchrunner.worker.stage_clock import StageClock, summed
from batchrunner.worker.usage import Usage, added


class StageSums:
    """Sums what all workers of a session have spent their time on. Safe in several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._latest: dict[tuple[str, float], WorkerClocks] = {}
        self._gone: set[tuple[str, float]] = set()

    def take(self, clocks: WorkerClocks | None) -> None:
        """Take the *clocks* of a worker, which include those that it sent before."""
        if clocks is None:
            return
        key = clocks.worker, clocks.since
        with self._lock:
            before = self._latest.get(key)
            # A heartbeat waits to be collected, and may come after a receipt that was sent later.
            if before is None or before.seconds <= clocks.seconds:
                self._latest[key] = clocks

    def bury(self, process: str) -> None:
        """Take that the worker with the id *process* died: what it did still counts."""
        with self._lock:
            self._gone.update(key for key in self._latest if key[0].endswith(f"-{process}"))

    def stages(self) -> tuple[StageClock, ...]:
        """Return the sums so far, from the reading to the writing."""
        with self._lock:
            latest = [(key in self._gone, clocks) for key, clocks in self._latest.items()]
        return summed(
            replace(clock, workers=0) if is_gone else clock
            for is_gone, clocks in latest
            for clock in clocks.stages
        )

    def usage(self) -> Usage:
        """Return what all calls of the session have used so far."""
        with self._lock:
            return added(*(clocks.usage for clocks in self._latest.values()))
