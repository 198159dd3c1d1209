"""The same work as a batchrunner spec."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from batchrunner import BatchRunner, BatchSpec


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
