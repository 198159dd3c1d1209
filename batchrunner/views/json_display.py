"""Progress as JSON events: one for each phase, each shard that ends, and the figures once a second."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from batchrunner.driver.progress import COMMITTED, FAILED, PENDING, Phase, Progress
from batchrunner.views.json_events import JsonEvents
from batchrunner.views.throughput import Throughput

_EVERY_SECONDS = 1.0
_ENDS = {COMMITTED: "committed", FAILED: "failed"}


class JsonDisplay:
    """Writes progress as events."""

    def __init__(
        self,
        events: JsonEvents,
        *,
        on_close: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Prepare to write to *events*; *on_close* is called after the last one."""
        self._events, self._on_close, self._clock = events, on_close, clock
        self._throughput, self._next = Throughput(), 0.0
        self._phase: Phase | None = None
        self._states = b""
        self._ids: tuple[int, ...] = ()
        self._last: Progress | None = None
        self._is_written = True

    def show(self, progress: Progress) -> None:
        self._throughput.take(progress, at=self._clock())
        is_new_phase = progress.phase is not self._phase
        if is_new_phase:
            self._phase = progress.phase
            self._events.write(
                "phase", phase=progress.phase.value, seconds=_round(progress.seconds)
            )
        self._last, self._is_written = progress, False
        if is_new_phase or self._clock() >= self._next:
            self._write()

    def close(self) -> None:
        """Write the last figures. Idempotent."""
        if not self._is_written:
            self._write()
        self._on_close()

    def _write(self) -> None:
        progress = self._last
        if progress is None:
            return
        self._next, self._is_written = self._clock() + _EVERY_SECONDS, True
        before = self._states if progress.ids == self._ids else self._realigned(progress.ids)
        for position, state in _ended(before, progress.states):
            self._events.write("shard", shard=progress.ids[position], state=state)
        self._states, self._ids = progress.states, progress.ids
        self._events.write("progress", **figures(progress, self._throughput.per_second()))

    def _realigned(self, ids: Sequence[int]) -> bytes:
        """Return the states that were shown last in the order of *ids*: the plan has grown."""
        shown = dict(zip(self._ids, self._states, strict=True))
        return bytes(shown.get(shard, PENDING) for shard in ids) if shown else b""


def figures(progress: Progress, rows_per_second: float | None) -> dict[str, Any]:
    """Return *progress* as plain values, with the speed."""
    rate = None if rows_per_second is None else _round(rows_per_second)
    return {**progress.to_dict(), "rows_per_second": rate}


def _ended(before: bytes, now: bytes) -> Iterator[tuple[int, str]]:
    """Yield the position and the end of each shard that has ended since *before*."""
    if before == now or not before:  # what ended before the first look is in the figures
        return
    for position, state in enumerate(now):
        if state in _ENDS and before[position] != state:
            yield position, _ENDS[state]


def _round(number: float) -> float:
    return round(number, 1)
