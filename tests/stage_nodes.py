"""A batch with three stages on two nodes of one machine; the node of the middle one is lost, another joins.

`python stage_nodes.py FOLDER`: FOLDER holds `in`; says how the run ended.
"""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import ray
from ray.cluster_utils import Cluster

from batchrunner import BatchRunner
from builders import a_spec
from job_processes import wait_for
from two_nodes import HEALTH

SPOT = {"num_cpus": 1, "resources": {"spot": 1}, "object_store_memory": 10**8}


def main(folder: Path) -> None:
    cluster = Cluster(
        initialize_head=True,
        head_node_args={"num_cpus": 2, "object_store_memory": 10**8, "_system_config": HEALTH},
    )
    doomed = cluster.add_node(**SPOT)
    kwargs = {"folder": str(folder)}
    model = {"fn_constructor_kwargs": {**kwargs, "seconds": 0.2}, "batch_format": "numpy"}
    stages = [
        {"target": "stage_deaths:widen", "mode": "row", "fn_kwargs": kwargs},
        {"target": "stage_deaths:Model", **model, "one_to_one": True, "resources": {"spot": 1}},
        {"target": "stage_deaths:narrow", "fn_kwargs": kwargs, "batch_format": "pyarrow"},
    ]
    spec = a_spec(
        folder,
        capability=[{**stage, "batch_size": 16, "num_cpus": 0.5} for stage in stages],
        execution={"engine": "ray"},
        ray={"address": cluster.address},
    )
    with ThreadPoolExecutor(1) as pool:  # nodes are started from the main thread only
        running = pool.submit(BatchRunner(spec).run)
        wait_for(lambda: len(list(folder.glob("out/part-*"))) >= 2)
        cluster.remove_node(doomed, allow_graceful=False)
        cluster.add_node(**SPOT)
        report = running.result(120)
    sys.stdout.write(f"{report.exit_code} {report.rows_out} {report.rows_failed}\n")
    ray.shutdown()
    cluster.shutdown()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
