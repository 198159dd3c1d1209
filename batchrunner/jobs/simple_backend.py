"""The backend "ray-simple": one Ray task per job; jobs and handles end with this process."""

from __future__ import annotations

import threading
import time
import uuid
from datetime import datetime
from typing import Any

from batchrunner.errors import UnknownJobError
from batchrunner.jobs.connection import CONNECTION, OnRay, connection_id, is_ray_client
from batchrunner.jobs.job import Job, Jobs, JobState, Selection
from batchrunner.jobs.job_log import read_simple_log
from batchrunner.jobs.options import RaySimpleOptions
from batchrunner.jobs.outcome import JobStatus, Outcome
from batchrunner.jobs.request import JobRequest, PickledCall
from batchrunner.jobs.worker_task import (
    JobAttempt,
    failure_of,
    loss_of,
    plain_task,
    streaming_task,
    task_options,
)

_CANCEL_SECONDS = 20.0
LOST = (
    'this process gave up the connection to Ray before the job ended, and a job of "ray-simple" ends '
    'with it; submit it again, or use the backend "ray", whose jobs go on'
)


class SimpleBackend(OnRay):
    """Runs each job as a Ray task that this process owns."""

    options_type = RaySimpleOptions
    deduplicates = False
    ends_with_connection = True

    def __init__(self, options: RaySimpleOptions) -> None:
        super().__init__(options)
        self._options = options
        self._tasks: dict[str, _Task] = {}
        self._jobs: dict[str, Job[Any]] = {}

    def submit(self, request: JobRequest, call: PickledCall) -> Job[Any]:
        """Start the task and return the handle of the job."""
        # First: over a lost connection, Ray would start a new Ray rather than join the cluster.
        CONNECTION.open(self._options.ray, asked=False, anew=False)
        attempt = JobAttempt(
            job_id=uuid.uuid4().hex,
            number=1,
            request=request,
            backend="ray-simple",
            store=self._options.analytics_store,
            import_paths=call.import_paths,
        )
        retries = self._options.max_retries
        options = {
            **task_options(request.resources),
            "max_retries": request.max_retries if retries is None else retries,
            "name": f"job {request.name}",
        }
        self._tasks[attempt.job_id] = _Task(attempt, call.payload, options)
        job: Job[Any] = Job(
            attempt.job_id,
            job_name=request.name,
            created_at=datetime.fromisoformat(request.created_at),
            tracker=self,
        )
        self._jobs[attempt.job_id] = job
        return job

    def get(self, job_id: str) -> Job[Any]:
        """Return the handle of a job of this process."""
        if job_id not in self._jobs:
            raise UnknownJobError(
                f'no job {job_id!r} was submitted by this process, and "ray-simple" finds only '
                "those: list_jobs() returns them"
            )
        return self._jobs[job_id]

    def select(self, selection: Selection) -> Jobs:
        """Return the jobs of this process, newest first."""
        jobs = sorted(self._jobs.values(), key=lambda job: (job.created_at, job.job_id))
        return list(selection.of(reversed(jobs), status=lambda job: job.status))

    @property
    def has_jobs(self) -> bool:
        """Whether this process submitted jobs, ended or not: their handles are only here."""
        return bool(self._jobs)

    def unfinished(self) -> list[Job[Any]]:
        """Return the jobs of this process that have not ended."""
        return [job for job in list(self._jobs.values()) if not job.status.is_terminal]

    def wait_all(self, deadline: float | None) -> list[Job[Any]]:
        """Wait for the jobs of this process until *deadline*; return those that have not ended."""
        return [job for job in self.unfinished() if not job.wait(_until(deadline)).is_terminal]

    def look(self, job_id: str, *, seconds: float) -> JobState:
        return self._tasks[job_id].look(seconds)

    def cancel(self, job_id: str) -> JobState:
        return self._tasks[job_id].cancel()

    def log(self, job_id: str) -> str:
        return read_simple_log(self._options.analytics_store, job_id).decode(errors="replace")


def _until(deadline: float | None) -> float | None:
    return None if deadline is None else max(0.0, deadline - time.monotonic())


class _Task:
    """A Ray task and the state of its job. The task yields when it begins, and its outcome."""

    def __init__(self, attempt: JobAttempt, payload: bytes, options: dict[str, Any]) -> None:
        # Ray's client (`ray://`) cannot stream: a job that runs stays PENDING there until its end.
        self._streams = not is_ray_client()
        if self._streams:
            task = streaming_task().options(num_returns="streaming", **options)
        else:
            task = plain_task().options(**options)
        self._running: Any = task.remote(attempt, payload)
        self._connection = connection_id()
        self._state = JobState(JobStatus.PENDING)
        self._cancelling = False
        self._lock = threading.Lock()

    def look(self, seconds: float) -> JobState:
        deadline = time.monotonic() + seconds
        while not self._is_over():
            if not self._has_news(max(0.0, deadline - time.monotonic())):
                break
            with self._lock:
                self._take()
        if self._state.status.is_terminal:
            # As long as the reference lives, Ray keeps the payload, so that it can retry the task.
            self._running = None
        return self._state

    def cancel(self) -> JobState:
        import ray

        self._cancelling = True
        deadline = time.monotonic() + _CANCEL_SECONDS
        while not self.look(0.0).status.is_terminal and time.monotonic() < deadline:
            if (running := self._running) is not None:
                ray.cancel(running, force=True)
            self.look(1.0)
        return self._state

    def _is_over(self) -> bool:
        """Whether the task has ended, or is lost because its connection to Ray was closed.

        Check this before each call of Ray: without that connection, Ray would start a Ray of its own
        and then exit this process.
        """
        if not self._state.status.is_terminal and connection_id() != self._connection:
            self._state = JobState.ended(Outcome.failed(LOST))
        return self._state.status.is_terminal

    def _has_news(self, seconds: float) -> bool:
        import ray

        running = self._running
        if running is None:  # another thread has taken the result
            return False
        try:
            return bool(ray.wait([running], timeout=seconds, fetch_local=False)[0])
        except (Exception, SystemExit):
            # Another thread closed the connection while this one waited, for which Ray raises
            # SystemExit; or the cluster of a `ray://` connection is gone.
            if self._is_over():
                return False
            raise

    def _take(self) -> None:
        """Set the state from what the task yielded next, unless another thread has done so."""
        import ray
        from ray.exceptions import RayError, RayTaskError

        if self._is_over() or not self._has_news(0.0):
            return
        try:
            ended = ray.get(next(self._running) if self._streams else self._running)
        except RayTaskError as error:
            self._state = JobState.ended(failure_of(error))
        except (RayError, StopIteration, ConnectionError) as error:
            lost = Outcome.failed(loss_of(error))
            cancelled = Outcome(JobStatus.CANCELLED)
            self._state = JobState.ended(cancelled if self._cancelling else lost)
        else:
            self._state = JobState.ended(ended[0]) if ended else JobState(JobStatus.RUNNING)
