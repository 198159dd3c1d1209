"""The worker's side of a job: runs the user's capability, in a Ray task or in a thread."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import pickle
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from batchrunner.analytics import CapabilityRunRef, open_store
from batchrunner.errors import CapabilityImportError, StorageError, describe
from batchrunner.execute.payload import import_from
from batchrunner.jobs.identity import checked_run
from batchrunner.jobs.job_log import JobLog, write_simple_log
from batchrunner.jobs.journal import Journal
from batchrunner.jobs.outcome import JobStatus, Outcome, plain, raised_as
from batchrunner.jobs.request import JobRequest, difference
from batchrunner.spec import AnalyticsStoreConfig
from batchrunner.spec.secrets import remember, scrubbed
from batchrunner.user_code import contained

_MAX_CAUSE = 64 << 10
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class JobAttempt:
    """One attempt at one job, as its worker gets it. The payload is sent apart from it.

    Attributes:
        job_id: The id of the job.
        number: Counts the attempts at the job, from 1.
        request: The request of the job.
        backend: Kind of the backend, for the store's `runs` table.
        store: The analytics store that the run is recorded in, with its credentials.
        scope: Scope of the journal that the end is written to; None without a journal.
        import_paths: The client's import paths; the worker adds those that exist there, too.
    """

    job_id: str
    number: int
    request: JobRequest
    backend: str
    store: AnalyticsStoreConfig
    scope: str | None = None
    import_paths: tuple[str, ...] = ()

    @property
    def provenance(self) -> dict[str, Any]:
        """Who submitted the job, when and how: columns of the store's `runs` table."""
        return {
            "user": self.request.created_by.partition("@")[0],
            "backend": self.backend,
            "job_id": self.job_id,
            "submitted_at": self.request.created_at,
        }


def perform(attempt: JobAttempt, payload: bytes) -> tuple[Outcome, bool]:
    """Run the capability and record the run; return the outcome, and whether the journal has it.

    The records are durable before the outcome is: a reader that sees COMPLETED finds them.
    """
    _remember_secrets(attempt)
    if attempt.scope is None:
        with JobLog(lambda text: write_simple_log(attempt.store, attempt.job_id, text)):
            return outcome_of(attempt, payload), False
    journal = Journal.of(attempt.store, scope=attempt.scope)
    with JobLog(lambda text: journal.write_log(attempt.job_id, attempt.number, text)):
        outcome = outcome_of(attempt, payload)
    try:
        stored = journal.end(attempt.job_id, outcome)
    except StorageError as error:
        _log.warning("job %s: its end cannot be written to the journal: %s", attempt.job_id, error)
        return outcome, False
    return outcome if stored == outcome else stored, True  # *outcome* has the cause, not stored


def outcome_of(attempt: JobAttempt, payload: bytes) -> Outcome:
    """Run the capability and record the run durably; return the outcome.

    Exceptions of the user's code become the outcome FAILED. An interrupt from outside is raised.
    """
    warnings: tuple[str, ...] = ()
    try:
        warnings = tuple(filter(None, [difference(attempt.request.versions)]))
        import_from(attempt.import_paths)
        # Unpickling is contained, too: it imports the user's modules.
        ref = contained(lambda: _record(attempt, _unpacked(payload)()))
    except Exception as error:  # noqa: BLE001 - the user's code may raise anything
        outcome = Outcome.of_exception(error, warnings=warnings)
        return dataclasses.replace(outcome, cause=_cause(error))
    return Outcome(JobStatus.COMPLETED, ref=ref, warnings=warnings)


def _remember_secrets(attempt: JobAttempt) -> None:
    """Register the secrets to hide in the job's log and in its error: both are stored."""
    import ray

    environment = ray.get_runtime_context().runtime_env.get("env_vars") or {}
    remember({"env_vars": dict(environment), **attempt.store.model_dump()})


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


def _record(attempt: JobAttempt, run: Any) -> CapabilityRunRef:
    store = open_store(attempt.store)
    receipt = store.write_with_receipt([checked_run(run)], provenance=attempt.provenance)
    ref: CapabilityRunRef = receipt.refs[0]
    return ref


def _cause(error: Exception) -> bytes | None:
    """Pickle the user's exception; None if it cannot be unpickled, is large, or shows a secret."""
    raised = raised_as(error)
    with contextlib.suppress(Exception):  # the methods of the user's exception may raise anything
        from ray import cloudpickle

        data: bytes = cloudpickle.dumps(raised)  # type: ignore[no-untyped-call]  # Ray is half typed
        same = type(pickle.loads(data)) is type(raised)  # noqa: S301 - just made
        if same and len(data) <= _MAX_CAUSE and scrubbed(str(error)) == str(error):
            return data
    return None


def begin_and_perform(attempt: JobAttempt, payload: bytes) -> Iterator[Any]:
    """Yield None when the worker begins, so the job is RUNNING; then the result of `perform`."""
    yield None
    yield perform(attempt, payload)


@cache
def streaming_task() -> Any:
    """Return `begin_and_perform` as a Ray task; cached, so that Ray exports it only once."""
    import ray

    return ray.remote(begin_and_perform)


@cache
def plain_task() -> Any:
    """Return `perform` as a Ray task, for `ray://` connections, which cannot stream."""
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
    """Return the outcome FAILED for Ray's RayTaskError: our task raised, not the user's code."""
    text = plain(str(getattr(error, "traceback_str", error)))
    last = next((line for line in reversed(text.splitlines()) if line.strip()), "")
    why = (
        f"the worker cannot run jobs: {last.strip()}. Install the client's version of batchrunner in "
        "the workers' image"
    )
    return Outcome.failed(why, traceback=text)
