"""Runs a job in a thread of this process, which can be cancelled while its code runs."""

from __future__ import annotations

import ctypes
import threading

from batchrunner.jobs.controller import write_end
from batchrunner.jobs.entries import Submission
from batchrunner.jobs.job import JobState
from batchrunner.jobs.job_log import JobLog
from batchrunner.jobs.journal import Journal
from batchrunner.jobs.messages import JobView
from batchrunner.jobs.outcome import JobStatus, Outcome
from batchrunner.jobs.worker_task import JobAttempt, outcome_of

_CANCEL_SECONDS = 20.0


class JobThread(threading.Thread):
    """Waits for CPUs, runs one job, and writes its end to the journal.

    Attributes:
        state: The present state of the job.
    """

    def __init__(
        self,
        submission: Submission,
        attempt: JobAttempt,
        payload: bytes,
        journal: Journal,
        cpus: Cpus,
    ) -> None:
        # A daemon: a job that never ends must not keep the process from exiting.
        super().__init__(daemon=True, name=f"job {submission.request.name}")
        self.state = JobState(JobStatus.PENDING)
        self._submission, self._attempt, self._payload = submission, attempt, payload
        self._journal, self._cpus = journal, cpus
        self._done, self._cancelling = threading.Event(), threading.Event()
        self._interrupts = threading.Lock()
        self._takes_interrupts = False

    def view(self) -> JobView:
        """Return the job and its state."""
        return JobView(self._submission, self.state)

    def wait(self, seconds: float) -> JobState:
        """Wait up to *seconds* for the end, and return the state of the job."""
        self._done.wait(seconds)
        return self.state

    def cancel(self) -> JobState:
        """Stop the job within 20 s, and return its state: unchanged if its code stays in C."""
        with self._interrupts:
            first = not self._cancelling.is_set()
            self._cancelling.set()
            if first and self._takes_interrupts:
                _raise_in(self.ident, _Interrupt)
        self._cpus.wake()
        return self.wait(_CANCEL_SECONDS)

    def run(self) -> None:
        """Run the job to its end. Raises nothing: every job ends."""
        job_id = self._submission.job_id
        try:
            outcome = write_end(self._journal, job_id, self._performed(job_id))
        except Exception as error:  # noqa: BLE001 - a job must end, whatever went wrong
            outcome = Outcome.of_exception(error)
        self._payload = b""
        self.state = JobState.ended(outcome)  # after the journal, which its readers may read next
        self._done.set()

    def _performed(self, job_id: str) -> Outcome:
        cpus = self._submission.request.resources["num_cpus"]
        if not self._cpus.take(cpus, unless=self._cancelling):
            return Outcome(JobStatus.CANCELLED)
        try:
            self.state = JobState(JobStatus.RUNNING)
            with JobLog(lambda text: self._journal.write_log(job_id, 1, text), own_thread=True):
                return self._outcome()
        finally:
            self._cpus.give_back(cpus)

    def _outcome(self) -> Outcome:
        cancelled = Outcome(JobStatus.CANCELLED)
        try:
            with self._interrupts:
                if self._cancelling.is_set():
                    return cancelled
                self._takes_interrupts = True
            outcome = outcome_of(self._attempt, self._payload)
            with self._interrupts:
                self._takes_interrupts = False
            _take_interrupt()
        except _Interrupt:  # raised at most once, so nothing interrupts this block
            with self._interrupts:
                self._takes_interrupts = False
            return cancelled
        # The interrupt, if raised in the user's code, was recorded as a failure like any exception.
        failed = outcome.status is JobStatus.FAILED
        return cancelled if failed and self._cancelling.is_set() else outcome


class _Interrupt(BaseException):
    """Raised in the thread of a job that is cancelled."""


def _raise_in(thread: int | None, error: type[BaseException]) -> None:
    """Make *thread* raise *error* at its next Python instruction: not while it is in C code."""
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread or 0), ctypes.py_object(error))


def _take_interrupt() -> None:
    """Do nothing. A pending interrupt is raised when a function is entered: here at the latest."""


class Cpus:
    """A pool of CPUs that jobs take and give back."""

    def __init__(self, total: float) -> None:
        self._free = total
        self._changed = threading.Condition()

    def take(self, amount: float, *, unless: threading.Event) -> bool:
        """Wait until *amount* CPUs are free, and take them; return False once *unless* is set."""
        with self._changed:
            # The tolerance is for sums of fractions, which are not exact.
            self._changed.wait_for(lambda: unless.is_set() or self._free >= amount - 1e-6)
            is_taken = not unless.is_set()
            if is_taken:
                self._free -= amount
            return is_taken

    def give_back(self, amount: float) -> None:
        """Return *amount* CPUs to the pool."""
        with self._changed:
            self._free += amount
            self._changed.notify_all()

    def wake(self) -> None:
        """Wake the jobs that wait, so that they check their `unless` event."""
        with self._changed:
            self._changed.notify_all()
