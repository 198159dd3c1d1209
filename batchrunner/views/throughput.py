"""Rows a second: now, and over the last minute as a sparkline."""

from __future__ import annotations

from collections import deque
from itertools import pairwise

from batchrunner.driver.progress import Phase, Progress
from batchrunner.views.progress_text import rows_seen

MINUTE = 60.0
_NOW_SECONDS = 10.0
_SAMPLE_SECONDS = 0.5
_BARS = "▁▂▃▄▅▆▇█"
_ASCII_BARS = "_.-~=+*#"


class Throughput:
    """Counts rows over time; remembers the last minute."""

    def __init__(self) -> None:
        self._samples: deque[tuple[float, int]] = deque()

    def take(self, progress: Progress, *, at: float) -> None:
        """Take *progress* of second *at*, once it runs: rows of earlier sessions are no speed."""
        if progress.phase in (Phase.RUNNING, Phase.FINISHING):
            self.add(rows_seen(progress), at=at)

    def add(self, rows: int, *, at: float) -> None:
        """Take the number of *rows* that are done at second *at*. Shards that fail take rows back."""
        if self._samples and at - self._samples[-1][0] < _SAMPLE_SECONDS:
            return
        self._samples.append((at, rows))
        # One sample older than a minute stays: the oldest second has a beginning.
        while len(self._samples) > 1 and self._samples[1][0] < at - MINUTE:
            self._samples.popleft()

    def per_second(self) -> float | None:
        """Return the rows a second over the last ten seconds.

        None until there are two samples, and in the first ten seconds until a row came: what a
        driver stores every few seconds stands still between two looks.
        """
        if len(self._samples) < 2:
            return None
        (first_at, first), (last_at, last) = self._samples[0], self._samples[-1]
        if last <= first and last_at - first_at < _NOW_SECONDS:
            return None
        since = [s for s in self._samples if s[0] >= last_at - _NOW_SECONDS]
        at, rows = since[0] if len(since) > 1 else self._samples[-2]
        return max(0, last - rows) / (last_at - at)

    def history(self, columns: int) -> list[float]:
        """Return the rows a second in the last minute, cut into *columns* pieces of equal length.

        There are fewer pieces while there is less than a minute to show.
        """
        if len(self._samples) < 2:
            return []
        end, length = self._samples[-1][0], MINUTE / columns
        columns = min(columns, max(1, int((end - self._samples[0][0]) / length)))
        edges = [self._at(end - length * number) for number in range(columns, -1, -1)]
        gains = (max(0.0, after - before) for before, after in pairwise(edges))
        return [gain / length for gain in gains]

    def _at(self, second: float) -> float:
        """Return how many rows were done at *second*, on a straight line between two samples."""
        before = self._samples[0]
        for after in self._samples:
            if after[0] >= second:
                span = after[0] - before[0]
                share = max(0.0, second - before[0]) / span if span else 1.0
                return before[1] + share * (after[1] - before[1])
            before = after
        return before[1]


def sparkline(values: list[float], *, ascii_only: bool = False) -> str:
    """Return *values* as a line of bars, the tallest for the largest."""
    bars = _ASCII_BARS if ascii_only else _BARS
    most = max(values, default=0.0)
    if not most:
        return bars[0] * len(values)
    return "".join(bars[min(int(value / most * len(bars)), len(bars) - 1)] for value in values)
