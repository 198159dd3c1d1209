"""Jobs: each runs a capability once, elsewhere, and completes only when its run is recorded."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from batchrunner.analytics import AnalyticsStoreConfig as AnalyticsStoreConfig
    from batchrunner.analytics import CapabilityRunRef as CapabilityRunRef
    from batchrunner.errors import BackpressureError as BackpressureError
    from batchrunner.errors import JobCancelledError as JobCancelledError
    from batchrunner.errors import JobError as JobError
    from batchrunner.errors import JobFailedError as JobFailedError
    from batchrunner.errors import JobTimeoutError as JobTimeoutError
    from batchrunner.errors import NoJobBackendError as NoJobBackendError
    from batchrunner.errors import UnknownJobError as UnknownJobError
    from batchrunner.jobs.api import configure_job_backend as configure_job_backend
    from batchrunner.jobs.api import get_job as get_job
    from batchrunner.jobs.api import list_jobs as list_jobs
    from batchrunner.jobs.api import shutdown_job_backend as shutdown_job_backend
    from batchrunner.jobs.api import submit_capability as submit_capability
    from batchrunner.jobs.backend import JobBackend as JobBackend
    from batchrunner.jobs.backend import register_job_backend as register_job_backend
    from batchrunner.jobs.batch_capability import BatchCapability as BatchCapability
    from batchrunner.jobs.job import Job as Job
    from batchrunner.jobs.outcome import JobStatus as JobStatus

_HOMES = {
    "AnalyticsStoreConfig": "batchrunner.analytics",
    "BackpressureError": "batchrunner.errors",
    "BatchCapability": "batchrunner.jobs.batch_capability",
    "CapabilityRunRef": "batchrunner.analytics",
    "Job": "batchrunner.jobs.job",
    "JobBackend": "batchrunner.jobs.backend",
    "JobCancelledError": "batchrunner.errors",
    "JobError": "batchrunner.errors",
    "JobFailedError": "batchrunner.errors",
    "JobStatus": "batchrunner.jobs.outcome",
    "JobTimeoutError": "batchrunner.errors",
    "NoJobBackendError": "batchrunner.errors",
    "UnknownJobError": "batchrunner.errors",
    "configure_job_backend": "batchrunner.jobs.api",
    "get_job": "batchrunner.jobs.api",
    "list_jobs": "batchrunner.jobs.api",
    "register_job_backend": "batchrunner.jobs.backend",
    "shutdown_job_backend": "batchrunner.jobs.api",
    "submit_capability": "batchrunner.jobs.api",
}

__all__ = [
    "AnalyticsStoreConfig",
    "BackpressureError",
    "BatchCapability",
    "CapabilityRunRef",
    "Job",
    "JobBackend",
    "JobCancelledError",
    "JobError",
    "JobFailedError",
    "JobStatus",
    "JobTimeoutError",
    "NoJobBackendError",
    "UnknownJobError",
    "configure_job_backend",
    "get_job",
    "list_jobs",
    "register_job_backend",
    "shutdown_job_backend",
    "submit_capability",
]


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used: a worker needs neither registry nor backends."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    """Return all names, also public ones not yet imported, for completion in a notebook."""
    return sorted({*globals(), *__all__})
