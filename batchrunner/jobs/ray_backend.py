"""The client's side of the backend "ray": calls the registry, and waits on even if it dies."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from batchrunner.errors import (
    BackpressureError,
    RayUnavailableError,
    StorageError,
    UnknownJobError,
)
from batchrunner.jobs.backend import JobBackend
from batchrunner.jobs.connection import CONNECTION, OnRay, runtime_env_here
from batchrunner.jobs.job import Job, Jobs, JobState, Selection
from batchrunner.jobs.journal import Journal, scope_folder
from batchrunner.jobs.messages import Busy, JobView, RegistryConfig, SubmitMessage
from batchrunner.jobs.options import RayOptions
from batchrunner.jobs.registry_client import RegistryClient, backpressure
from batchrunner.jobs.request import JobRequest, PickledCall, Resources

_LOOK_SECONDS = 5.0
"""How long one call waits. If the registry is replaced, the next call finds the new one."""
_POLL_SECONDS = 0.5
_CANCEL_SECONDS = 25.0
_PATIENCE_SECONDS = 1.0
"""How long after a deadline the registry may still answer."""

_log = logging.getLogger(__name__)


class RayBackend(OnRay):
    """Runs jobs through the registry actor of a scope."""

    options_type = RayOptions
    deduplicates = True
    ends_with_connection = False

    def __init__(self, options: RayOptions) -> None:
        super().__init__(options)
        self._options = options
        name = options.registry_actor_name or f"jobs-{scope_folder(options.idempotency_scope)}"
        self._registry = RegistryClient(RegistryConfig(options, name), connection=CONNECTION)
        self._submitted: dict[str, Job[Any]] = {}

    def open(self, before: Sequence[JobBackend]) -> None:
        """Connect to Ray, and find or start the registry of the scope.

        Raises:
            InvalidSpecError: The registry is another scope's, or the scope's jobs are recorded in
                another store.
            RunRefusedError: `force_reinit` would end jobs of the backends *before*.
            RayUnavailableError: Ray or the registry does not start, or cannot be reached.
        """
        super().open(before)
        self._registry.join()

    def submit(self, request: JobRequest, call: PickledCall) -> Job[Any]:
        """Submit the job to the registry; return the handle of the job that holds the run."""
        options = self._options
        # First: if the Ray of this process has ended, the calls below must reach the new one.
        self._registry.join()
        if options.max_retries is not None:
            request = replace(request, max_retries=options.max_retries)
        resources = _with_controller(request.resources, options)
        request = replace(request, resources=resources)
        message = SubmitMessage(request, call, options, runtime_env_here())
        with self._registry.call("submitting a job"):
            view: JobView | Busy = self._registry.ask("submit", message)
        if isinstance(view, Busy):
            raise backpressure("submitting a job", view.why)
        job = view.handle(self)
        if not view.state.status.is_terminal:
            self._submitted[job.job_id] = job
        return job

    def get(self, job_id: str) -> Job[Any]:
        """Return the handle of a job of the scope."""
        with self._registry.call("looking for a job"):
            view: JobView | None = self._registry.ask("look", job_id, 0.0)
        if view is None:
            scope = self._options.idempotency_scope
            raise UnknownJobError(
                f"there is no job {job_id!r} in the scope {scope!r}; "
                "`batchrunner jobs list` (in Python, list_jobs()) lists its jobs"
            )
        return view.handle(self)

    def select(self, selection: Selection) -> Jobs:
        """Return the scope's jobs, newest first."""
        with self._registry.call("listing jobs"):
            return [view.handle(self) for view in self._registry.ask("list_jobs", selection)]

    @property
    def has_jobs(self) -> bool:
        """Whether this process submitted jobs of which it has not seen the end."""
        return bool(self._submitted)

    def unfinished(self) -> list[Job[Any]]:
        """Return the jobs that this process submitted and that have not ended.

        If the registry does not answer, all jobs not yet checked count as such.
        """
        return self._unfinished_at(
            time.monotonic(), patience=self._options.registry_update_timeout_s
        )

    def wait_all(self, deadline: float | None) -> list[Job[Any]]:
        """Wait for the jobs that this process submitted; return those that have not ended.

        Args:
            deadline: When to return at the latest; up to a second later if the registry is silent.
        """
        at = math.inf if deadline is None else deadline
        return self._unfinished_at(at, patience=_PATIENCE_SECONDS)

    def look(self, job_id: str, *, seconds: float) -> JobState:
        return self._look(job_id, seconds, until=math.inf)

    def _unfinished_at(self, deadline: float, *, patience: float) -> list[Job[Any]]:
        unasked = list(self._submitted.values())
        unfinished = []
        while unasked:
            try:
                if not self._has_ended(unasked[0], deadline, until=deadline + patience):
                    unfinished.append(unasked[0])
            except (BackpressureError, RayUnavailableError, StorageError) as error:
                _log.warning("%s", error)
                break  # the registry would not answer for the next job either
            unasked.pop(0)
        return unfinished + unasked

    def _has_ended(self, job: Job[Any], deadline: float, *, until: float) -> bool:
        try:
            while True:
                seconds = max(0.0, min(deadline - time.monotonic(), _LOOK_SECONDS))
                state = job.update(self._look(job.job_id, seconds, until=until))
                if state.status.is_terminal or time.monotonic() >= deadline:
                    return state.status.is_terminal
        except UnknownJobError:  # only jobs that have ended are removed from the journal
            return True

    def _look(self, job_id: str, seconds: float, *, until: float) -> JobState:
        deadline = time.monotonic() + seconds
        while True:
            rest = max(0.0, deadline - time.monotonic())
            began, asked = time.monotonic(), min(rest, _LOOK_SECONDS)
            state = _state_of(self._registry.ask("look", job_id, asked, until=until), job_id)
            if state.status.is_terminal:
                self._submitted.pop(job_id, None)
            if state.status.is_terminal or time.monotonic() >= deadline:
                return state
            if time.monotonic() - began < asked / 2:  # answered early: too many calls wait
                time.sleep(min(_POLL_SECONDS, max(0.0, deadline - time.monotonic())))

    def cancel(self, job_id: str) -> JobState:
        with self._registry.call("cancelling a job"):
            view = self._registry.ask("cancel", job_id, more_seconds=_CANCEL_SECONDS)
        return _state_of(view, job_id)

    def log(self, job_id: str) -> str:
        options = self._options
        journal = Journal.of(options.analytics_store, scope=options.idempotency_scope)
        return journal.read_log(job_id).decode(errors="replace")


def _state_of(view: JobView | None, job_id: str) -> JobState:
    if view is None:
        raise UnknownJobError(
            f"job {job_id!r} was removed from the journal, as old jobs are; "
            "a recorded run stays in the analytics store"
        )
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
