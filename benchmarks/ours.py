"""The same work as a batchrunner spec."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from batchrunner import BatchRunner, BatchSpec
from benchmarks.store_watch import told_of_calls
from benchmarks.three_stages import BATCH


def a_spec(source: Path, out: Path, **fields: Any) -> dict[str, Any]:
    """Return the values of a spec: defaults but for *fields*."""
    return {"source": str(source), "sink": str(out), **fields}


def run(source: Path, out: Path, *, spec: Mapping[str, Any]) -> dict[str, float]:
    """Run the spec, or go on with it.

    Returns:
        How many shards there are, and how many were committed before.
    """
    report = BatchRunner(BatchSpec(**{**a_spec(source, out), **spec})).run()
    if not report.ok:
        raise RuntimeError(f"batchrunner did not finish: {report}")
    return {
        "shards": report.shards,
        "shards left": report.shards_new,
        "rows out": report.rows_out,
    }


def in_three_stages(source: Path, out: Path, *, floats: int = 0) -> dict[str, float]:
    """Prepare, model, finish: a list of stages, their CPUs and the accelerator."""
    with told_of_calls(out) as (log, facts):
        run(source, out, spec={"capability": _three_stages(log, floats), "execution": _BATCHES})
    return facts


_BATCHES = {"batch_size": BATCH, "batch_format": "numpy"}


def _three_stages(log: str, floats: int) -> list[dict[str, Any]]:
    module = "benchmarks.three_stages"
    return [
        {"target": f"{module}:prepare", "fn_kwargs": {"floats": floats}, "one_to_one": True},
        {
            "target": f"{module}:Model",
            "fn_constructor_kwargs": {"log": log},
            "num_gpus": 1,
            "concurrency": 1,
            "one_to_one": True,
        },
        {"target": f"{module}:finish", "one_to_one": True},
    ]
