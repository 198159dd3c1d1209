"""How fast a stage is: what its workers take for a row, and whether calls wait in front of them."""

from __future__ import annotations

import threading
from dataclasses import dataclass, replace

from batchrunner.worker.stage_clock import Doing, StageClock, summed

_HALF_LIFE = 10.0
"""Seconds after which a measurement counts half: rows need not be alike all over a source."""


@dataclass(slots=True)
class Pace:
    """What the calls of a stage have taken lately.

    Attributes:
        rows_in: Rows of the calls that ended.
        rows_out: Rows that they gave.
        busy: Seconds in which workers were at them.
    """

    rows_in: float = 0.0
    rows_out: float = 0.0
    busy: float = 0.0

    def add(self, *, rows_in: int, rows_out: int, busy: float) -> None:
        self.rows_in += rows_in
        self.rows_out += rows_out
        self.busy += busy

    def fade(self, seconds: float) -> None:
        """Let what is known count less after so many *seconds*."""
        share = 0.5 ** (seconds / _HALF_LIFE)
        self.rows_in *= share
        self.rows_out *= share
        self.busy *= share

    @property
    def seconds(self) -> float | None:
        """Seconds that a worker takes for one of the stage's rows; None if that is unknown."""
        return self.busy / self.rows_in if self.rows_in else None

    @property
    def growth(self) -> float:
        """Rows that it gives for each of its rows; 1 as long as that is unknown."""
        return self.rows_out / self.rows_in if self.rows_in else 1.0


class Fullness:
    """For what share of the time a stage had as many calls as it takes."""

    def __init__(self, now: float) -> None:
        self._since, self._looked, self._is_full, self._full = now, now, False, 0.0

    def note(self, now: float, *, is_full: bool) -> None:
        """Note whether it is full from *now* on."""
        if self._is_full:
            self._full += now - self._since
        self._since, self._is_full = now, is_full

    def begin(self, now: float) -> None:
        """Forget what was before *now*."""
        self._since = self._looked = now
        self._full = 0.0

    def share(self, now: float) -> float:
        """Return the share since the last time that this was asked."""
        self.note(now, is_full=self._is_full)
        whole, full = now - self._looked, self._full
        self._looked, self._full = now, 0.0
        return full / whole if whole > 0 else float(self._is_full)


class Hours:
    """How the workers of a stage spend their time. Safe in several threads.

    Each worker knows for how long it was at calls; what it waited for is known here.
    """

    def __init__(self, name: str, now: float) -> None:
        self._clocks: dict[str, StageClock] = {}
        self._name = name
        self._lock = threading.Lock()
        self._since, self._ready, self._idle = now, 0, 0
        self._doing, self._idled = Doing.NOTHING, dict.fromkeys(Doing, 0.0)

    def add(self, worker: str, clock: StageClock) -> float:
        """Take the *clock* of that *worker*; return for how many seconds it was at calls since its last one."""
        with self._lock:
            before = self._clocks.get(worker)
            self._clocks[worker] = clock
        return clock.calling - (before.calling if before else 0.0)

    def note_workers(self, now: float, *, ready: int, idle: int) -> None:
        """Note that from *now* on so many workers are ready, and so many of them have no call."""
        with self._lock:
            self._pass(now)
            self._ready, self._idle = ready, idle

    def note_idle(self, now: float, doing: Doing) -> None:
        """Note what from *now* on a worker without a call is *doing*."""
        with self._lock:
            self._pass(now)
            self._doing = doing

    def clock(self, now: float) -> StageClock:
        """Return how the time was spent up to *now*."""
        with self._lock:
            self._pass(now)
            [whole] = summed([StageClock(self._name, workers=0), *self._clocks.values()])
            return replace(
                whole,
                workers=self._ready,
                waiting_input=self._idled[Doing.WAITING_INPUT],
                waiting_output=self._idled[Doing.WAITING_OUTPUT],
            )

    def _pass(self, now: float) -> None:
        self._idled[self._doing] += self._idle * (now - self._since)
        self._since = now
