"""A batch whose nodes are lost over one long call, one after the other, while its driver lives on.

`python lost_nodes.py FOLDER`: FOLDER holds `in`; says how the run ended, and how its calls were made.
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

LOSSES = 2
"""From the third on, a shard is isolated for deaths from outside, too."""


def main(folder: Path) -> None:
    cluster = Cluster(
        initialize_head=True,
        head_node_args={"num_cpus": 1, "object_store_memory": 10**8, "_system_config": HEALTH},
    )
    waits = {"target": "capabilities:waits_for_a_file", "fn_kwargs": {"path": f"{folder}/go"}}
    spec = a_spec(
        folder,
        capability=waits,
        execution={"engine": "ray", "resources": {"spot": 1}},
        ray={"address": cluster.address},
    )
    with ThreadPoolExecutor(1) as pool:  # nodes are started from the main thread only
        running = pool.submit(BatchRunner(spec).run)
        calls = lose_nodes(cluster, folder)
        report = running.result(60)
    isolated = sum("batchrunner.worker.call_process" in call for call in calls)
    sys.stdout.write(f"{report.exit_code} {report.rows_failed} {len(calls)} {isolated}\n")
    ray.shutdown()
    cluster.shutdown()


def lose_nodes(cluster: Cluster, folder: Path) -> list[str]:
    calls = []
    for _ in range(LOSSES):
        node = cluster.add_node(num_cpus=1, resources={"spot": 1}, object_store_memory=10**8)
        calls.append(next_call(folder))
        cluster.remove_node(node, allow_graceful=False)
    cluster.add_node(num_cpus=1, resources={"spot": 1}, object_store_memory=10**8)
    calls.append(next_call(folder))
    (folder / "go").touch()
    return calls


def next_call(folder: Path) -> str:
    """Return the command of the process that makes a call, once there is one."""
    wait_for(lambda: list(folder.glob("go-by-*")))
    [begun] = folder.glob("go-by-*")
    begun.unlink()
    return Path(f"/proc/{begun.name.rpartition('-')[2]}/cmdline").read_text().replace("\0", " ")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
