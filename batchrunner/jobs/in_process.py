"""The backend "in-process": runs each job in a thread, for tests of code that submits jobs.

It keeps the promises of `JobBackend` as far as one process can: calls are pickled, the same run is one
job, jobs wait for free CPUs, and the journal is durable. But jobs die with the process, a call that
never returns to Python cannot be stopped, and there is no worker that could be lost and retried.
"""

from __future__ import annotations

import socket
import threading
import time
import uuid
from collections.abc import Sequence
from functools import cache
from typing import Any

from batchrunner.errors import UnknownJobError
from batchrunner.jobs.backend import JobBackend
from batchrunner.jobs.entries import Cluster, Submission
from batchrunner.jobs.history import IN_PROCESS, History
from batchrunner.jobs.job import Job, Jobs, JobState, Selection
from batchrunner.jobs.job_thread import Cpus, JobThread
from batchrunner.jobs.journal import Journal
from batchrunner.jobs.messages import JobView
from batchrunner.jobs.options import InProcessOptions
from batchrunner.jobs.outcome import JobStatus
from batchrunner.jobs.request import JobRequest, PickledCall
from batchrunner.jobs.worker_task import JobAttempt
from batchrunner.spec.secrets import remember

_POLL_SECONDS = 0.1
_submitting = threading.Lock()
_threads: dict[tuple[str, str], dict[str, JobThread]] = {}
"""By store and scope, then by job id: the backends of this process share their jobs."""


class InProcessBackend:
    """Runs each job in a thread of this process."""

    options_type = InProcessOptions
    deduplicates = True

    def __init__(self, options: InProcessOptions) -> None:
        self._options = options
        self._store, self._scope = options.analytics_store, options.idempotency_scope
        self._threads = _threads.setdefault((self._store.uri, self._scope), {})
        self._submitted: dict[str, Job[Any]] = {}
        self._cpus = Cpus(options.num_cpus)

    def open(self, before: Sequence[JobBackend]) -> None:  # noqa: ARG002 - interrupts no job
        """Open the journal. Never interrupts a job of the backends *before*."""
        remember(self._store.model_dump())  # its secrets are hidden in the jobs' logs and errors
        self._journal = Journal.of(self._store, scope=self._scope)
        self._history = History(self._journal, here=_this_process(), alive=self._state_of)

    def submit(self, request: JobRequest, call: PickledCall) -> Job[Any]:
        """Start a job in a thread, unless a job holds the same run; return the handle."""
        with _submitting:  # between processes, the claim in the journal decides
            view, number = self._history.holder(request)
            if view is None:
                view = self._start(request, call, number)
        job = view.handle(self)
        if not view.state.status.is_terminal:
            self._submitted[job.job_id] = job
        return job

    def get(self, job_id: str) -> Job[Any]:
        """Return the handle of a job of the scope, which another process may have submitted."""
        return self._view(job_id).handle(self)

    def select(self, selection: Selection) -> Jobs:
        """Return the scope's jobs, newest first."""
        live = {job_id: thread.view() for job_id, thread in list(self._threads.items())}
        return [view.handle(self) for view in self._history.listing(live, selection)]

    @property
    def has_jobs(self) -> bool:
        """Whether this backend submitted jobs, ended or not."""
        return bool(self._submitted)

    def unfinished(self) -> list[Job[Any]]:
        """Return the jobs that this backend submitted and that have not ended."""
        return [job for job in list(self._submitted.values()) if not _has_ended(job)]

    def wait_all(self, deadline: float | None) -> list[Job[Any]]:
        """Wait for the jobs that this backend submitted; return those that have not ended."""
        return [job for job in self.unfinished() if not job.wait(_rest(deadline)).is_terminal]

    def close(self) -> None:
        """Drop ended jobs from memory. The others go on."""
        for job_id, thread in list(self._threads.items()):
            if thread.state.outcome is not None:
                del self._threads[job_id]

    def look(self, job_id: str, *, seconds: float) -> JobState:
        deadline = time.monotonic() + seconds
        if (thread := self._threads.get(job_id)) is not None:
            return thread.wait(seconds)
        while True:  # a job of another process: only the journal shows its end
            state = self._view(job_id).state
            if state.status.is_terminal or time.monotonic() >= deadline:
                return state
            time.sleep(min(_POLL_SECONDS, _rest(deadline) or 0.0))

    def cancel(self, job_id: str) -> JobState:
        thread = self._threads.get(job_id)
        return self._view(job_id).state if thread is None else thread.cancel()

    def log(self, job_id: str) -> str:
        return self._journal.read_log(job_id).decode(errors="replace")

    def _start(self, request: JobRequest, call: PickledCall, number: int) -> JobView:
        job_id = self._journal.id_of(request.key, number)
        submission = Submission(job_id, number, request, _this_process(), self._store.uri)
        attempt = JobAttempt(job_id, 1, request, IN_PROCESS, self._store, self._scope)
        thread = JobThread(submission, attempt, call.payload, self._journal, self._cpus)
        # Before the claim: otherwise a listing in between would take the job for lost.
        self._threads[job_id] = thread
        try:
            claimed = self._journal.claim(submission)
            if claimed == submission:
                thread.start()
                return thread.view()
        except BaseException:
            del self._threads[job_id]
            raise
        del self._threads[job_id]  # another process was faster
        return JobView(claimed, JobState(JobStatus.RUNNING))

    def _view(self, job_id: str) -> JobView:
        if (thread := self._threads.get(job_id)) is not None:
            return thread.view()
        job = self._journal.read(job_id)
        if job is None:
            raise UnknownJobError(
                f"there is no job {job_id!r} in the scope {self._scope!r}; list_jobs() returns its jobs"
            )
        return self._history.settle(job)

    def _state_of(self, job_id: str) -> JobState | None:
        thread = self._threads.get(job_id)
        return None if thread is None else thread.state


@cache
def _this_process() -> Cluster:
    """Return an identity of this process, with an address that listens while the process lives.

    Another process that finds a job without an end tries the address: a process id would not do, as a
    later process may have the same one.
    """
    server = socket.create_server(("127.0.0.1", 0))
    threading.Thread(target=_answer, args=[server], daemon=True, name="in-process jobs").start()
    host, port = server.getsockname()
    return Cluster(uuid.uuid4().hex, f"{host}:{port}", IN_PROCESS)


def _answer(server: socket.socket) -> None:
    while True:
        server.accept()[0].close()


def _rest(deadline: float | None) -> float | None:
    return None if deadline is None else max(0.0, deadline - time.monotonic())


def _has_ended(job: Job[Any]) -> bool:
    try:
        return job.status.is_terminal
    except UnknownJobError:  # its store was removed: there is nothing left to wait for
        return True
