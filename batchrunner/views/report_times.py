"""The times of a run: an axis without the hours between its sessions, and rates on it."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from batchrunner.checkpoint import Sentinel
from batchrunner.views.report_sessions import SessionFacts

_BINS, _SHORTEST_BIN = 240, 0.1
_WIDEST_GAP = 0.06
"""Share of the time at work up to which a gap is drawn to scale; a longer one is drawn as wide as this."""


@dataclass(frozen=True, slots=True)
class Span:
    """A stretch of time at work.

    Attributes:
        start, stop: Seconds since 1970 UTC.
        at: Where it begins on the axis, in seconds.
    """

    start: float
    stop: float
    at: float


@dataclass(frozen=True, slots=True)
class Axis:
    """Maps times to an axis on which long gaps between sessions are short."""

    spans: tuple[Span, ...]

    @classmethod
    def of(cls, stretches: Iterable[tuple[float, float]]) -> Axis:
        """Return the axis over these stretches of work, which may overlap."""
        merged = _merged(sorted(stretches))
        work = sum(stop - start for start, stop in merged) or 1.0
        spans: list[Span] = []
        for start, stop in merged:
            gap = start - spans[-1].stop if spans else 0.0
            end = spans[-1].at + spans[-1].stop - spans[-1].start if spans else 0.0
            spans.append(Span(start, stop, end + min(gap, _WIDEST_GAP * work)))
        return cls(tuple(spans))

    @property
    def length(self) -> float:
        """Length of the axis, in seconds."""
        last = self.spans[-1] if self.spans else Span(0.0, 0.0, 0.0)
        return last.at + last.stop - last.start

    def at(self, time: float) -> float:
        """Return where *time* is on the axis; in a gap, where the gap begins."""
        number = bisect_right(self.spans, time, key=lambda span: span.start) - 1
        if number < 0:
            return 0.0
        span = self.spans[number]
        return span.at + min(time, span.stop) - span.start


def _merged(stretches: Iterable[tuple[float, float]]) -> list[tuple[float, float]]:
    merged: list[tuple[float, float]] = []
    for start, stop in stretches:
        if merged and start <= merged[-1][1]:
            merged[-1] = merged[-1][0], max(stop, merged[-1][1])
        else:
            merged.append((start, stop))
    return merged


def timed(sentinels: Iterable[Sentinel]) -> list[Sentinel]:
    """Return the sentinels that say when their attempt began, in the order of these times."""
    return sorted((s for s in sentinels if s.began > 0), key=lambda s: s.began)


def axis_of(sessions: Iterable[SessionFacts], sentinels: Iterable[Sentinel]) -> Axis:
    """Return the axis over all sessions and attempts."""
    of_sessions = [
        (one.began, one.ended)
        for one in sessions
        if one.kind == "run" and one.began is not None and one.ended is not None
    ]
    return Axis.of([*of_sessions, *((s.began, s.began + s.seconds) for s in sentinels)])


@dataclass(frozen=True, slots=True)
class Rates:
    """Rows read a second, over time.

    Attributes:
        step: Seconds of one bin.
        x: Where each bin begins on the axis.
        y: Rows a second in it; None between two spans.
    """

    step: float
    x: tuple[float, ...]
    y: tuple[float | None, ...]


def rates_of(axis: Axis, sentinels: Sequence[Sentinel]) -> Rates:
    """Return the rate in each bin; the rows of a shard are spread evenly over its attempt."""
    step = max(nice_step(axis.length / _BINS), _SHORTEST_BIN)
    bins = [[0.0] * max(1, math.ceil((span.stop - span.start) / step)) for span in axis.spans]
    starts = [span.start for span in axis.spans]
    for one in sentinels:
        number = bisect_right(starts, one.began) - 1
        _spread(bins[number], one, since=starts[number], step=step)
    x: list[float] = []
    y: list[float | None] = []
    for span, counts in zip(axis.spans, bins, strict=True):
        x += [span.at + n * step for n in range(len(counts))] + [span.at + len(counts) * step]
        y += [count / step for count in counts] + [None]
    return Rates(step, tuple(x), tuple(y))


def _spread(counts: list[float], one: Sentinel, *, since: float, step: float) -> None:
    first = min(int((one.began - since) / step), len(counts) - 1)
    last = min(int((one.began + one.seconds - since) / step), len(counts) - 1)
    for number in range(first, last + 1):
        low = max(one.began - since, number * step)
        high = min(one.began - since + one.seconds, (number + 1) * step)
        share = (
            (high - low) / one.seconds if first < last and one.seconds else 1 / (last - first + 1)
        )
        counts[number] += one.rows_in * share


def nice_step(seconds: float) -> float:
    """Return a round number of seconds that is not below *seconds*."""
    if seconds <= 0:
        return 1.0
    ten = 10.0 ** math.floor(math.log10(seconds))
    return next(ten * m for m in (1, 2, 5, 10) if ten * m >= seconds * (1 - 1e-9))


def gaps_of(axis: Axis) -> list[float]:
    """Return the seconds of each gap between two spans."""
    return [after.start - before.stop for before, after in pairwise(axis.spans)]
