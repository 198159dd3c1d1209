"""Runs one job to its end, inside the registry actor: starts, retries and cancels it."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Any

from batchrunner.errors import StorageError
from batchrunner.jobs.entries import Submission
from batchrunner.jobs.job import JobState
from batchrunner.jobs.journal import Journal
from batchrunner.jobs.outcome import JobStatus, Outcome
from batchrunner.jobs.worker_task import failure_of, loss_of

Launch = Callable[[int], Any]
"""Starts the attempt with a number; returns Ray's stream of what `begin_and_perform` yields."""

_CANCEL_SECONDS = 20.0
_MAX_PAUSE = 5.0
_log = logging.getLogger(__name__)


class Controller:
    """Drives one job to its end.

    Attributes:
        submission: The job as it was submitted.
        state: The present state of the job.
        ended: When the job ended, by this process's monotonic clock; None while it has not.
        waiting: How many calls wait for the end.
    """

    def __init__(self, submission: Submission, *, journal: Journal, launch: Launch) -> None:
        self.submission = submission
        self.state = JobState(JobStatus.PENDING)
        self.ended: float | None = None
        self.waiting = 0
        self._journal = journal
        self._launch: Launch | None = launch
        self._running: Any = None
        self._cancelling = False
        self._done = asyncio.Event()

    async def live(self, attempt: int) -> None:
        """Run the job to its end, beginning with this *attempt*. Raises nothing: every job ends."""
        try:
            outcome = await self._outcome(attempt)
        except Exception as error:  # noqa: BLE001 - a job must end, whatever went wrong
            _log.exception("the controller of job %s failed", self.submission.job_id)
            outcome = Outcome.of_exception(error)
        self._launch, self._running = None, None  # they refer to large objects
        self.state = JobState.ended(outcome)
        self.ended = time.monotonic()
        self._done.set()

    async def wait(self, seconds: float) -> None:
        """Wait up to *seconds* for the end."""
        if seconds <= 0 or self._done.is_set():
            return
        self.waiting += 1
        try:
            await asyncio.wait_for(self._done.wait(), seconds)
        except TimeoutError:
            pass
        finally:
            self.waiting -= 1

    async def cancel(self) -> None:
        """Stop the job. Returns when it has ended, or after 20 s."""
        import ray

        self._cancelling = True
        deadline = time.monotonic() + _CANCEL_SECONDS
        while not self._done.is_set() and time.monotonic() < deadline:
            if self._running is not None:
                ray.cancel(self._running, force=True)
            await self.wait(1.0)

    async def _outcome(self, attempt: int) -> Outcome:
        while True:
            ended = await self._attempt(attempt)
            if not isinstance(ended, str):
                outcome, is_written = ended
                return outcome if is_written else await self._end(outcome)
            # First: the worker may have written the end to the journal before it died.
            stored: Outcome | None = await _io(self._journal.outcome, self.submission.job_id)
            if stored is not None:
                return stored
            if self._cancelling:
                return await self._end(Outcome(JobStatus.CANCELLED))
            if attempt > self.submission.request.max_retries:
                return await self._end(_lost(ended, attempt))
            attempt = await self._retry(attempt, why=ended)

    async def _end(self, outcome: Outcome) -> Outcome:
        end: Outcome = await _io(write_end, self._journal, self.submission.job_id, outcome)
        return end

    async def _retry(self, attempt: int, *, why: str) -> int:
        self.state = JobState(JobStatus.PENDING)
        _log.warning("job %s is retried: %s", self.submission.job_id, why)
        # Before the start: if the registry dies in between, the attempt must count.
        await _io(self._journal.add_attempt, self.submission, attempt + 1)
        await asyncio.sleep(min(0.1 * attempt, _MAX_PAUSE))
        return attempt + 1

    async def _attempt(self, number: int) -> tuple[Outcome, bool] | str:
        """Return the outcome and whether the journal has it, or why the worker is lost."""
        from ray.exceptions import RayError, RayTaskError

        if self._cancelling:  # during the pause before a retry, when there was no task to cancel
            return "cancelled"
        try:
            self._running = self._launch(number)  # type: ignore[misc]  # there until the end
            await (await anext(self._running))  # the worker has begun
            self.state = JobState(JobStatus.RUNNING)
            ended: tuple[Outcome, bool] = await (await anext(self._running))
        except RayTaskError as error:
            return failure_of(error), False
        except (RayError, StopAsyncIteration) as error:
            return loss_of(error)
        return ended


def write_end(journal: Journal, job_id: str, outcome: Outcome) -> Outcome:
    """Write the end of a job durably, and return it; return the stored end if there is one already.

    If the journal cannot be written, a completed job becomes a failed one, even if its run is
    recorded: the next reader will find no end and decide that the job was lost, and a terminal status
    must not change.
    """
    try:
        stored = journal.end(job_id, outcome)
    except StorageError as error:
        _log.warning("job %s: its end cannot be written to the journal: %s", job_id, error)
        if outcome.status is not JobStatus.COMPLETED:
            return outcome
        return Outcome.failed(
            f"the run is recorded, but the end of the job is not: {error}; submit it again"
        )
    return outcome if stored == outcome else stored  # ours has the cause, which is not stored


def _lost(why: str, attempts: int) -> Outcome:
    times = "" if attempts == 1 else f", {attempts} times"
    return Outcome.failed(
        f"{why}{times}, before the job ended; submit it again, or allow more max_retries"
    )


async def _io(work: Callable[..., Any], *args: Any) -> Any:
    return await asyncio.to_thread(work, *args)
