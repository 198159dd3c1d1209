"""What a worker is given, and what it makes of it: run, record, and only then report success."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import pickle
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from batchrunner.analytics import CapabilityRunRef, open_store
from batchrunner.errors import CapabilityImportError, StorageError
from batchrunner.execute.import_paths import import_from
from batchrunner.jobs.job_log import JobLog, write_simple_log
from batchrunner.jobs.journal import Journal
from batchrunner.jobs.outcome import Outcome, raised_as
from batchrunner.jobs.returned_run import checked_run
from batchrunner.jobs.status import JobStatus
from batchrunner.jobs.versions import difference
from batchrunner.spec.analytics import AnalyticsStoreConfig
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
