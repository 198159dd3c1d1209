"""This process's connection to Ray, shared by all its job backends on Ray."""

from __future__ import annotations

import logging
import socket
import sys
import threading
from collections.abc import Sequence
from typing import Any, ClassVar

from batchrunner.errors import RayUnavailableError, RunRefusedError
from batchrunner.execute.ray_address import LOCAL, resolve
from batchrunner.execute.ray_connection import connect
from batchrunner.jobs.backend import JobBackend
from batchrunner.jobs.options import RaySimpleOptions
from batchrunner.spec.execution import RaySpec

_CONNECT_SECONDS = 1.0
_log = logging.getLogger(__name__)


class RayConnection:
    """Opens and closes the connection, and records who opened it. Safe in several threads."""

    def __init__(self) -> None:
        self._made: RaySpec | None = None
        self._id: str | None = None
        self._lock = threading.Lock()

    def is_ours(self) -> bool:
        """Whether the connection was made by `open`, and not by the user's own `ray.init`."""
        return self._made is not None and connection_id() == self._id

    def is_local(self) -> bool:
        """Whether `open` started the Ray in use, which therefore ends with this process."""
        return self.is_ours() and self._made is not None and self._made.address == "local"

    def open(self, spec: RaySpec, *, asked: bool, anew: bool) -> None:
        """Connect, unless this process is connected.

        Args:
            spec: The Ray to connect to.
            asked: Whether the user named an address or an environment: then warn if they are ignored,
                because this process is connected to another Ray.
            anew: First close the present connection.

        Raises:
            RayUnavailableError: Ray does not start, or cannot be reached.
        """
        with self._lock:
            self._open(spec, asked=asked, anew=anew)

    def keep_open(self, spec: RaySpec) -> None:
        """Reconnect to the same cluster if the connection was lost.

        Raises:
            RayUnavailableError: The cluster cannot be reached, or this process had started it: then its
                jobs ended with the connection.
        """
        with self._lock:
            if connection_id() is None and resolve(spec.address) == LOCAL:
                raise RayUnavailableError(
                    "the Ray of this process ended with its connection, and the jobs in it, too. What "
                    "was submitted is in the journal: submit it again, or configure_job_backend(...) "
                    "with the address of a cluster that runs"
                )
            self._open(spec, asked=False, anew=False)

    def _open(self, spec: RaySpec, *, asked: bool, anew: bool) -> None:
        import ray

        if anew or is_lost_client():  # Ray refuses to connect until the lost connection is closed
            ray.shutdown()
        if not is_connected():
            self._made = None
            connect(spec)
            self._made, self._id = spec, connection_id()
        elif asked and spec != self._made:
            _log.warning(
                "this process is connected to Ray already; the new address and runtime_env do not "
                "count. Say force_reinit=True to connect anew"
            )

    def close(self) -> None:
        """Close the connection, if `open` made it; a Ray that `open` started ends. Idempotent."""
        import ray

        # Leave a connection of the user's own `ray.init` open, unless it is lost.
        if self.is_ours() or is_lost_client():
            ray.shutdown()
        self._made = None


CONNECTION = RayConnection()
"""The one connection of this process: Ray allows no second one."""


class OnRay:
    """The methods of a job backend on Ray that open and close the connection.

    Attributes:
        ends_with_connection: Whether the backend's jobs end when this process disconnects, even if
            the cluster goes on.
    """

    ends_with_connection: ClassVar[bool]

    def __init__(self, options: RaySimpleOptions) -> None:
        self._ray_options = options

    def open(self, before: Sequence[JobBackend]) -> None:
        """Connect to Ray.

        Raises:
            RunRefusedError: `force_reinit` would end running jobs of *before*, the backends configured
                earlier in this process.
            RayUnavailableError: Ray does not start, or cannot be reached.
        """
        options = self._ray_options
        if options.force_reinit:
            _refuse_to_end_jobs(before)
        asked = options.address is not None or options.runtime_env is not None
        CONNECTION.open(options.ray, asked=asked, anew=options.force_reinit)

    def close(self) -> None:
        """Disconnect from Ray, if `open` connected; a Ray that it started ends. Idempotent."""
        CONNECTION.close()


def _refuse_to_end_jobs(backends: Sequence[JobBackend]) -> None:
    # Jobs of "ray" outlive the connection to a cluster that was joined: no need to check them.
    is_local = CONNECTION.is_local()
    running = [
        job
        for backend in backends
        if isinstance(backend, OnRay) and (backend.ends_with_connection or is_local)
        for job in backend.unfinished()
    ]
    if running:
        raise RunRefusedError(
            f"force_reinit would end running jobs: {', '.join(map(repr, running))}. Wait for them, "
            "cancel them, or call shutdown_job_backend()"
        )


def is_connected() -> bool:
    """Whether this process is connected to Ray. Does not load Ray to find out."""
    if "ray" not in sys.modules:
        return False
    import ray

    return bool(ray.is_initialized())


def connection_id() -> str | None:
    """Return a unique name of this process's present connection; None without a connection.

    Every Ray counts its job ids from the start, so the name contains Ray's session. For `ray://`, it is
    the client's id instead: the cluster that would return the session may be gone.
    """
    if not is_connected() or is_lost_client():
        return None
    if is_ray_client():
        return f"ray://{_client()._client_id}"  # noqa: SLF001 - Ray has no public name for it
    import ray

    context = ray.get_runtime_context()
    return f"{context.get_session_name()}/{context.get_job_id()}"


def is_ray_client() -> bool:
    """Whether the connection is a `ray://` one."""
    from ray.util.client import ray as client

    return bool(client.is_connected())  # type: ignore[no-untyped-call]  # Ray is half typed


def is_lost_client() -> bool:
    """Whether this process has a `ray://` connection whose server is gone.

    Ray detects that half a minute late, and raises a bare ValueError until then.
    """
    worker = _client() if "ray" in sys.modules else None
    if worker is None:
        return False
    return not worker.is_connected() or _is_refused(worker._conn_str)  # noqa: SLF001 - as above


def is_loss_of_client(error: Exception) -> bool:
    """Whether Ray raised *error* because the server of a `ray://` connection is gone."""
    of_grpc = type(error).__module__.partition(".")[0] == "grpc"
    return of_grpc or isinstance(error, ConnectionError) or "closed channel" in str(error)


def _client() -> Any:
    """Return Ray's client object of the `ray://` connection; None without one."""
    from ray.util.client import ray as client

    return client.get_context().client_worker  # type: ignore[no-untyped-call]  # Ray is half typed


def _is_refused(address: str) -> bool:
    """Whether *address* refuses connections; False if it is only slow to answer."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_CONNECT_SECONDS).close()
    except ConnectionRefusedError:
        return True
    except (OSError, ValueError):
        return False
    return False


def runtime_env_here() -> dict[str, Any]:
    """Return this process's runtime environment for workers, with URIs of the uploaded packages."""
    import ray

    return dict(ray.get_runtime_context().runtime_env or {})
