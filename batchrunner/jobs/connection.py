"""This process's connection to Ray, which every job of it shares."""

from __future__ import annotations

import logging
import socket
import sys
import threading
from typing import Any

from batchrunner.errors import RayUnavailableError
from batchrunner.execute.ray_address import LOCAL, resolve
from batchrunner.execute.ray_connection import connect
from batchrunner.spec.execution import RaySpec

_CONNECT_SECONDS = 1.0
_log = logging.getLogger(__name__)


class Connection:
    """Whether this process is connected to Ray, and whether by us."""

    def __init__(self) -> None:
        self._made: RaySpec | None = None
        self._id: str | None = None
        self._lock = threading.Lock()

    def is_ours(self) -> bool:
        """Tell whether this process is connected, and we did it."""
        return self._made is not None and connection_id() == self._id

    def is_local(self) -> bool:
        """Tell whether the Ray in use ends with this process."""
        return self.is_ours() and self._made is not None and self._made.address == "local"

    def open(self, spec: RaySpec, *, asked: bool, anew: bool) -> None:
        """Be connected.

        Args:
            spec: To what.
            asked: Whether the caller named an address or an environment.
            anew: Give up the connection that there is.

        Raises:
            RayUnavailableError: Ray does not start, or is not there.
        """
        with self._lock:
            self._open(spec, asked=asked, anew=anew)

    def keep_open(self, spec: RaySpec) -> None:
        """Be connected still, or again, to the cluster that was there.

        Raises:
            RayUnavailableError: It is not there, or it was this process's own: another one would know
                nothing of its jobs.
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

        if anew or is_lost_client():  # Ray refuses to connect as long as the lost one is kept
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
        """Give up the connection, if we made it; a Ray that we started ends with it."""
        import ray

        if self.is_ours() or is_lost_client():
            ray.shutdown()
        self._made = None


def is_connected() -> bool:
    """Tell whether this process is connected to Ray, without loading Ray for the question."""
    if "ray" not in sys.modules:
        return False
    import ray

    return bool(ray.is_initialized())


def connection_id() -> str | None:
    """Return the name of this process's connection to Ray, no other ever has it; None without one.

    Every Ray begins its job ids anew, so the id alone does not tell one local Ray from the next.
    A `ray://` connection names itself: its cluster, asked for the name, may be gone.
    """
    if not is_connected() or is_lost_client():
        return None
    if is_ray_client():
        return f"ray://{_client()._client_id}"  # noqa: SLF001 - Ray has no public name for it
    import ray

    context = ray.get_runtime_context()
    return f"{context.get_session_name()}/{context.get_job_id()}"


def is_ray_client() -> bool:
    """Tell whether the connection is a `ray://` one."""
    from ray.util.client import ray as client

    return bool(client.is_connected())  # type: ignore[no-untyped-call]  # Ray is half typed


def is_lost_client() -> bool:
    """Tell whether this process has a `ray://` connection that is of no use any more.

    Ray itself notices half a minute late, and raises a bare ValueError until then.
    """
    worker = _client() if "ray" in sys.modules else None
    if worker is None:
        return False
    return not worker.is_connected() or _is_refused(worker._conn_str)  # noqa: SLF001 - as above


def is_loss_of_client(error: Exception) -> bool:
    """Tell whether *error* is what Ray raises over a `ray://` connection whose other end is gone."""
    of_grpc = type(error).__module__.partition(".")[0] == "grpc"
    return of_grpc or isinstance(error, ConnectionError) or "closed channel" in str(error)


def _client() -> Any:
    """Return Ray's own end of the `ray://` connection; None without one."""
    from ray.util.client import ray as client

    return client.get_context().client_worker  # type: ignore[no-untyped-call]  # Ray is half typed


def _is_refused(address: str) -> bool:
    """Tell whether nobody listens there. An answer that is late only does not say that."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_CONNECT_SECONDS).close()
    except ConnectionRefusedError:
        return True
    except (OSError, ValueError):
        return False
    return False


def runtime_env_here() -> dict[str, Any]:
    """Return this process's runtime environment as its workers get it: uploaded."""
    import ray

    return dict(ray.get_runtime_context().runtime_env or {})
