"""For Ray Data: read, map, write. Words on the line: `overwrite`, `tolerant`."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import ray
from work import length


def add_length(batch: dict[str, Any]) -> dict[str, Any]:
    pairs = zip(batch["id"], batch["text"], strict=True)
    batch["n"] = np.array([length(int(row_id), text) for row_id, text in pairs], dtype=np.int64)
    return batch


def main() -> None:
    ray.init(address="local", include_dashboard=False)
    if "tolerant" in sys.argv:
        ray.data.DataContext.get_current().max_errored_blocks = -1
    mode = "overwrite" if "overwrite" in sys.argv else "append"
    ray.data.read_json("in").map_batches(add_length).write_json("out", mode=mode)


if __name__ == "__main__":
    main()
