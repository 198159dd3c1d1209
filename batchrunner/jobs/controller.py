"""One job's life, inside the registry actor: started, started again, cancelled, ended."""

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
"""Starts an attempt, by number: a streaming generator of `begin_and_perform`."""

_CANCEL_SECONDS = 20.0
_MAX_PAUSE = 5.0
_log = logging.getLogger(__name__)


class Controller:
    """Drives one job to its end.

    Attributes:
        submission: What was submitted.
        state: Where it stands.
        ended: When it ended, by this process's monotonic clock; None when it has not.
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
        """Start the job, with this *attempt*, and see it to its end."""
        try:
            outcome = await self._outcome(attempt)
        except Exception as error:  # noqa: BLE001 - a job must end, whatever went wrong
            _log.exception("the controller of job %s failed", self.submission.job_id)
            outcome = Outcome.of_exception(error)
        self._launch, self._running = None, None  # what they hold is large
        self.state = JobState.ended(outcome)
        self.ended = time.monotonic()
        self._done.set()

    async def wait(self, seconds: float) -> None:
        """Wait for the end, for up to *seconds*."""
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
        """Stop the job; returns when it has ended, one way or the other."""
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
                return await self._written(ended[0], written=ended[1])
            # It may have died after it had written down how it ended.
            before: Outcome | None = await _io(self._journal.outcome, self.submission.job_id)
            if before is not None:
                return before
            if self._cancelling:
                return await self._written(Outcome(JobStatus.CANCELLED), written=False)
            if attempt > self.submission.max_retries:
                return await self._written(_lost(ended, attempt), written=False)
            attempt = await self._again(attempt, why=ended)

    async def _again(self, attempt: int, *, why: str) -> int:
        self.state = JobState(JobStatus.PENDING)
        _log.warning("job %s is started again: %s", self.submission.job_id, why)
        await _io(self._journal.note_attempt, self.submission, attempt + 1)
        await asyncio.sleep(min(0.1 * attempt, _MAX_PAUSE))
        return attempt + 1

    async def _attempt(self, number: int) -> tuple[Outcome, bool] | str:
        """Return how the job ended and whether that is written down, or why its worker is lost."""
        from ray.exceptions import RayError, RayTaskError

        if self._cancelling:
            return "cancelled"
        try:
            self._running = self._launch(number)  # type: ignore[misc]  # there until the end
            await (await anext(self._running))
            self.state = JobState(JobStatus.RUNNING)
            ended: tuple[Outcome, bool] = await (await anext(self._running))
        except RayTaskError as error:
            return failure_of(error), False
        except (RayError, StopAsyncIteration) as error:
            return loss_of(error)
        return ended

    async def _written(self, outcome: Outcome, *, written: bool) -> Outcome:
        """Return how the job ended for good: as the journal says, first of all."""
        if written:
            return outcome
        try:
            stored: Outcome = await _io(self._journal.end, self.submission.job_id, outcome)
        except StorageError as error:
            # Whoever looks later, elsewhere, can only think that the job was lost: so say FAILED.
            _log.warning("the journal cannot be written: %s", error)
            if outcome.status is not JobStatus.COMPLETED:
                return outcome
            return Outcome.failed(f"the run is recorded, but the end of the job is not: {error}")
        return outcome if stored == outcome else stored


def _lost(why: str, attempts: int) -> Outcome:
    times = "" if attempts == 1 else f", {attempts} times"
    return Outcome.failed(
        f"{why}{times}, before the job ended; submit it again, or allow more max_retries"
    )


async def _io(work: Callable[..., Any], *args: Any) -> Any:
    return await asyncio.to_thread(work, *args)
