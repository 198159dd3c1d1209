"""Where the Ray is that a spec means."""

from __future__ import annotations

import os
import socket

from batchrunner.errors import RayUnavailableError

LOCAL = "local"
CLIENT = "ray://"
_AUTO = "auto"
_CONNECT_SECONDS = 5.0


def resolve(address: str) -> str:
    """Return *address*; for "auto", what it stands for: RAY_ADDRESS, or the cluster on this machine.

    Raises:
        RayUnavailableError: No cluster runs on this machine.
    """
    named = os.environ.get("RAY_ADDRESS") or _AUTO
    if address != _AUTO:
        return address
    return _found_here() if named == _AUTO else named


def _found_here() -> str:
    from ray._private.services import canonicalize_bootstrap_address

    try:
        return canonicalize_bootstrap_address(_AUTO) or LOCAL
    except ConnectionError as error:
        raise RayUnavailableError(
            "ray.address is 'auto', but no Ray runs on this machine and RAY_ADDRESS is not set: "
            "start one with `ray start --head`, or set ray.address"
        ) from error


def check_listening(address: str) -> None:
    """Fail in seconds rather than minutes when nobody listens at *address*.

    Raises:
        RayUnavailableError: Nobody does, or it is no address.
    """
    host, _, port = address.removeprefix(CLIENT).rpartition(":")
    if not port.isdigit():
        _check_client(address)
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_CONNECT_SECONDS).close()
    except OSError as error:
        raise RayUnavailableError(
            f"nobody listens at ray.address {address!r} ({error.strerror or error}); "
            "start the cluster, or use ray.address: local"
        ) from error


def _check_client(address: str) -> None:
    if not address.startswith(CLIENT):
        raise RayUnavailableError(
            f"ray.address {address!r} is none of local, auto, host:port and ray://host:port"
        )
