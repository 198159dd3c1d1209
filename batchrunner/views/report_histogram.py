"""How many shards took how long."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass

from batchrunner.views.report_times import nice_step


@dataclass(frozen=True, slots=True)
class Histogram:
    """How many shards took how long.

    Attributes:
        edges: Seconds at which each bin begins, and at which the last one ends.
        counts: Shards in each bin.
        median, p95, most: Seconds.
        is_log: Whether the bins grow by a constant factor.
    """

    edges: tuple[float, ...]
    counts: tuple[int, ...]
    median: float
    p95: float
    most: float
    is_log: bool


def histogram_of(seconds: Iterable[float]) -> Histogram | None:
    """Return the histogram of *seconds*; None if there are none."""
    values = sorted(seconds)
    if not values:
        return None
    low, most = max(values[0], 1e-3), max(values[-1], 1e-3)
    is_log = most / max(values[len(values) // 20], 1e-3) > 50
    edges = _log_edges(low, most) if is_log else _even_edges(values[0], most)
    counts = [0] * (len(edges) - 1)
    for value in values:
        counts[min(max(bisect_right(edges, value) - 1, 0), len(counts) - 1)] += 1
    at = [values[min(len(values) - 1, int(len(values) * share))] for share in (0.5, 0.95)]
    return Histogram(tuple(edges), tuple(counts), at[0], at[1], values[-1], is_log)


def _even_edges(low: float, high: float) -> list[float]:
    step = nice_step((high - low or high) / 24)
    first = math.floor(low / step)
    return [n * step for n in range(first, max(math.floor(high / step), first) + 2)]


def _log_edges(low: float, high: float) -> list[float]:
    first, last = math.floor(math.log10(low) * 5), math.floor(math.log10(high) * 5) + 1
    return [10 ** (n / 5) for n in range(first, last + 1)]
