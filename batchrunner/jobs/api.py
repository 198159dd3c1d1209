"""The functions that users call: configure this process's job backend, submit and find jobs."""

from __future__ import annotations

import os
import threading
import time
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, cast

from batchrunner.analytics import CapabilityRunRef, open_store
from batchrunner.errors import InvalidSpecError, NoJobBackendError
from batchrunner.jobs.backend import JobBackend, backend_class, options_of
from batchrunner.jobs.batch_capability import BatchCapability
from batchrunner.jobs.identity import checked_edition, run_key
from batchrunner.jobs.job import Job, JobList, Jobs, Selection
from batchrunner.jobs.outcome import JobStatus
from batchrunner.jobs.request import (
    JobRequest,
    check_call,
    checked_name,
    pickled_call,
    resources_of,
)
from batchrunner.spec import AnalyticsStoreConfig

_lock = threading.RLock()
_active: JobBackend | None = None
_replaced: list[JobBackend] = []
"""Backends that were active earlier and have jobs: a shutdown waits for their jobs, too."""


def configure_job_backend(
    kind: str = "ray",
    *,
    analytics_store: AnalyticsStoreConfig | Mapping[str, Any],
    **options: Any,
) -> None:
    """Choose where this process's jobs run, and where they are recorded.

    Everything is checked here: the options first, then the store (by writing to it), then Ray. If
    this raises, the previous backend stays active. Running jobs go on.

    Args:
        kind: `"ray"`: jobs outlive this process, the same run is one job, and every process of the
            scope sees them all. `"ray-simple"`: a Ray task per job, found by this process only.
            `"in-process"`: a thread per job, for your own tests. `register_job_backend` adds others.
        analytics_store: Where the workers record the runs: a config, or its fields.
        options: See the reference of job backends.

    Raises:
        InvalidSpecError: Unknown kind or options, or the scope has another store. Also a ValueError.
        StorageError: The store cannot be written.
        CannotStartError: A connector is missing, or Ray is not there.
        RunRefusedError: `force_reinit` would end running jobs.
    """
    global _active  # noqa: PLW0603 - one backend per process is the contract
    fields = {"analytics_store": analytics_store, **options}
    checked = options_of(kind, fields)
    open_store(checked.analytics_store).check_writable()
    # Ray reads this when it is imported. Without it, Ray handles SIGTERM itself and dies of it.
    os.environ.setdefault("RAY_DISABLE_FAILURE_SIGNAL_HANDLER", "1")
    with _lock:
        backend = backend_class(kind)(checked)
        backend.open(_all_backends())
        if _active is not None and _active.has_jobs:
            _replaced.append(_active)
        _active = backend


def _all_backends() -> list[JobBackend]:
    return [*_replaced] if _active is None else [_active, *_replaced]


def submit_capability(  # noqa: PLR0913, PLR0917 - the contract's signature
    capability: Any,
    models: Sequence[Any] | None = None,
    datasets: Sequence[Any] | None = None,
    metrics: Sequence[Any] | None = None,
    config: Any = None,
    use_cache: bool = False,
    job_name: str | None = None,
    resources: Mapping[str, Any] | None = None,
    *,
    edition: str = "",
    **kwargs: Any,
) -> Job[CapabilityRunRef]:
    """Submit a capability as a job, and return the job's handle at once.

    The worker runs `capability.run(models=…, datasets=…, metrics=…, config=…, use_cache=False)`,
    records the run in the analytics store, and only then reports success.

    With "ray" and "in-process" the same run is one job, even if it completed long ago. Two runs are the
    same if they have the same `capability.id`, config, ids of datasets, models and metrics, further
    arguments, and edition. Code, constructor arguments and the contents of datasets do not count,
    except the code of a batch.

    Args:
        capability: An object with `id` and `run`.
        models: Argument of `run`.
        datasets: Argument of `run`.
        metrics: Argument of `run`.
        config: Argument of `run`.
        use_cache: Must be False.
        job_name: Shown in listings; by default, the capability's id.
        resources: num_cpus, num_gpus, memory, accelerator_type, and custom resources by name. By
            default what the config asks for, or else the capability, or else one CPU.
        edition: Give another edition to run the same run again, because its code or its data has
            changed. The run is recorded as `<run_uid>-<edition>`, beside the first.
        kwargs: Further arguments of `run`.

    Raises:
        NoJobBackendError: `configure_job_backend` was not called. Also a RuntimeError.
        InvalidSpecError: An argument does not fit. Also a ValueError.
        CapabilityImportError: The capability or an argument cannot be pickled.
        BackpressureError: Too many calls or jobs at once. Nothing was started: retry in a moment.
    """
    backend = _required("submit_capability")
    inputs = {
        "models": models,
        "datasets": datasets,
        "metrics": metrics,
        "config": config,
        "use_cache": use_cache,
        **kwargs,
    }
    check_call(capability, inputs)
    edition = checked_edition(edition)
    if isinstance(capability, BatchCapability):  # its config and its run_uid contain the edition
        capability, edition = capability.of_edition(edition), ""
    # First: what cannot be pickled usually has no identity either, and this error says more.
    call = pickled_call(capability, inputs, edition=edition)
    request = JobRequest(
        key=run_key(capability, inputs, edition=edition) if backend.deduplicates else "",
        name=checked_name(job_name, capability),
        capability_id=str(capability.id),
        resources=resources_of(resources, config=config, capability=capability),
        max_retries=int(getattr(capability, "default_max_retries", 0)),
    )
    return cast(Job[CapabilityRunRef], backend.submit(request, call))


