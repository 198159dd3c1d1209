"""This process's connection to Ray, which every job of it shares."""

from __future__ import annotations

import logging
import threading
from typing import Any

from batchrunner.execute.ray_connection import connect
from batchrunner.spec.execution import RaySpec

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

    def _open(self, spec: RaySpec, *, asked: bool, anew: bool) -> None:
        import ray

        if anew:
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

        if self.is_ours():
            ray.shutdown()
        self._made = None


def is_connected() -> bool:
    """Tell whether this process is connected to Ray, without loading Ray for the question."""
    import sys

    if "ray" not in sys.modules:
        return False
    import ray

    return bool(ray.is_initialized())


def connection_id() -> str | None:
    """Return the name of this process's connection to Ray, no other ever has it; None without one.

    Every Ray begins its job ids anew, so the id alone does not tell one local Ray from the next.
    """
    if not is_connected():
        return None
    import ray

    context = ray.get_runtime_context()
    return f"{context.get_session_name()}/{context.get_job_id()}"


def is_ray_client() -> bool:
    """Tell whether the connection is a `ray://` one."""
    from ray.util.client import ray as client

    return bool(client.is_connected())  # type: ignore[no-untyped-call]  # Ray is half typed


def runtime_env_here() -> dict[str, Any]:
    """Return this process's runtime environment as its workers get it: uploaded."""
    import ray

    return dict(ray.get_runtime_context().runtime_env or {})
