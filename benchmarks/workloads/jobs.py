"""jobs: what a job costs beside a bare Ray task that does the same work: runs, and records the run.

`python -m benchmarks --only jobs`, or this file alone: `python benchmarks/workloads/jobs.py` prints
the same as JSON.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import statistics
import sys
import tempfile
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

JOBS, ROUNDS, WARM_UP = 20, 5, 4
SIMPLE, FULL, BARE = "ray-simple", "ray", "ray.remote, bare"
BOUNDS = {SIMPLE: 1.5, FULL: 5.0}


def a_capability() -> Any:
    """Return a capability that takes no time, another run each time, with one record."""
    from batchrunner.analytics import CompletedRun, Record

    class Score(Record, table_name="bench_score"):
        value: float

    class Instant:
        id = f"bench.{uuid.uuid4().hex}"

        def run(self, models=None, datasets=None, metrics=None, config=None, use_cache=False):  # noqa: ARG002 - the capabilities' signature
            return CompletedRun(self.id, self.id, [Score(run_uid=self.id, value=1.0)])

    return Instant()


def run_and_record(capability: Any, store: dict[str, Any]) -> Any:
    """Do by hand what a job's worker does."""
    from batchrunner.analytics import open_store

    run = capability.run(use_cache=False)
    return open_store(store).write_with_receipt([run]).refs[0]


def laps(size: float = 1.0, rounds: int = ROUNDS) -> dict[str, list[float]]:
    """Return seconds from submit to result, of warm jobs one after the other, in turns."""
    import ray

    os.environ.setdefault("RAY_AUTH_MODE", "disabled")
    logging.getLogger("batchrunner.analytics").setLevel(logging.WARNING)
    ray.init(
        address="local",
        num_cpus=2,
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.ERROR,
    )
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        stack.callback(ray.shutdown)
        ways = _ways({"uri": folder})
        seconds: dict[str, list[float]] = {name: [] for name in ways}
        for number in range(rounds + 1):
            jobs = max(1, int(JOBS * size)) if number else WARM_UP
            for name, (prepare, one) in ways.items():
                prepare()
                measured = [_timed(one) for _ in range(jobs + WARM_UP)][WARM_UP:]
                if number:
                    seconds[name] += measured
        return seconds


def _ways(store: dict[str, Any]) -> dict[str, tuple[Callable[[], Any], Callable[[Any], Any]]]:
    import ray

    from batchrunner.jobs import configure_job_backend, submit_capability

    bare = ray.remote(run_and_record)
    scope = uuid.uuid4().hex

    def a_job(capability: Any) -> Any:
        return submit_capability(capability).result()

    return {
        BARE: (lambda: None, lambda capability: ray.get(bare.remote(capability, store))),
        SIMPLE: (lambda: configure_job_backend(SIMPLE, analytics_store=store), a_job),
        FULL: (
            lambda: configure_job_backend(FULL, analytics_store=store, idempotency_scope=scope),
            a_job,
        ),
    }


def _timed(one: Callable[[Any], Any]) -> float:
    capability = a_capability()
    began = time.perf_counter()
    one(capability)
    return time.perf_counter() - began


def measure(size: Any) -> Any:
    """Measure for `python -m benchmarks`."""
    from benchmarks.race import Lap
    from benchmarks.results import Goal, Result, standing

    found = laps(size.of(JOBS, at_least=2) / JOBS, size.laps)
    limit = statistics.median(found[BARE])
    return Result(
        workload="jobs",
        title="jobs that take no time and record one row, one after the other, from submit to result",
        place="disk",
        standings=[
            standing(name, [Lap(seconds) for seconds in found[name]], limit=limit) for name in found
        ],
        goals=[
            Goal(
                f'"{name}": at most {bound} x a bare task that runs and records the same',
                statistics.median(found[name]),
                bound * limit,
            )
            for name, bound in BOUNDS.items()
        ],
        notes=["Warm: Ray, the registry, and a worker with everything imported are there."],
    )


def main() -> None:
    """Print the medians and ratios as JSON."""
    found = laps(float(sys.argv[1]) if len(sys.argv) > 1 else 1.0)
    medians = {name: statistics.median(seconds) for name, seconds in found.items()}
    told = {
        name: {
            "median_ms": round(1e3 * median, 2),
            "p90_ms": round(1e3 * statistics.quantiles(found[name], n=10)[-1], 2),
            "ratio": round(median / medians[BARE], 2),
            "met": median <= BOUNDS.get(name, 1.0) * medians[BARE],
        }
        for name, median in medians.items()
    }
    sys.stdout.write(json.dumps(told, indent=1) + "\n")


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[2]))
    main()
