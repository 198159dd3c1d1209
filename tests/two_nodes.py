"""A batch as a job on two nodes of one machine; the node that drives it is removed.

`python two_nodes.py FOLDER`: FOLDER holds `in`; says how the job ended.
"""

from __future__ import annotations

import sys
from pathlib import Path

import ray
from ray.cluster_utils import Cluster

from batchrunner.jobs import (
    BatchCapability,
    JobStatus,
    configure_job_backend,
    shutdown_job_backend,
    submit_capability,
)
from builders import a_spec
from job_processes import wait_for

HEALTH = {
    "health_check_initial_delay_ms": 1000,
    "health_check_period_ms": 500,
    "health_check_timeout_ms": 500,
    "health_check_failure_threshold": 3,
}


def main(folder: Path) -> None:
    cluster = Cluster(
        initialize_head=True,
        head_node_args={"num_cpus": 1, "object_store_memory": 10**8, "_system_config": HEALTH},
    )
    doomed = cluster.add_node(num_cpus=1, resources={"spot": 1}, object_store_memory=10**8)
    spec = a_spec(
        folder,
        capability={
            "target": "capabilities:LogsCallsSlowly",
            "fn_constructor_kwargs": {"path": str(folder / "calls")},
        },
        execution={"engine": "local", "batch_size": 1},
    )
    configure_job_backend(
        address=cluster.address,
        idempotency_scope="two-nodes",
        analytics_store={"uri": str(folder / "store")},
    )
    batch = BatchCapability(spec)
    job = submit_capability(batch, resources={"num_cpus": 0, "spot": 0.5})
    again = submit_capability(BatchCapability(spec), resources={"num_cpus": 1})
    wait_for(lambda: len(list(folder.glob("out/part-*"))) >= 2)
    before = len(list(folder.glob("out/part-*")))
    cluster.remove_node(doomed, allow_graceful=False)
    cluster.add_node(num_cpus=1, resources={"spot": 1}, object_store_memory=10**8)
    ref = job.result(90)
    sys.stdout.write(
        f"{job.status} {again.job_id == job.job_id} {before >= 2} {ref.capability_id}\n"
    )
    assert job.status is JobStatus.COMPLETED
    shutdown_job_backend()
    ray.shutdown()
    cluster.shutdown()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
