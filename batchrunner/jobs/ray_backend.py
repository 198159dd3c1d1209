"""`"ray"`, the client's side: orders, questions, and what to do when the registry does not answer."""

from __future__ import annotations

import logging
import math
import time
from datetime import datetime
from typing import Any

from batchrunner.errors import (
    BackpressureError,
    RayUnavailableError,
    StorageError,
    UnknownJobError,
)
from batchrunner.jobs.charter import Busy, Charter, Order, View
from batchrunner.jobs.connection import Connection, runtime_env_here
from batchrunner.jobs.identity import run_key
from batchrunner.jobs.job import Job, Jobs, JobState, Selection
from batchrunner.jobs.journal import Journal, scope_folder
from batchrunner.jobs.options import RayOptions
from batchrunner.jobs.registry_client import RegistryClient, backpressure
from batchrunner.jobs.request import Request, Resources

_LOOK_SECONDS = 5.0
_UNHEARD_SECONDS = 0.5
_CANCEL_SECONDS = 25.0
_PATIENCE_SECONDS = 1.0
_log = logging.getLogger(__name__)


class RayBackend:
    """Has jobs run by the registry of a scope."""

    def __init__(self, options: RayOptions, *, connection: Connection) -> None:
        self._options = options
        name = options.registry_actor_name or f"jobs-{scope_folder(options.idempotency_scope)}"
        self._registry = RegistryClient(Charter(options, name), connection=connection)
        self._submitted: dict[str, Job[Any]] = {}

    def join(self) -> None:
        """Have a registry, and see that it is one for our scope and store.

        Raises:
            InvalidSpecError: It is another scope's, or the scope's jobs are recorded in another store.
            RayUnavailableError: It does not start.
        """
        self._registry.join()

    def submit(self, request: Request) -> Job[Any]:
        """Order the run and return its job, which may be one that somebody else ordered."""
        options, capability = self._options, request.capability
        self._registry.join()  # a Ray of this process that has ended may be another one from here on
        retries = request.max_retries if options.max_retries is None else options.max_retries
        order = Order(
            key=run_key(capability, request.inputs, edition=request.edition),
            name=request.name,
            capability_id=str(capability.id),
            created_at=request.created_at,
            created_by=request.created_by,
            nonce=request.nonce,
            resources=_with_controller(request.resources, options),
            max_retries=retries,
            options=options,
            runtime_env=runtime_env_here(),
            import_paths=request.import_paths,
            versions=request.versions,
            payload=request.payload,
        )
        with self._registry.call("submitting a job"):
            view = self._registry.ask("submit", order)
        if isinstance(view, Busy):
            raise backpressure("submitting a job", view.why)
        job = self._job(view)
        if not view.state.status.is_terminal:
            self._submitted[job.job_id] = job
        return job

    def get(self, job_id: str) -> Job[Any]:
        """Return the handle of a job of the scope."""
        with self._registry.call("looking for a job"):
            view = self._registry.ask("look", job_id, 0.0)
        if view is None:
            scope = self._options.idempotency_scope
            raise UnknownJobError(f"there is no job {job_id!r} in the scope {scope!r}")
        return self._job(view)

    def select(self, selection: Selection) -> Jobs:
        """Return the scope's jobs, newest first."""
        with self._registry.call("listing jobs"):
            return [self._job(view) for view in self._registry.ask("list_jobs", selection)]

    @property
    def has_jobs(self) -> bool:
        """Whether there are jobs of this process to look after."""
        return bool(self._submitted)

    def unfinished(self) -> list[Job[Any]]:
        """Return the jobs that this process submitted and that have not ended, as far as one hears."""
        return self._left_at(time.monotonic(), patience=self._options.registry_update_timeout_s)

    def left_at(self, deadline: float | None) -> list[Job[Any]]:
        """Wait for the jobs that this process submitted; return those that have not ended.

        Args:
            deadline: When to return, within a second, even if the registry does not answer.
        """
        return self._left_at(math.inf if deadline is None else deadline, patience=_PATIENCE_SECONDS)

    def look(self, job_id: str, *, seconds: float) -> JobState:
        return self._look(job_id, seconds, until=math.inf)

    def _left_at(self, deadline: float, *, patience: float) -> list[Job[Any]]:
        waiting = list(self._submitted.values())
        left = []
        while waiting:
            try:
                if not self._has_ended(waiting[0], deadline, until=deadline + patience):
                    left.append(waiting[0])
            except (BackpressureError, RayUnavailableError, StorageError) as error:
                _log.warning("%s", error)
                break  # for the next one it would not answer either
            waiting.pop(0)
        return left + waiting

    def _has_ended(self, job: Job[Any], deadline: float, *, until: float) -> bool:
        try:
            while True:
                seconds = max(0.0, min(deadline - time.monotonic(), _LOOK_SECONDS))
                state = job._keep(self._look(job.job_id, seconds, until=until))  # noqa: SLF001 - the handle's other half
                if state.status.is_terminal or time.monotonic() >= deadline:
                    return state.status.is_terminal
        except UnknownJobError:  # only jobs that have ended are removed from the journal
            return True

    def _look(self, job_id: str, seconds: float, *, until: float) -> JobState:
        deadline = time.monotonic() + seconds
        while True:
            left = max(0.0, deadline - time.monotonic())
            began, asked = time.monotonic(), min(left, _LOOK_SECONDS)
            state = self._known(self._registry.ask("look", job_id, asked, until=until), job_id)
            if state.status.is_terminal:
                self._submitted.pop(job_id, None)
            if state.status.is_terminal or time.monotonic() >= deadline:
                return state
            if time.monotonic() - began < asked / 2:  # answered at once: too many wait for it
                time.sleep(min(_UNHEARD_SECONDS, max(0.0, deadline - time.monotonic())))

    def cancel(self, job_id: str) -> JobState:
        with self._registry.call("cancelling a job"):
            return self._known(
                self._registry.ask("cancel", job_id, more_seconds=_CANCEL_SECONDS), job_id
            )

    def log(self, job_id: str) -> str:
        options = self._options
        journal = Journal.of(options.analytics_store, scope=options.idempotency_scope)
        return journal.read_log(job_id).decode(errors="replace")

    def _job(self, view: View) -> Job[Any]:
        submission = view.submission
        job: Job[Any] = Job(
            submission.job_id,
            job_name=submission.name,
            created_at=datetime.fromisoformat(submission.created_at),
            tracker=self,
        )
        job._keep(view.state)  # noqa: SLF001 - the handle's other half
        return job

    def _known(self, view: View | None, job_id: str) -> JobState:
        if view is None:
            raise UnknownJobError(f"job {job_id!r} was removed from the journal")
        return view.state


def _with_controller(resources: Resources, options: RayOptions) -> Resources:
    more = options.controller_resources or {}
    custom = dict(resources["resources"])
    for name, amount in more.items():
        custom[name] = custom.get(name, 0.0) + amount
    return {
        **resources,
        "num_cpus": resources["num_cpus"] + options.controller_num_cpus,
        "memory": resources["memory"] or options.controller_memory,
        "resources": custom,
    }
