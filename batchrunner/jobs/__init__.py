"""Jobs: one capability run each, executed somewhere else, recorded before it counts."""

from __future__ import annotations

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
from batchrunner.jobs.batch_capability import BatchCapability as BatchCapability
from batchrunner.jobs.job import Job as Job
from batchrunner.jobs.status import JobStatus as JobStatus

__all__ = [
    "AnalyticsStoreConfig",
    "BackpressureError",
    "BatchCapability",
    "CapabilityRunRef",
    "Job",
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
    "shutdown_job_backend",
    "submit_capability",
]
