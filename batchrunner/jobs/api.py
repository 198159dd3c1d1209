"""The front door: one active job backend per process."""

from __future__ import annotations

import os
import threading
import time
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, cast

from batchrunner.analytics import CapabilityRunRef, open_store
from batchrunner.errors import NoJobBackendError, RunRefusedError
from batchrunner.jobs.batch_capability import BatchCapability
from batchrunner.jobs.connection import Connection
from batchrunner.jobs.editions import checked_edition
from batchrunner.jobs.job import Job, Jobs, Selection
from batchrunner.jobs.options import RayOptions, RaySimpleOptions, options_of
from batchrunner.jobs.outcome import JobStatus
from batchrunner.jobs.ray_backend import RayBackend
from batchrunner.jobs.request import Request, check_call, checked_name, pickled_call, resources_of
from batchrunner.jobs.simple_backend import SimpleBackend
from batchrunner.spec import AnalyticsStoreConfig

Backend = RayBackend | SimpleBackend

_lock = threading.RLock()
_connection = Connection()
_active: Backend | None = None
_left: list[Backend] = []
"""Backends that were active before, as long as jobs of theirs run."""


def configure_job_backend(
    kind: str = "ray",
    *,
    analytics_store: AnalyticsStoreConfig | Mapping[str, Any],
    **options: Any,
) -> None:
    """Choose where this process's jobs run, and where they are recorded.

    Everything is checked here: the options first, then the store (by writing to it), then Ray. When
    it raises, the backend that was active before stays active. Jobs that run go on.

    Args:
        kind: `"ray"`: jobs outlive this process, the same run is one job, and every process of the
            scope sees them all. `"ray-simple"`: a Ray task per job, known to this process only.
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
    # Ray reads it when it is imported, or else takes SIGTERM for itself and dies of it.
    os.environ.setdefault("RAY_DISABLE_FAILURE_SIGNAL_HANDLER", "1")
    with _lock:
        if checked.force_reinit:
            _refuse_to_end_jobs()
        asked = checked.address is not None or checked.runtime_env is not None
        _connection.open(checked.ray, asked=asked, anew=checked.force_reinit)
        backend = _backend(checked)
        if _active is not None and _active.has_jobs:
            _left.append(_active)
        _active = backend


def _backend(options: RaySimpleOptions) -> Backend:
    if not isinstance(options, RayOptions):
        return SimpleBackend(options, connection=_connection)
    backend = RayBackend(options, connection=_connection)
    backend.join()
    return backend


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
    """Run a capability somewhere else, and return the handle of the job at once.

    The worker runs `capability.run(models=…, datasets=…, metrics=…, config=…, use_cache=False)`,
    records the run in the analytics store, and only then reports success.

    With the backend "ray" the same run is one job, also when it completed long ago. The same run is:
    the same `capability.id`, config, ids of datasets, models and metrics, further arguments, and
    edition. Code, constructor arguments and the contents of datasets are not looked at; of a batch,
    code is.

    Args:
        capability: An object with `id` and `run`.
        models: For `run`.
        datasets: For `run`.
        metrics: For `run`.
        config: For `run`.
        use_cache: False.
        job_name: For people; by default, the capability's id.
        resources: num_cpus, num_gpus, memory, accelerator_type, and custom resources by name. By
            default what the config asks for, or else the capability, or else one CPU.
        edition: Say another one to have the same run made once more: its code, or what it reads,
            has changed. It is recorded as `<run_uid>-<edition>`, beside the first.
        kwargs: Further arguments of `run`.

    Raises:
        NoJobBackendError: `configure_job_backend` was not called. Also a RuntimeError.
        InvalidSpecError: An argument does not fit. Also a ValueError.
        CapabilityImportError: Something of it cannot be pickled.
        BackpressureError: Too much at once: try again.
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
    if isinstance(capability, BatchCapability):  # its own editions, which are the same thing
        capability, edition = capability.of_edition(edition), ""
    request = Request(
        capability=capability,
        inputs=inputs,
        name=checked_name(job_name, capability),
        resources=resources_of(resources, config=config, capability=capability),
        payload=pickled_call(capability, inputs, edition=edition),
        edition=edition,
    )
    return cast(Job[CapabilityRunRef], backend.submit(request))


def get_job(job_id: str) -> Job[CapabilityRunRef]:
    """Return the handle of a job, whoever submitted it.

    Raises:
        NoJobBackendError: `configure_job_backend` was not called. Also a RuntimeError.
        UnknownJobError: There is no such job. Also a KeyError.
    """
    return cast(Job[CapabilityRunRef], _required("get_job").get(job_id))


def list_jobs(
    limit: int | None = 100,
    status_filter: JobStatus | Sequence[JobStatus] | None = None,
    submitted_before_ts: float | None = None,
) -> Jobs:
    """Return jobs, the newest first; none when no backend is configured.

    Args:
        limit: At most so many; None for all.
        status_filter: Only those in this state, or in one of these.
        submitted_before_ts: Only those submitted earlier, in seconds since 1970.

    Raises:
        TypeError: The filter is no JobStatus.
    """
    selection = Selection.asked(limit, status_filter, submitted_before_ts)
    return _active.select(selection) if _active is not None else []


def shutdown_job_backend(
    wait: bool = True,
    timeout: float | None = None,
) -> None:
    """Be without a backend; do nothing when there is none.

    Args:
        wait: Wait for the jobs that this process submitted, then disconnect from Ray if we
            connected; a Ray that we started ends. Otherwise return at once and leave Ray alone.
        timeout: Seconds to wait at most. What has not ended then is named in a warning; jobs in a
            cluster that we joined go on, if the backend is "ray".
    """
    global _active  # noqa: PLW0603 - as above
    with _lock:
        if _active is None:
            return
        if wait:
            _wait_for_all([_active, *_left], timeout=timeout)
            _connection.close()
            _left.clear()
        else:
            _left.append(_active)
        _active = None


def _wait_for_all(backends: Sequence[Backend], *, timeout: float | None) -> None:
    deadline = None if timeout is None else time.monotonic() + timeout
    late = [job for backend in backends for job in backend.left_at(deadline)]
    if late:
        warnings.warn(f"not waited for: {', '.join(map(repr, late))}", stacklevel=4)


def _refuse_to_end_jobs() -> None:
    backends = [backend for backend in [_active, *_left] if backend is not None]
    running = [
        job
        for backend in backends
        if isinstance(backend, SimpleBackend) or _connection.is_local()
        for job in backend.unfinished()
    ]
    if running:
        raise RunRefusedError(
            f"force_reinit would end running jobs: {', '.join(map(repr, running))}. Wait for them, "
            "cancel them, or call shutdown_job_backend()"
        )


def _required(caller: str) -> Backend:
    if _active is None:
        raise NoJobBackendError(
            f"{caller} needs a job backend: call configure_job_backend(..., analytics_store=...) first"
        )
    return _active
