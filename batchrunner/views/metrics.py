"""The progress of a run as metrics, for Prometheus.

They are set in the driver alone, which knows the whole run. A worker's counters would begin again with
each worker, and count again what is computed again; these end at what the report says.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping

from batchrunner.checkpoint import Sentinel
from batchrunner.driver.progress import Display, Phase, Progress
from batchrunner.execute.metrics import RayGauges
from batchrunner.shard import Shard
from batchrunner.worker.stage_clock import Doing, StageClock

METRICS: Mapping[str, str] = {
    "batchrunner_rows_in": "Rows read by committed shards, over all sessions of the run.",
    "batchrunner_rows_out": "Rows written by committed shards, over all sessions of the run.",
    "batchrunner_rows_failed": "Rows that failed in committed shards, over all sessions of the run.",
    "batchrunner_rows_allowed": "Rows that may fail in the whole run, extrapolated.",
    "batchrunner_rows_in_flight": "Rows that went through the capability in shards in flight.",
    "batchrunner_rows_per_second": "Rows through the capability a second, in the last half minute.",
    "batchrunner_bytes_out": "Size of the parts of committed shards, over all sessions of the run.",
    "batchrunner_shards": "Shards by state: pending, in_flight, committed or failed.",
    "batchrunner_share": "Share of the work that is done, from 0 to 1.",
    "batchrunner_seconds_left": "Estimated seconds to the end of the run.",
    "batchrunner_phase": "1 for the phase that the session is in, 0 for the others.",
    "batchrunner_workers": "Workers that the driver hears of.",
    "batchrunner_workers_busy": "Workers that have a shard.",
    "batchrunner_stage_seconds": "Seconds that the shards of this session spent in a stage: reading, "
    "calling or writing. The stages overlap.",
    "batchrunner_worker_seconds": "Seconds that the workers of this session spent loading, waiting_input, "
    "calling or waiting_output, by stage of the capability, and by kind: read, stage or write.",
    "batchrunner_worker_peak_bytes": "The most memory that one worker of a stage has had.",
}
"""Name and description of each metric. Ray exports it with `ray_` before its name."""

_STATES = {"pending": b".", "in_flight": b"~", "committed": b"#=", "failed": b"x"}
_STAGES = ("reading", "calling", "writing")
_RATE_SECONDS = 30.0
_EVERY_SECONDS = 0.5


class MetricsDisplay:
    """A display that sets metrics at most twice a second, and passes the progress on."""

    def __init__(self, display: Display, *, run: str, run_uid: str) -> None:
        self._display = display
        self._gauges = RayGauges(METRICS, tags={"run": run, "run_uid": run_uid})
        self._stages = dict.fromkeys(_STAGES, 0.0)
        self._rate = RowRate()
        self._next = 0.0

    def show(self, progress: Progress) -> None:
        self._display.show(progress)
        is_last = progress.phase is Phase.FINISHING
        if self._gauges.is_on and (is_last or time.monotonic() >= self._next):
            self._next = time.monotonic() + _EVERY_SECONDS
            self._set_all(progress)

    def close(self) -> None:
        self._display.close()

    def committed(self, _: Shard, sentinel: Sentinel) -> None:
        """Add the seconds of a committed shard."""
        for stage in _STAGES:
            self._stages[stage] += getattr(sentinel, stage)

    def _set_all(self, progress: Progress) -> None:
        for name, value in self._values(progress).items():
            if value is not None:
                self._gauges.set(f"batchrunner_{name}", value)
        for state, letters in _STATES.items():
            self._gauges.set("batchrunner_shards", _count(progress.states, letters), state=state)
        for phase in Phase:
            self._gauges.set("batchrunner_phase", phase is progress.phase, phase=str(phase))
        for stage, seconds in self._stages.items():
            self._gauges.set("batchrunner_stage_seconds", seconds, stage=stage)

        for clock in progress.stages:
            self._set_clock(clock)

    def _set_clock(self, clock: StageClock) -> None:
        of = {"stage": clock.name, "kind": str(clock.kind)}
        for doing in Doing:
            if doing is not Doing.NOTHING:
                seconds = getattr(clock, doing)
                self._gauges.set("batchrunner_worker_seconds", seconds, **of, doing=str(doing))
        self._gauges.set("batchrunner_worker_peak_bytes", clock.peak_memory, **of)

    def _values(self, progress: Progress) -> dict[str, float | None]:
        totals = progress.totals
        return {
            "rows_in": totals.rows_in,
            "rows_out": totals.rows_out,
            "rows_failed": totals.rows_failed,
            "rows_allowed": progress.rows_allowed,
            "rows_in_flight": progress.rows_in_flight,
            "rows_per_second": self._rate.of(totals.rows_in + progress.rows_in_flight),
            "bytes_out": totals.bytes_out,
            "share": progress.share,
            "seconds_left": progress.seconds_left(),
            "workers": progress.workers,
            "workers_busy": progress.workers_busy,
        }


def _count(states: bytes, letters: bytes) -> int:
    return sum(states.count(letter) for letter in letters)


class RowRate:
    """Rows a second over the last half minute."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._seen: deque[tuple[float, int]] = deque()

    def of(self, rows: int) -> float:
        """Return the rows a second, now that there are *rows*; never below zero."""
        now = self._clock()
        self._seen.append((now, rows))
        while now - self._seen[0][0] > _RATE_SECONDS and len(self._seen) > 2:
            self._seen.popleft()
        began, before = self._seen[0]
        return max(rows - before, 0) / (now - began) if now > began else 0.0
