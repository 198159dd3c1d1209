"""The registry actor of a scope: accepts submissions, owns the jobs' tasks, reports their states.

Its name makes it the only one of its scope in a cluster. It handles submissions of the same run one
after the other. It writes what must survive the actor to the journal before it answers a client.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Callable
from functools import partial
from typing import Any
from weakref import WeakValueDictionary

from batchrunner.errors import StorageError
from batchrunner.jobs.controller import Controller
from batchrunner.jobs.entries import JournaledJob, Submission
from batchrunner.jobs.history import History, cluster_here, prune_after, prune_journal
from batchrunner.jobs.job import JobState, Selection
from batchrunner.jobs.launching import RestartStore, launcher
from batchrunner.jobs.messages import Busy, JobView, RegistryConfig, SubmitMessage
from batchrunner.jobs.outcome import JobStatus

_TICK_SECONDS = 1.0
_RETRY_SECONDS = 5.0
_PRUNE_AT_ONCE = 1000
"""More than `prune_after` ever returns: the first job that ends makes the journal be pruned."""
_log = logging.getLogger(__name__)


class Registry:
    """The registry. Every call is idempotent: clients repeat calls that its death interrupted."""

    def __init__(self, config: RegistryConfig) -> None:
        import ray

        name = f"{config.options.registry_namespace}/{config.actor_name}"
        self._here = cluster_here(name)
        self._restarts = RestartStore(name)
        self._controllers: dict[str, Controller] = {}
        self._key_locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._starting: set[str] = set()  # jobs that are being claimed, and have no controller yet
        self._recovery: asyncio.Task[None] | None = None
        self._ticking = False
        self._submitting = self._calls = 0
        self._ended = _PRUNE_AT_ONCE  # since the journal was pruned last
        self._last_call = time.monotonic()
        self._options = config.options
        self._journal = config.journal()
        self._history = History(self._journal, here=self._here, alive=self._state_of)
        self._me = ray.get_runtime_context().current_actor
        # Recover jobs from here, not in a client's first call: after a restart there may be no client
        # left. (Ray runs this in the actor's event loop; a call of the actor to itself would now and
        # then be lost.)
        self._spawn(self._begin())

    async def join(self, config: RegistryConfig) -> str:
        """Use a client's limits and credentials from now on; return the URI of the scope's store.

        Raises:
            InvalidSpecError: The client has another scope: its jobs would mix with those of this one.
        """
        config.check_scope(self._options.idempotency_scope)
        uri = self._options.analytics_store.uri
        if config.options.analytics_store.uri == uri:  # else the client refuses to go on
            self._options = config.options
            self._journal = self._history.journal = config.journal()
        await self._ready()
        return uri

    async def pid(self) -> int:
        """Return the id of this process, for debugging and for tests."""
        return os.getpid()

    async def submit(self, message: SubmitMessage) -> JobView | Busy:
        """Start a job, unless one holds the same run; return the job that holds it."""
        # Counted here, too: Ray's own limit holds only for the handle that created the actor.
        if self._submitting >= self._options.registry_max_pending_calls:
            return Busy(f"{self._submitting} submissions are under way")
        self._submitting += 1
        try:
            await self._ready()
            # The claim in the journal alone makes one job of many submissions. The lock spares the
            # losers a claim that fails: each finds the job that the one before it started.
            async with self._key_locks.setdefault(message.request.key, asyncio.Lock()):
                return await self._submit(message)
        finally:
            self._submitting -= 1

    async def look(self, job_id: str, seconds: float) -> JobView | None:
        """Wait up to *seconds* for the end of a job; return the job, or None if there is none."""
        await self._ready()
        controller = self._controllers.get(job_id)
        if controller is None:
            job = await _io(self._journal.read, job_id)
            return None if job is None else await _io(self._history.settle, job)
        most = self._options.controller_max_pending_calls
        self._calls += 1
        try:
            # If too many calls wait, answer at once: the client calls again.
            await controller.wait(seconds if controller.waiting < most else 0.0)
        finally:
            self._calls -= 1
        return JobView(controller.submission, controller.state)

    async def cancel(self, job_id: str) -> JobView | None:
        """Stop a job; return it when it has ended, or after 20 s; None if there is no such job."""
        await self._ready()
        if job_id in self._controllers:
            await self._controllers[job_id].cancel()
        return await self.look(job_id, 0.0)

    async def list_jobs(self, selection: Selection) -> list[JobView]:
        """Return the scope's jobs, newest first."""
        await self._ready()
        live = {job: JobView(c.submission, c.state) for job, c in self._controllers.items()}
        views: list[JobView] = await _io(self._history.listing, live, selection)
        return views

    async def _submit(self, message: SubmitMessage) -> JobView | Busy:
        request = message.request
        alive = self._alive()
        holder = next((c for c in alive if c.submission.request.key == request.key), None)
        if holder is not None:  # before the journal is read: a repeated call usually ends here
            return JobView(holder.submission, holder.state)
        view, number = await _io(self._history.holder, request)
        if view is not None:
            held: JobView = view
            return held
        if len(alive) >= self._options.max_active_jobs_per_scope:
            return Busy(f"{len(alive)} jobs of the scope have not ended")
        job_id = self._journal.id_of(request.key, number)
        uri = message.options.analytics_store.uri
        wanted = Submission(job_id, number, request, self._here, uri)
        self._starting.add(job_id)  # before the claim: else a listing would take the job for lost
        try:
            claimed = await _io(self._journal.claim, wanted)
            if claimed != wanted:  # another cluster was faster
                return JobView(claimed, JobState(JobStatus.RUNNING))
            if request.max_retries:
                await _io(partial(self._restarts.put, job_id, message, journal=self._journal))
            return self._start(claimed, message, attempt=1)
        finally:
            self._starting.discard(job_id)

    def _start(self, submission: Submission, message: SubmitMessage, *, attempt: int) -> JobView:
        launch = launcher(submission, message)
        controller = Controller(submission, journal=self._journal, launch=launch)
        self._controllers[submission.job_id] = controller
        self._spawn(self._live(controller, attempt))
        return JobView(submission, controller.state)

    async def _live(self, controller: Controller, attempt: int) -> None:
        await controller.live(attempt)
        submission = controller.submission
        if submission.request.max_retries:
            await _io(partial(self._restarts.remove, submission.job_id, journal=self._journal))
        self._ended += 1
        if self._ended >= prune_after(self._options):
            self._ended = 0  # before pruning: jobs that end meanwhile must not prune again
            await self._prune_journal()

    def _state_of(self, job_id: str) -> JobState | None:
        """Return the state of a job in memory; None for other jobs. Safe in any thread."""
        if job_id in self._starting:  # first: a job moves from here to the controllers
            return JobState(JobStatus.PENDING)
        controller = self._controllers.get(job_id)
        return controller.state if controller else None

    async def _ready(self) -> None:
        """Wait until the jobs of earlier registries are recovered; retry that if it failed."""
        self._last_call = time.monotonic()
        failed = self._recovery and self._recovery.done() and self._recovery.exception()
        if self._recovery is None or failed:
            self._recovery = asyncio.create_task(self._recover())
        # Shielded: a cancelled call must not cancel the recovery for the others.
        await asyncio.shield(self._recovery)

    async def _begin(self) -> None:
        """Recover jobs once the journal can be read: a bucket may be unavailable for a while."""
        while True:
            try:
                return await self._ready()
            except StorageError as error:
                _log.warning(
                    "the journal cannot be read, trying again in %g s: %s", _RETRY_SECONDS, error
                )
                await asyncio.sleep(_RETRY_SECONDS)

    async def _recover(self) -> None:
        """Retry the jobs of a dead registry of this name; record jobs of dead clusters as lost."""
        ended = await _io(self._journal.jobs)
        for job in await _io(list, self._journal.read_many([j for j in ended if not ended[j]])):
            if job.outcome is None and job.submission.job_id not in self._controllers:
                await self._take_up(job)
        if not self._ticking:
            self._ticking = True
            self._spawn(self._tick())

    async def _take_up(self, job: JournaledJob) -> None:
        """Retry a job whose registry died, if it has retries left; else record it as lost."""
        submission, retries = job.submission, job.submission.request.max_retries
        message = None
        if submission.cluster == self._here and retries:
            get = partial(self._restarts.get, submission.job_id, journal=self._journal)
            message = await _io(get)
        if message is None or job.attempts > retries:
            await _io(self._history.settle, job)
            await _io(partial(self._restarts.remove, submission.job_id, journal=self._journal))
            return
        # Before the start: if the registry dies in between, the attempt must count.
        await _io(self._journal.add_attempt, submission, job.attempts + 1)
        self._start(submission, message, attempt=job.attempts + 1)

    def _spawn(self, work: Any) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _tick(self) -> None:
        """Drop old controllers; end this actor after `controller_retention_s` without work."""
        while True:
            await asyncio.sleep(_TICK_SECONDS)
            self._drop_old_controllers()
            idle = time.monotonic() - self._last_call
            busy = self._alive() or self._calls or self._submitting
            if not busy and idle > max(self._options.controller_retention_s, _TICK_SECONDS):
                await self._prune_journal()
                self._end()

    def _alive(self) -> list[Controller]:
        return [c for c in self._controllers.values() if c.ended is None]

    def _drop_old_controllers(self) -> None:
        now, options = time.monotonic(), self._options
        ended = [c for c in self._controllers.values() if c.ended is not None]
        ended.sort(key=lambda c: c.ended or 0.0, reverse=True)
        for rank, controller in enumerate(ended):
            old = now - (controller.ended or now) > options.controller_retention_s
            if old or rank >= options.max_retained_terminal_controllers:
                del self._controllers[controller.submission.job_id]

    async def _prune_journal(self) -> None:
        try:
            await _io(prune_journal, self._journal, self._options)
        except StorageError as error:  # the next end of a job prunes again
            _log.warning(
                "the journal could not be pruned, the next end of a job prunes it: %s", error
            )

    def _end(self) -> None:
        import ray

        ray.kill(self._me)  # `exit_actor` takes seconds, and calls that arrive meanwhile are lost


async def _io(work: Callable[..., Any], *args: Any) -> Any:
    return await asyncio.to_thread(work, *args)