def get_job(job_id: str) -> Job[CapabilityRunRef]:
    """Return the handle of a job, which another process may have submitted.

    Raises:
        NoJobBackendError: `configure_job_backend` was not called. Also a RuntimeError.
        InvalidSpecError: *job_id* is no string. Also a ValueError.
        UnknownJobError: There is no such job. Also a KeyError.
    """
    backend = _required("get_job")
    if not isinstance(job_id, str):
        raise InvalidSpecError(
            f"job_id must be a string, such as list_jobs() returns, not {job_id!r:.200}"
        )
    return cast(Job[CapabilityRunRef], backend.get(job_id))


def list_jobs(
    limit: int | None = 100,
    status_filter: JobStatus | Sequence[JobStatus] | None = None,
    submitted_before_ts: float | None = None,
) -> Jobs:
    """Return jobs, newest first; an empty list if no backend is configured.

    Args:
        limit: The most jobs to return; None for all.
        status_filter: Only jobs with this status, or with one of several.
        submitted_before_ts: Only jobs submitted earlier, in seconds since 1970.

    Raises:
        InvalidSpecError: The limit is no whole number, or below 0. Also a ValueError.
        TypeError: The filter is no JobStatus.
    """
    selection = Selection.asked(limit, status_filter, submitted_before_ts)
    return JobList(_active.select(selection) if _active is not None else [])


def shutdown_job_backend(
    wait: bool = True,
    timeout: float | None = None,
) -> None:
    """Deactivate the backend. Idempotent.

    Args:
        wait: Wait for the jobs that this process submitted, then disconnect from Ray if
            `configure_job_backend` connected; a Ray that it started ends. Otherwise return at once
            and leave Ray alone.
        timeout: Seconds to wait at most. A warning names the jobs that have not ended then; those of
            "ray" go on in a cluster that was joined.
    """
    global _active  # noqa: PLW0603 - as above
    with _lock:
        if _active is None:
            return
        backends = _all_backends()
        if wait:
            _wait_for_all(backends, timeout=timeout)
            for backend in backends:  # last: waiting for jobs needs the connection
                backend.close()
            backends = []
        _replaced[:] = backends
        _active = None


def _wait_for_all(backends: Sequence[JobBackend], *, timeout: float | None) -> None:
    deadline = None if timeout is None else time.monotonic() + timeout
    late = [job for backend in backends for job in backend.wait_all(deadline)]
    if late:
        warnings.warn(
            f'shutdown_job_backend no longer waits for: {", ".join(map(repr, late))}. Those of "ray" go on '
            "in a cluster that was joined; the others end with this process",
            stacklevel=4,
        )


def _required(caller: str) -> JobBackend:
    if _active is None:
        raise NoJobBackendError(
            f"{caller} needs a job backend: call configure_job_backend(..., analytics_store=...) first"
        )
    return _active
