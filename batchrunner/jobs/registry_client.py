"""The client of a registry: finds or starts it, and repeats a call if the registry dies."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from batchrunner.errors import BackpressureError, InvalidSpecError, RayUnavailableError
from batchrunner.jobs.connection import (
    RayConnection,
    connection_id,
    is_connected,
    is_loss_of_client,
)
from batchrunner.jobs.history import cluster_is_gone
from batchrunner.jobs.messages import RegistryConfig
from batchrunner.jobs.registry import Registry

_RETRY_SECONDS = 0.1
_MAX_CONCURRENCY = 100_000
"""In effect no limit: waiting calls count, too, and the registry limits these itself."""


class RegistryClient:
    """Calls the present registry actor of one scope. Safe in several threads."""

    def __init__(self, config: RegistryConfig, *, connection: RayConnection) -> None:
        self._config, self._connection = config, connection
        self._options = config.options
        self._pending = threading.BoundedSemaphore(self._options.registry_max_pending_calls)
        self._lock = threading.Lock()
        self._registry: tuple[str | None, Any] | None = None

    def join(self) -> None:
        """Find or start the registry, and check that it has our scope and store. Idempotent.

        Raises:
            InvalidSpecError: It has another scope, or records the scope's jobs in another store.
            RayUnavailableError: It does not start.
        """
        with self._loss_as_unavailable():
            self._connection.open(self._options.ray, asked=False, anew=False)
            self._handle(math.inf)

    @contextmanager
    def call(self, doing: str) -> Iterator[None]:
        """Count the block as one of this process's calls under way, whose number is limited.

        Raises:
            BackpressureError: There are too many; *doing* is the action that the message names.
        """
        if not self._pending.acquire(blocking=False):
            most = self._options.registry_max_pending_calls
            raise backpressure(doing, f"{most} calls of this process are under way")
        try:
            yield
        finally:
            self._pending.release()

    def ask(
        self, method: str, *args: Any, more_seconds: float = 0.0, until: float = math.inf
    ) -> Any:
        """Call the registry. If it dies meanwhile, call its successor: every call is idempotent.

        Raises:
            BackpressureError: Too many calls are pending.
            RayUnavailableError: It did not answer within the timeout, or before *until*.
        """
        timeout = self._options.registry_update_timeout_s + more_seconds
        timeout += max((arg for arg in args if isinstance(arg, float)), default=0.0)
        with self._loss_as_unavailable():
            return self._asked(
                method, args, deadline=min(time.monotonic() + timeout, until), until=until
            )

    @contextmanager
    def _loss_as_unavailable(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            if not is_loss_of_client(error):
                raise
            raise self._unavailable() from error

    def _asked(self, method: str, args: tuple[Any, ...], *, deadline: float, until: float) -> Any:
        import ray
        from ray.exceptions import GetTimeoutError, PendingCallsLimitExceeded, RayTaskError

        while True:
            try:
                self._connection.keep_open(self._options.ray)
                called = getattr(self._handle(until), method).remote(*args)
                return ray.get(called, timeout=max(deadline - time.monotonic(), 0.01))
            except PendingCallsLimitExceeded as error:
                raise backpressure("asking the registry", "too many calls are pending") from error
            except GetTimeoutError as error:
                raise self._unavailable() from error
            except RayTaskError as error:
                raise error.cause from error
            except SystemExit as error:
                # Another thread closed the connection meanwhile, for which Ray raises SystemExit.
                if is_connected():
                    raise
                raise self._unavailable() from error
            except ray.exceptions.RayActorError as error:
                self._drop_handle(died=isinstance(error, ray.exceptions.ActorDiedError))
                if time.monotonic() >= deadline or cluster_is_gone():
                    raise self._unavailable() from error
                time.sleep(_RETRY_SECONDS)

    def _unavailable(self) -> RayUnavailableError:
        """Return the error for a registry that does not answer, with the reason."""
        scope = self._options.idempotency_scope
        why = "it does not answer in time"
        if not is_connected():
            why = "this process gave up its connection to Ray"
        elif cluster_is_gone():
            why = "its cluster is gone"
        return RayUnavailableError(
            f"the registry of the scope {scope!r} cannot be asked: {why}. What was submitted is in "
            "the journal; look at `ray status`, then ask again, or configure_job_backend(..., "
            "force_reinit=True) with the address of a cluster that runs"
        )

    def _handle(self, until: float) -> Any:
        """Return the registry actor in the cluster of this process; start it if there is none."""
        here = connection_id()
        with self._lock:
            if self._registry is None or self._registry[0] != here:
                self._registry = here, self._start(until)
            return self._registry[1]

    def _drop_handle(self, *, died: bool) -> None:
        if died:
            with self._lock:
                self._registry = None

    def _start(self, until: float) -> Any:
        import ray

        options = self._options
        registry: Any = ray.remote(Registry).options(
            name=self._config.actor_name,
            namespace=options.registry_namespace,
            lifetime="detached",
            # Both: if many clients start it at once, Ray makes one actor for all; and if it dies, Ray
            # restarts it, so that its jobs are recovered even if no client is left.
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
        """Return the registry actor, started if there is none, and the URI of its store."""
        import ray
        from ray.exceptions import RayActorError, RayError, RayTaskError

        deadline = min(time.monotonic() + self._options.registry_startup_timeout_s, until)
        while True:
            try:
                handle = registry.remote(self._config)
                left = max(deadline - time.monotonic(), 0.01)
                return handle, ray.get(handle.join.remote(self._config), timeout=left)
            except RayTaskError as error:
                raise error.cause from error
            except RayError as error:
                # The actor was about to end, or its answer was lost: retry, perhaps with another.
                broken = "creation task" in str(error) or not isinstance(error, RayActorError)
                if broken or time.monotonic() >= deadline:
                    raise _does_not_start(error) from error
                time.sleep(_RETRY_SECONDS)


def _does_not_start(error: Exception) -> RayUnavailableError:
    lines = [line for line in str(error).splitlines() if line.strip()] or [""]
    return RayUnavailableError(
        f"the registry of the jobs does not start: {type(error).__name__}: {lines[0]:.300} … "
        f"{lines[-1].strip():.300}. Is batchrunner installed in the cluster's image, and is there "
        "room for the actor?"
    )


def backpressure(doing: str, why: str) -> BackpressureError:
    """Return the error for too much load: *doing* is the user's action, *why* the limit it met."""
    return BackpressureError(
        f"too much at once while {doing}: {why}. Nothing was lost; try again in a moment, with "
        "fewer calls at a time"
    )
