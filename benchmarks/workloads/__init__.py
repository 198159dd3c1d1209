"""The workloads, by name. Each module says what it measures and what was to be reached."""

from __future__ import annotations

from collections.abc import Callable

from benchmarks.results import Result
from benchmarks.size import Size
from benchmarks.workloads import (
    actors,
    buckets,
    columnar,
    cpu_bound,
    jobs,
    lines,
    live,
    marginal,
    memory,
    no_op,
    resume,
    small_files,
    store,
    three_stages,
    tiny_files,
)

WORKLOADS: dict[str, Callable[[Size], Result]] = {
    "W1": lines.measure,
    "W2": columnar.measure,
    "W3": small_files.measure,
    "W4": cpu_bound.measure,
    "W5": actors.measure,
    "W6": three_stages.measure,
    "W7": buckets.measure,
    "tiny": tiny_files.measure,
    "million": tiny_files.measure_million,
    "marginal": marginal.measure,
    "noop": no_op.measure,
    "resume": resume.measure,
    "memory": memory.measure,
    "store": store.measure,
    "jobs": jobs.measure,
    "live": live.measure,
}
