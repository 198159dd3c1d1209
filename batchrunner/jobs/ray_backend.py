"""`"ray"`, the client's side: orders, questions, and what to do when the registry does not answer."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any

from batchrunner.errors import (
    BackpressureError,
    InvalidSpecError,
    RayUnavailableError,
    StorageError,
    UnknownJobError,
)
from batchrunner.jobs.charter import Busy, Charter, Order, View
from batchrunner.jobs.clusters import cluster_is_gone
from batchrunner.jobs.connection import Connection, connection_id, runtime_env_here
from batchrunner.jobs.identity import run_key
from batchrunner.jobs.job import Job, Jobs, JobState
from batchrunner.jobs.journal import Journal, scope_folder
from batchrunner.jobs.options import RayOptions
from batchrunner.jobs.registry import Registry
from batchrunner.jobs.request import Request
from batchrunner.jobs.resources import Resources
from batchrunner.jobs.selection import Selection

_AGAIN_SECONDS = 0.1
_LOOK_SECONDS = 5.0
_UNHEARD_SECONDS = 0.5
_CANCEL_SECONDS = 25.0
_MAX_CONCURRENCY = 100_000
_PATIENCE_SECONDS = 1.0
_log = logging.getLogger(__name__)


class RayBackend:
    """Has jobs run by the registry of a scope."""

    def __init__(self, options: RayOptions, *, connection: Connection) -> None:
        self._options, self._connection = options, connection
        name = options.registry_actor_name or f"jobs-{scope_folder(options.idempotency_scope)}"
        self._charter = Charter(options, name)
        self._pending = threading.BoundedSemaphore(options.registry_max_pending_calls)
        self._lock = threading.Lock()
        self._registry: tuple[str | None, Any] | None = None
        self._submitted: dict[str, Job[Any]] = {}

    def join(self) -> None:
        """Have a registry, and see that it is one for our store.

        Raises:
            InvalidSpecError: The scope's jobs are recorded in another store.
            RayUnavailableError: The registry does not start.
        """
        self._handle(math.inf)

    def submit(self, request: Request) -> Job[Any]:
        """Order the run and return its job, which may be one that somebody else ordered."""
        options, capability = self._options, request.capability
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
            runtime_env=self._runtime_env(),
            import_paths=request.import_paths,
            versions=request.versions,
            payload=request.payload,
        )
        with self._call("submitting a job"):
            view = self._ask("submit", order)
        if isinstance(view, Busy):
            raise _backpressure("submitting a job", view.why)
        job = self._job(view)
        if not view.state.status.is_terminal:
            self._submitted[job.job_id] = job
        return job

    def get(self, job_id: str) -> Job[Any]:
        """Return the handle of a job of the scope."""
        with self._call("looking for a job"):
            view = self._ask("look", job_id, 0.0)
        if view is None:
            scope = self._options.idempotency_scope
            raise UnknownJobError(f"there is no job {job_id!r} in the scope {scope!r}")
        return self._job(view)

    def select(self, selection: Selection) -> Jobs:
        """Return the scope's jobs, newest first."""
        with self._call("listing jobs"):
            return [self._job(view) for view in self._ask("list_jobs", selection)]

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
            state = self._known(self._ask("look", job_id, asked, until=until), job_id)
            if state.status.is_terminal:
                self._submitted.pop(job_id, None)
            if state.status.is_terminal or time.monotonic() >= deadline:
                return state
            if time.monotonic() - began < asked / 2:  # answered at once: too many wait for it
                time.sleep(min(_UNHEARD_SECONDS, max(0.0, deadline - time.monotonic())))

    def cancel(self, job_id: str) -> JobState:
        with self._call("cancelling a job"):
            return self._known(self._ask("cancel", job_id, more_seconds=_CANCEL_SECONDS), job_id)

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

    def _runtime_env(self) -> dict[str, Any]:
        return runtime_env_here()

    @contextmanager
    def _call(self, doing: str) -> Iterator[None]:
        if not self._pending.acquire(blocking=False):
            most = self._options.registry_max_pending_calls
            raise _backpressure(doing, f"{most} calls of this process are under way")
        try:
            yield
        finally:
            self._pending.release()

    def _ask(
        self, method: str, *args: Any, more_seconds: float = 0.0, until: float = math.inf
    ) -> Any:
        """Call the registry. If it dies over that, call the next one: every call may be repeated."""
        import ray
        from ray.exceptions import GetTimeoutError, PendingCallsLimitExceeded, RayTaskError

        timeout = self._options.registry_update_timeout_s + more_seconds
        timeout += max((arg for arg in args if isinstance(arg, float)), default=0.0)
        deadline = min(time.monotonic() + timeout, until)
        while True:
            try:
                called = getattr(self._handle(until), method).remote(*args)
                return ray.get(called, timeout=max(deadline - time.monotonic(), 0.01))
            except PendingCallsLimitExceeded as error:
                raise _backpressure("asking the registry", "too many calls are pending") from error
            except GetTimeoutError as error:
                raise self._silence() from error
            except RayTaskError as error:
                raise error.cause from error
            except ray.exceptions.RayActorError as error:
                self._forget_registry(died=isinstance(error, ray.exceptions.ActorDiedError))
                if time.monotonic() >= deadline or cluster_is_gone():
                    raise self._silence() from error
                time.sleep(_AGAIN_SECONDS)

    def _silence(self) -> RayUnavailableError:
        """Return what it means that the registry does not answer: it is no matter of load."""
        scope = self._options.idempotency_scope
        why = "its cluster is gone" if cluster_is_gone() else "it does not answer in time"
        return RayUnavailableError(
            f"the registry of the scope {scope!r} cannot be asked: {why}. What was submitted is in "
            "the journal; look at `ray status`, then ask again, or configure_job_backend(..., "
            "force_reinit=True) with the address of a cluster that runs"
        )

    def _handle(self, until: float) -> Any:
        """Return the registry of this scope in the cluster of this process; start it if need be."""
        self._connection.open(self._options.ray, asked=False, anew=False)
        here = connection_id()
        with self._lock:
            if self._registry is None or self._registry[0] != here:
                self._registry = here, self._start(until)
            return self._registry[1]

    def _forget_registry(self, *, died: bool) -> None:
        if died:
            with self._lock:
                self._registry = None

    def _start(self, until: float) -> Any:
        import ray

        options = self._options
        registry: Any = ray.remote(Registry).options(
            name=self._charter.name,
            namespace=options.registry_namespace,
            lifetime="detached",
            get_if_exists=True,
            max_restarts=-1,
            max_concurrency=_MAX_CONCURRENCY,
            num_cpus=options.registry_num_cpus,
            memory=options.registry_memory,
            resources=options.registry_resources
            if options.registry_resources is not None
            else {"node:__internal_head__": 0.001},
        )
        handle, uri = self._joined(registry, until)
        if uri != options.analytics_store.uri:
            raise InvalidSpecError(
                f"the jobs of scope {options.idempotency_scope!r} are recorded in {uri}, not in "
                f"{options.analytics_store.uri}: use that store, or another idempotency_scope"
            )
        return handle

    def _joined(self, registry: Any, until: float) -> tuple[Any, str]:
        """Return the registry actor, started if need be, and the URI of its store."""
        import ray
        from ray.exceptions import RayActorError, RayError, RayTaskError

        deadline = min(time.monotonic() + self._options.registry_startup_timeout_s, until)
        while True:
            try:
                handle = registry.remote(self._charter)
                left = max(deadline - time.monotonic(), 0.01)
                return handle, ray.get(handle.join.remote(self._charter), timeout=left)
            except RayTaskError as error:
                raise error.cause from error
            except RayError as error:
                # One that was about to leave, or whose answer was lost, is asked again.
                broken = "creation task" in str(error) or not isinstance(error, RayActorError)
                if broken or time.monotonic() >= deadline:
                    raise _does_not_start(error) from error
                time.sleep(_AGAIN_SECONDS)


def _does_not_start(error: Exception) -> RayUnavailableError:
    lines = [line for line in str(error).splitlines() if line.strip()] or [""]
    return RayUnavailableError(
        f"the registry of the jobs does not start: {type(error).__name__}: {lines[0]:.300} … "
        f"{lines[-1].strip():.300}. Is batchrunner installed in the cluster's image, and is there "
        "room for the actor?"
    )


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


def _backpressure(doing: str, why: str) -> BackpressureError:
    return BackpressureError(
        f"too much at once while {doing}: {why}. Nothing was lost; try again in a moment, with "
        "fewer calls at a time"
    )
