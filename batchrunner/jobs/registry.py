"""The registry actor of a scope: takes orders, owns the jobs' tasks, and remembers how jobs stand.

There is one per scope and cluster, by its name; what it does with a run it does one order after
the other. All that must survive it is in the journal, and is there before anybody is told.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import os
import time
from collections.abc import Callable
from datetime import datetime
from functools import partial
from typing import Any
from weakref import WeakValueDictionary

from batchrunner.errors import StorageError
from batchrunner.jobs.charter import Busy, Charter, Order, View
from batchrunner.jobs.controller import Controller
from batchrunner.jobs.entries import Submission
from batchrunner.jobs.history import History, cluster_here, prune_after, prune_journal
from batchrunner.jobs.job import JobState, Selection
from batchrunner.jobs.journal import Journal
from batchrunner.jobs.launching import Vault, launcher
from batchrunner.jobs.outcome import JobStatus

_TICK_SECONDS = 1.0
_AGAIN_SECONDS = 5.0
_PRUNE_AT_ONCE = 1000
_log = logging.getLogger(__name__)


class Registry:
    """Runs as an actor. Every call may be repeated."""

    def __init__(self, charter: Charter) -> None:
        import ray

        self._name = f"{charter.options.registry_namespace}/{charter.name}"
        self._here = cluster_here(self._name)
        self._vault = Vault(self._name)
        self._controllers: dict[str, Controller] = {}
        self._orders: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._starting: set[str] = set()
        self._recovery: asyncio.Task[None] | None = None
        self._ticking = False
        self._submitting = self._calls = 0
        self._ended = _PRUNE_AT_ONCE  # since the journal was pruned last
        self._last_call = time.monotonic()
        self._options = charter.options
        self._journal = _journal_of(charter)
        self._history = History(self._journal, here=self._here, alive=self._state_of)
        self._me = ray.get_runtime_context().current_actor
        # Whoever started this actor may be dead: jobs must be taken up again all the same. (Ray
        # runs this in the actor's event loop; a call to itself would now and then be lost.)
        self._spawn(self._begin())

    async def join(self, charter: Charter) -> str:
        """Take over a client's bounds and credentials; return the URI of the scope's store.

        Raises:
            InvalidSpecError: It is a client of another scope. Its jobs would mix with those of this one.
        """
        charter.check_scope(self._options.idempotency_scope)
        uri = self._options.analytics_store.uri
        if charter.options.analytics_store.uri == uri:
            self._options = charter.options
            self._journal = self._history.journal = _journal_of(charter)
        await self._ready()
        return uri

    async def pid(self) -> int:
        """Return the id of this process, for whoever looks into a cluster."""
        return os.getpid()

    async def submit(self, order: Order) -> View | Busy:
        """Run an order, unless the same run is a job already; return the job."""
        if self._submitting >= self._options.registry_max_pending_calls:
            return Busy(f"{self._submitting} submissions are under way")
        self._submitting += 1
        try:
            await self._ready()
            # The claim alone makes one job of many orders; but one after the other, they know it.
            async with self._orders.setdefault(order.key, asyncio.Lock()):
                return await self._submit(order)
        finally:
            self._submitting -= 1

    async def look(self, job_id: str, seconds: float) -> View | None:
        """Return a job, after its end or up to *seconds*; None when there is no such job."""
        await self._ready()
        controller = self._controllers.get(job_id)
        if controller is None:
            record = await _io(self._journal.read, job_id)
            return None if record is None else await _io(self._history.settle, record)
        most = self._options.controller_max_pending_calls
        self._calls += 1
        try:
            await controller.wait(seconds if controller.waiting < most else 0.0)
        finally:
            self._calls -= 1
        return View(controller.submission, controller.state)

    async def cancel(self, job_id: str) -> View | None:
        """Stop a job; return it when it has ended."""
        await self._ready()
        if job_id in self._controllers:
            await self._controllers[job_id].cancel()
        return await self.look(job_id, 0.0)

    async def list_jobs(self, selection: Selection) -> list[View]:
        """Return the scope's jobs, newest first."""
        await self._ready()
        found = await _io(self._journal.jobs)
        ours = {job: c for job, c in self._controllers.items() if job in found or c.ended is None}
        views = [View(c.submission, c.state) for c in ours.values()]
        views += await _io(self._history.views, [job for job in found if job not in ours])
        views.sort(key=lambda view: (view.submission.created_at, view.submission.job_id))
        listed = [_Listed(view, _created(view)) for view in reversed(views)]
        return [one.view for one in selection.of(listed, status=lambda one: one.view.state.status)]

    async def _submit(self, order: Order) -> View | Busy:
        alive = [c for c in self._controllers.values() if c.ended is None]
        held = next((c for c in alive if c.submission.key == order.key), None)
        if held is not None:
            return View(held.submission, held.state)
        past = await _io(self._journal.latest, order.key)
        if past is not None:
            view: View = await _io(self._history.settle, past)
            if past.submission.nonce == order.nonce or _holds(view.state.status):
                return view
        if len(alive) >= self._options.max_active_jobs_per_scope:
            return Busy(f"{len(alive)} jobs of the scope have not ended")
        wanted = self._submission(order, number=past.submission.number + 1 if past else 1)
        self._starting.add(wanted.job_id)
        try:
            claimed = await _io(self._journal.claim, wanted)
            if claimed != wanted:  # another cluster was faster
                return View(claimed, JobState(JobStatus.RUNNING))
            if claimed.max_retries:
                await _io(partial(self._vault.keep, claimed.job_id, order, journal=self._journal))
            return self._start(claimed, order, attempt=1)
        finally:
            self._starting.discard(wanted.job_id)

    def _submission(self, order: Order, *, number: int) -> Submission:
        return Submission(
            job_id=self._journal.id_of(order.key, number),
            key=order.key,
            number=number,
            name=order.name,
            capability_id=order.capability_id,
            created_at=order.created_at,
            created_by=order.created_by,
            cluster=self._here,
            store_uri=order.options.analytics_store.uri,
            max_retries=order.max_retries,
            resources=order.resources,
            versions=dict(order.versions),
            nonce=order.nonce,
        )

    def _start(self, submission: Submission, order: Order, *, attempt: int) -> View:
        launch = launcher(submission, order)
        controller = Controller(submission, journal=self._journal, launch=launch)
        self._controllers[submission.job_id] = controller
        self._spawn(self._live(controller, attempt))
        return View(submission, controller.state)

    async def _live(self, controller: Controller, attempt: int) -> None:
        await controller.live(attempt)
        submission = controller.submission
        if submission.max_retries:
            await _io(partial(self._vault.drop, submission.job_id, journal=self._journal))
        self._ended += 1
        if self._ended >= prune_after(self._options):
            self._ended = 0  # before it is done: those that end meanwhile do not do it, too
            await self._prune_journal()

    def _state_of(self, job_id: str) -> JobState | None:
        """Return the state of a job of ours that has not ended, or not long ago. In any thread."""
        if job_id in self._starting:  # first: a job moves from there to the controllers
            return JobState(JobStatus.PENDING)
        controller = self._controllers.get(job_id)
        return controller.state if controller else None

    async def _ready(self) -> None:
        self._last_call = time.monotonic()
        failed = self._recovery and self._recovery.done() and self._recovery.exception()
        if self._recovery is None or failed:
            self._recovery = asyncio.create_task(self._recover())
        await asyncio.shield(self._recovery)

    async def _begin(self) -> None:
        while True:
            try:
                return await self._ready()
            except StorageError as error:
                _log.warning("the journal cannot be read: %s", error)
                await asyncio.sleep(_AGAIN_SECONDS)

    async def _recover(self) -> None:
        """Take up what another registry of this name, or another cluster, left behind."""
        ended = await _io(self._journal.jobs)
        for record in await _io(list, self._journal.read_many([j for j in ended if not ended[j]])):
            submission = record.submission
            if record.outcome or submission.job_id in self._controllers:
                continue
            order = None
            if submission.cluster == self._here and submission.max_retries:
                take_out = partial(self._vault.take_out, submission.job_id, journal=self._journal)
                order = await _io(take_out)
            if order is None or record.attempts > submission.max_retries:
                await _io(self._history.settle, record)
                await _io(partial(self._vault.drop, submission.job_id, journal=self._journal))
                continue
            await _io(self._journal.note_attempt, submission, record.attempts + 1)
            self._start(submission, order, attempt=record.attempts + 1)
        if not self._ticking:
            self._ticking = True
            self._spawn(self._tick())

    def _spawn(self, work: Any) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _tick(self) -> None:
        """Forget what is old, and leave when there is nothing to do."""
        while True:
            await asyncio.sleep(_TICK_SECONDS)
            self._forget()
            idle = time.monotonic() - self._last_call
            alive = [c for c in self._controllers.values() if c.ended is None]
            busy = alive or self._calls or self._submitting
            if not busy and idle > max(self._options.controller_retention_s, _TICK_SECONDS):
                await self._prune_journal()
                self._leave()

    def _forget(self) -> None:
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
        except StorageError as error:  # next time
            _log.warning("the journal could not be pruned: %s", error)

    def _leave(self) -> None:
        import ray

        ray.kill(self._me)  # `exit_actor` takes seconds, and calls that arrive meanwhile are lost


@dataclasses.dataclass(frozen=True, slots=True)
class _Listed:
    view: View
    created_at: datetime


def _created(view: View) -> datetime:
    return datetime.fromisoformat(view.submission.created_at)


def _holds(status: JobStatus) -> bool:
    return status not in (JobStatus.FAILED, JobStatus.CANCELLED)


def _journal_of(charter: Charter) -> Journal:
    options = charter.options
    return Journal.of(options.analytics_store, scope=options.idempotency_scope)


async def _io(work: Callable[..., Any], *args: Any) -> Any:
    return await asyncio.to_thread(work, *args)
