"""Resolves and checks the address of the Ray cluster that a spec names."""

from __future__ import annotations

import os
import socket

from batchrunner.errors import RayUnavailableError

LOCAL = "local"
CLIENT = "ray://"
_AUTO = "auto"
_CONNECT_SECONDS = 5.0


def resolve(address: str) -> str:
    """Return *address*; for "auto", RAY_ADDRESS if it is set, else the cluster on this machine.

    Raises:
        RayUnavailableError: No cluster runs on this machine.
    """
    if address != _AUTO:
        return address
    configured = os.environ.get("RAY_ADDRESS") or _AUTO
    return _on_this_machine() if configured == _AUTO else configured


def _on_this_machine() -> str:
    from ray._private.services import canonicalize_bootstrap_address

    try:
        return canonicalize_bootstrap_address(_AUTO) or LOCAL
    except ConnectionError as error:
        raise RayUnavailableError(
            "ray.address is 'auto', but no Ray runs on this machine and RAY_ADDRESS is not set: "
            "start one with `ray start --head`, or set ray.address"
        ) from error


def refuse_client(address: str) -> None:
    """Refuse an *address* of Ray's client: over `ray://` Ray Data returns no batch (Ray 2.60).

    Raises:
        RayUnavailableError: It is one.
    """
    if address.startswith(CLIENT):
        raise RayUnavailableError(
            f"ray.address is {address!r}, and Ray Data does not run over {CLIENT}: on a machine of the "
            "cluster set ray.address: auto, or host:6379; from elsewhere submit the run as a job, with "
            f"`batchrunner jobs submit SPEC --address {address}`"
        )


def check_listening(address: str) -> None:
    """Check that a process listens at *address*: in seconds, where Ray would try for minutes.

    Raises:
        RayUnavailableError: No process listens there, or *address* is malformed.
    """
    host, _, port = address.removeprefix(CLIENT).rpartition(":")
    if not port.isdigit():
        _check_client(address)
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_CONNECT_SECONDS).close()
    except OSError as error:
        raise RayUnavailableError(
            f"no Ray listens at ray.address {address!r} ({error.strerror or error}); "
            "start the cluster, or use ray.address: local"
        ) from error


def _check_client(address: str) -> None:
    if not address.startswith(CLIENT):
        raise RayUnavailableError(
            f"ray.address {address!r} must be local, auto, host:port or ray://host:port"
        )
