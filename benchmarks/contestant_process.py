"""A process of its own for each measurement: `python -m benchmarks.contestant_process ORDER`.

ORDER is JSON: the function to time, its arguments, and where to write what came of it.
"""

from __future__ import annotations

import json
import os
import sys
import time
from importlib import import_module
from pathlib import Path
from typing import Any

import psutil

_LIBRARIES = ("orjson", "pyarrow", "pyarrow.compute", "pyarrow.parquet")


def main(order: dict[str, Any]) -> None:
    """Do what *order* says: start Ray if it is needed, then time the one call."""
    for library in _LIBRARIES:
        import_module(library)
    module, _, name = order["function"].partition(":")
    function = getattr(import_module(module), name)
    ray_start = _start_ray(order["ray"]) if order["on_ray"] else 0.0
    before = _peak_mb()
    began, cpu = time.perf_counter(), _cpu_seconds()
    facts = function(Path(order["source"]), Path(order["out"]), **order["arguments"])
    seconds = time.perf_counter() - began
    told = {
        "seconds": seconds,
        "cpu": _cpu_seconds() - cpu,
        "ray_start": ray_start,
        "driver_mb_before": before,
        "driver_mb": _peak_mb(),
        "facts": facts or {},
    }
    Path(order["answer"]).write_text(json.dumps(told))
    if order["on_ray"]:
        import ray

        ray.shutdown()


def _start_ray(has: dict[str, int]) -> float:
    """Start a Ray that *has* so much, as warm as one task makes it; return how long that took."""
    began = time.perf_counter()
    import ray
    import ray.data

    ray.init(
        address="local",
        **has,
        include_dashboard=False,
        log_to_driver=False,
        logging_level="ERROR",
    )
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    ray.get(ray.remote(_nothing).remote())
    return time.perf_counter() - began


def _cpu_seconds() -> float:
    """Return the CPU seconds of this process and its descendants, ended ones included.

    Workers of Ray's that have ended are not: they are waited for by its raylet.
    """
    this = psutil.Process()
    own = this.cpu_times()
    times = [process.cpu_times() for process in this.children(recursive=True)]
    ended = own.children_user + own.children_system
    return ended + sum(each.user + each.system for each in (own, *times))


def _nothing() -> None:
    pass


def _peak_mb() -> float:
    """Return the peak of this process's resident memory.

    Not `getrusage`: on Linux its peak is that of the parent, too, at the time of the fork.
    """
    status = Path("/proc/self/status").read_text()
    kilobytes = next(line for line in status.splitlines() if line.startswith("VmHWM"))
    return int(kilobytes.split()[1]) / 1024


if __name__ == "__main__":
    os.environ["RAY_AUTH_MODE"] = "disabled"
    main(json.loads(sys.argv[1]))
