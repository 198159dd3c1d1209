"""The Ray task that a job is: the only thing of ours that runs the user's code."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import pickle
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from batchrunner.analytics import CapabilityRunRef, open_store
from batchrunner.errors import CapabilityImportError, StorageError, describe
from batchrunner.execute.payload import import_from
from batchrunner.jobs.editions import checked_run
from batchrunner.jobs.job_log import JobLog, write_simple_log
from batchrunner.jobs.journal import Journal
from batchrunner.jobs.outcome import JobStatus, Outcome, plain, raised_as
from batchrunner.jobs.request import difference
from batchrunner.spec import AnalyticsStoreConfig
from batchrunner.spec.secrets import remember, scrubbed
from batchrunner.user_code import contained

_MAX_CAUSE = 64 << 10
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Assignment:
    """One attempt at one job.

    Attributes:
        job_id: Of the job.
        attempt: From 1.
        store: Where the run is recorded.
        scope: Whose journal the end is written to; None when there is none.
        provenance: Who submitted it, when and how.
        import_paths: Where the client imports from; they count where the worker has them too.
        versions: The client's.
    """

    job_id: str
    attempt: int
    store: AnalyticsStoreConfig
    scope: str | None = None
    provenance: Mapping[str, Any] = field(default_factory=dict)
    import_paths: tuple[str, ...] = ()
    versions: Mapping[str, str] = field(default_factory=dict)


def perform(assignment: Assignment, payload: bytes) -> tuple[Outcome, bool]:
    """Do what is assigned; return how it ended, and whether the journal knows that by now."""
    _remember_secrets(assignment)
    if assignment.scope is None:
        with JobLog(lambda text: write_simple_log(assignment.store, assignment.job_id, text)):
            return _outcome(assignment, payload), False
    journal = Journal.of(assignment.store, scope=assignment.scope)
    with JobLog(lambda text: journal.write_log(assignment.job_id, assignment.attempt, text)):
        outcome = _outcome(assignment, payload)
    # Not earlier: whoever reads COMPLETED finds the records.
    try:
        return _with_cause(journal.end(assignment.job_id, outcome), outcome), True
    except StorageError as error:
        _log.warning("the end of the job could not be written down: %s", error)
        return outcome, False


def _outcome(assignment: Assignment, payload: bytes) -> Outcome:
    warnings: tuple[str, ...] = ()
    try:
        warnings = tuple(filter(None, [difference(assignment.versions)]))
        import_from(assignment.import_paths)
        # Of the user's code, loading it included. What ends this worker from outside passes.
        ref = contained(lambda: _record(assignment, _unpacked(payload)()))
    except Exception as error:  # noqa: BLE001 - the user's code may raise anything
        outcome = Outcome.of_exception(error, warnings=warnings)
        return dataclasses.replace(outcome, cause=_cause(error))
    return Outcome(JobStatus.COMPLETED, ref=ref, warnings=warnings)


def _remember_secrets(assignment: Assignment) -> None:
    """Have them hidden in what the job says, and in how it failed: both are kept."""
    import ray

    environment = ray.get_runtime_context().runtime_env.get("env_vars") or {}
    remember({"env_vars": dict(environment), **assignment.store.model_dump()})


def _unpacked(payload: bytes) -> Callable[[], Any]:
    try:
        run: Callable[[], Any] = pickle.loads(payload)  # noqa: S301 - from our client, through Ray
    except ImportError as error:
        raise CapabilityImportError(
            f"the worker cannot import {error.name or 'what the job needs'!r}: {error}. Put the "
            "module into the workers' image, or bring it along with runtime_env working_dir or "
            "py_modules"
        ) from error
    except AttributeError as error:
        raise CapabilityImportError(
            f"the worker has another version of the job's code: {error}. Bring the client's along "
            "with runtime_env working_dir or py_modules"
        ) from error
    return run


def _record(assignment: Assignment, run: Any) -> CapabilityRunRef:
    store = open_store(assignment.store)
    receipt = store.write_with_receipt([checked_run(run)], provenance=assignment.provenance)
    ref: CapabilityRunRef = receipt.refs[0]
    return ref


def _cause(error: Exception) -> bytes | None:
    """Return what was raised as bytes, if it survives that, and its message holds no known secret."""
    raised = raised_as(error)
    with contextlib.suppress(Exception):  # an exception of the user's may do anything here
        from ray import cloudpickle

        data: bytes = cloudpickle.dumps(raised)  # type: ignore[no-untyped-call]  # Ray is half typed
        same = type(pickle.loads(data)) is type(raised)  # noqa: S301 - just made
        if same and len(data) <= _MAX_CAUSE and scrubbed(str(error)) == str(error):
            return data
    return None


def _with_cause(stored: Outcome, made: Outcome) -> Outcome:
    return made if stored == made else stored


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
