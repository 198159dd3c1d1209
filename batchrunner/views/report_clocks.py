"""Times of attempts by the clock of the driver, where the clock of their worker is wrong."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from batchrunner.checkpoint import Sentinel
from batchrunner.views.event_logs import Event, end_in, is_readable

_SLACK = 5.0
"""Seconds by which clocks of one cluster may differ before it shows."""
_LATEST_RENEWAL = 60.0
"""Seconds that a session may live on after its last saved progress: a slow storage delays a save."""


@dataclass(frozen=True, slots=True)
class Timing:
    """Sentinels, each with times within its session.

    Attributes:
        sentinels: By shard id.
        skewed: The workers whose times were moved, or cut.
    """

    sentinels: Mapping[int, Sentinel]
    skewed: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Window:
    start: float
    stop: float

    def moved(self, one: Sentinel, *, by: float) -> Sentinel:
        most = self.stop - self.start
        seconds = min(max(one.seconds, 0.0), most)
        began = min(max(one.began + by, self.start), self.stop - seconds)
        parts = {name: min(getattr(one, name), most) for name in ("reading", "calling", "writing")}
        return replace(one, began=began if one.began > 0 else 0.0, seconds=seconds, **parts)

    def shift(self, attempts: Iterable[Sentinel]) -> float:
        """Return what to add to times of one worker, whose clock may be wrong."""
        dated = [one for one in attempts if one.began > 0]
        first = min((one.began for one in dated), default=self.start)
        last = max((one.began + one.seconds for one in dated), default=self.stop)
        if first < self.start - _SLACK:
            return self.start - first
        return min(self.stop - last, 0.0) if last > self.stop + _SLACK else 0.0


def by_drivers_clock(
    sentinels: Mapping[int, Sentinel], logs: Mapping[str, Sequence[Event]], *, now: float
) -> Timing:
    """Return *sentinels* with the times of each attempt within its session, as the driver's *logs* have it.

    All attempts of a worker in a session move alike, so that their order and their gaps stay. A
    session without a log ended *now* at the latest.
    """
    of_worker: dict[tuple[str, str], list[Sentinel]] = defaultdict(list)
    for one in sentinels.values():
        of_worker[one.session, one.worker].append(one)
    windows = _windows(logs, now=now)
    moved: dict[int, Sentinel] = {}
    for (session, _), attempts in of_worker.items():
        window = windows.get(session, _Window(0.0, now))
        moved.update((one.shard, one) for one in _moved(attempts, window))
    changed = (one.worker for shard, one in sentinels.items() if moved[shard] is not one)
    return Timing({shard: moved[shard] for shard in sentinels}, tuple(dict.fromkeys(changed)))


def _moved(attempts: Sequence[Sentinel], window: _Window) -> Iterator[Sentinel]:
    by = window.shift(attempts)
    for one in attempts:
        moved = window.moved(one, by=by)
        is_near = abs(moved.began - one.began) <= _SLACK and moved.seconds >= one.seconds - _SLACK
        yield one if is_near else moved


def _windows(logs: Mapping[str, Sequence[Event]], *, now: float) -> dict[str, _Window]:
    starts = sorted(log[0]["at"].timestamp() for log in logs.values() if log)
    windows: dict[str, _Window] = {}
    for session, log in logs.items():
        start = log[0]["at"].timestamp() if log else now
        later = next((other for other in starts if other > start), now)
        stop = _stop(log, later=later)
        if stop > start:  # else the driver's own clock was put back
            windows[session] = _Window(start, stop)
    return windows


def _stop(log: Sequence[Event], *, later: float) -> float:
    """Return when a session ended at the latest; *later* is when the next one began."""
    if end := end_in(log):
        return float(end["at"].timestamp())
    if is_readable(log) and log[-1]["action"] == "progress":
        return float(log[-1]["at"].timestamp()) + _LATEST_RENEWAL
    return later
