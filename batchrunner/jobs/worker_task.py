"""The Ray task that a job is: the only thing of ours that runs the user's code."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

from batchrunner.errors import describe
from batchrunner.jobs.assignment import Assignment, perform
from batchrunner.jobs.outcome import Outcome, plain


def begin_and_perform(assignment: Assignment, payload: bytes) -> Iterator[Any]:
    """Say that a worker has begun, then how the job ended and whether the journal knows it."""
    yield None
    yield perform(assignment, payload)


@cache
def streaming_task() -> Any:
    """Return `begin_and_perform` as a Ray task; exported once, not once a job."""
    import ray

    return ray.remote(begin_and_perform)


@cache
def plain_task() -> Any:
    """Return `perform` as a Ray task, for Ray's client, which cannot stream."""
    import ray

    return ray.remote(perform)


def task_options(resources: Mapping[str, Any]) -> dict[str, Any]:
    """Return *resources* as options of a Ray task."""
    return {name: value for name, value in resources.items() if value is not None}


def loss_of(error: BaseException) -> str:
    """Return why Ray lost a worker, in one line."""
    from ray.exceptions import NodeDiedError, OutOfMemoryError, WorkerCrashedError

    if isinstance(error, WorkerCrashedError):
        return "its worker died (killed, out of memory, or crashed in native code)"
    if isinstance(error, NodeDiedError):
        return "its node died"
    if isinstance(error, OutOfMemoryError):
        return "its worker was killed because the node ran out of memory"
    return plain(describe(error))


def failure_of(error: Any) -> Outcome:
    """Return the failure of a task that could not even begin: *error* is Ray's RayTaskError."""
    text = plain(str(getattr(error, "traceback_str", error)))
    last = next((line for line in reversed(text.splitlines()) if line.strip()), "")
    return Outcome.failed(f"the worker cannot run jobs: {last.strip()}", traceback=text)
