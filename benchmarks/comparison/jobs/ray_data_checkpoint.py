"""For Ray Data with its CheckpointConfig. Words on the line: `json`, `tolerant`."""

from __future__ import annotations

import sys
from pathlib import Path

import ray
from ray.data.checkpoint import CheckpointConfig
from ray_data import add_length

BLOCKS = 40
"""One for each file: a job this small would be a single block, all or nothing."""


def main() -> None:
    ray.init(address="local", include_dashboard=False)
    context = ray.data.DataContext.get_current()
    context.checkpoint_config = CheckpointConfig(
        id_column="id",
        checkpoint_path=str(Path("checkpoint").resolve()),
        delete_checkpoint_on_success=False,  # or the next run does all of it again
    )
    if "tolerant" in sys.argv:
        context.max_errored_blocks = -1
    if "json" in sys.argv:
        ray.data.read_json("in").map_batches(add_length).write_json("out")
    else:
        ray.data.read_parquet("in", override_num_blocks=BLOCKS).map_batches(
            add_length
        ).write_parquet("out")


if __name__ == "__main__":
    main()
