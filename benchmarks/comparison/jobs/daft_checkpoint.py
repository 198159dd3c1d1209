"""For Daft on Ray with its checkpoint and an idempotent commit into a Delta table.

Words on the line: `tolerant`, and the key of the commit.
"""

from __future__ import annotations

import sys
from pathlib import Path

import daft
import ray
from daft import col
from daft_job import length


def main() -> None:
    ray.init(address="local", include_dashboard=False)
    daft.set_runner_ray()
    store = daft.CheckpointStore(f"file://{Path('checkpoint').resolve()}")
    rows = daft.read_json("in", checkpoint=daft.CheckpointConfig(store=store, on="id"))
    rows.with_column("n", length(col("id"), col("text"))).write_deltalake(
        "out", checkpoint=daft.IdempotentCommit(store=store, idempotence_key=sys.argv[-1])
    )


if __name__ == "__main__":
    main()
