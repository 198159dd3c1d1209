"""From an order to the Ray tasks that carry it out."""

from __future__ import annotations

from typing import Any

from batchrunner.jobs.assignment import Assignment
from batchrunner.jobs.charter import Order
from batchrunner.jobs.controller import Launch
from batchrunner.jobs.entries import Submission
from batchrunner.jobs.worker_task import streaming_task, task_options

_INLINE_BYTES = 64 << 10


def launcher(submission: Submission, order: Order) -> Launch:
    """Return what starts an attempt at *submission*."""
    import ray

    options = {
        **task_options(order.resources),
        "max_retries": 0,  # counted by us, durably
        "num_returns": "streaming",
        "name": f"job {submission.name}",
        "runtime_env": dict(order.runtime_env) or None,
    }
    task = streaming_task().options(**options)
    # In the object store, not in this actor's memory; and owned by it, not by the client.
    payload = order.payload if len(order.payload) < _INLINE_BYTES else ray.put(order.payload)

    def launch(attempt: int) -> Any:
        assignment = Assignment(
            job_id=submission.job_id,
            attempt=attempt,
            store=order.options.analytics_store,
            scope=order.options.idempotency_scope,
            provenance={
                "user": submission.created_by.partition("@")[0],
                "backend": "ray",
                "job_id": submission.job_id,
                "submitted_at": submission.created_at,
            },
            import_paths=order.import_paths,
            versions=order.versions,
        )
        return task.remote(assignment, payload)

    return launch
