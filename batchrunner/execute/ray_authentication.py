"""With a token or without: how a Ray cluster is to be talked to.

Ray's own clients look for a token only where they find the cluster by themselves, too ("auto"). At
an address that is given, a client without the right token retries for 20 to 30 s and says that it
cannot connect; one that uses a token where none is asked for connects, and then its actors die.
So the cluster is asked first: that takes milliseconds, and tells what is wrong.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from batchrunner.errors import RayUnavailableError
from batchrunner.execute.ray_address import CLIENT

_MODE = "RAY_AUTH_MODE"
_TOKEN = "token"  # noqa: S105 - the name of a mode
_DISABLED = "disabled"
_ANSWER_SECONDS = 8
_IMPATIENT = {"gcs_rpc_server_connect_timeout_s": 2, "py_gcs_connect_timeout_s": _ANSWER_SECONDS}


@contextmanager
def authenticated(address: str) -> Iterator[None]:
    """Have Ray connect to the cluster at *address* (host:port, or ray://…) as that one asks for.

    RAY_AUTH_MODE, where it is set, is obeyed. It is changed inside the block only: Ray reads it
    while it connects, and remembers.

    Raises:
        RayUnavailableError: No token, another one than the cluster's, or one that the cluster
            does not ask for; or no Ray answers at *address*.
    """
    with _environment(_mode_for(address)):
        yield


@contextmanager
def environment_kept() -> Iterator[None]:
    """Undo at the end what a local Ray does when it starts: it sets RAY_AUTH_MODE for good."""
    with _environment(os.environ.get(_MODE)):
        yield


@contextmanager
def _environment(mode: str | None) -> Iterator[None]:
    before = os.environ.get(_MODE)
    try:
        _set_mode(mode)
        core = _core()
        # Ray remembers the cluster before: its mode, and its token, which this process would go on
        # asking of those that call it. Both are read anew.
        core.Config.initialize("")
        core.AuthenticationTokenLoader.instance().reset_cache()
        yield
    finally:
        _set_mode(before)


def _set_mode(mode: str | None) -> None:
    if mode is None:
        os.environ.pop(_MODE, None)
    else:
        os.environ[_MODE] = mode


def _mode_for(address: str) -> str:
    wanted = os.environ.get(_MODE)
    if _lets_in(address, mode=_DISABLED):
        return _mode_without_need(address, wanted)
    if wanted is not None and wanted.lower() != _TOKEN:
        raise RayUnavailableError(
            f"Ray at {address!r} asks for a token, but {_MODE} is {wanted!r} here. Unset it, or set "
            f"{_MODE}=token"
        )
    _check_token(address)
    if not _lets_in(address, mode=_TOKEN):
        raise RayUnavailableError(
            f"Ray at {address!r} refuses the token in {_place_of_token()}: its own is another one. "
            "Put that one there: `ray get-auth-token` prints it on the cluster"
        )
    return _TOKEN


def _mode_without_need(address: str, wanted: str | None) -> str:
    if wanted is None or wanted.lower() != _TOKEN:
        return _DISABLED
    if address.startswith(CLIENT):  # all calls go to the cluster, which ignores the token
        return _TOKEN
    raise RayUnavailableError(
        f"Ray at {address!r} runs without token authentication, but {_MODE} is {wanted!r} here: "
        f"its workers could not call back. Unset {_MODE}, or start the cluster with {_MODE}=token"
    )


def _check_token(address: str) -> None:
    from ray.exceptions import AuthenticationError

    loader = _core().AuthenticationTokenLoader.instance()
    loader.reset_cache()  # the token may have come since the last try
    try:
        if loader.has_token(ignore_auth_mode=True):
            return
        reason = "there is none here"
    except AuthenticationError as error:
        reason = error.message
    raise RayUnavailableError(
        f"Ray at {address!r} asks for a token: {reason}. Put the cluster's, which `ray "
        "get-auth-token` prints there, into ~/.ray/auth_token, or set RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH"
    )


def _place_of_token() -> str:
    """Return where Ray has the token from: it looks in this order."""
    variables = [name for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH") if os.environ.get(name)]
    return variables[0] if variables else "~/.ray/auth_token"


def _lets_in(address: str, *, mode: str) -> bool:
    """Tell whether the cluster answers a client in this *mode*."""
    config = _core().Config
    config.initialize(json.dumps({"AUTH_MODE": mode, **_IMPATIENT}))
    try:
        if address.startswith(CLIENT):
            return _client_server_lets_in(address)
        return _control_store_lets_in(address)
    finally:
        config.initialize("")


def _control_store_lets_in(address: str) -> bool:
    from ray.exceptions import AuthenticationError, RpcError

    try:
        _core().GcsClient(address=address)
    except AuthenticationError:
        return False
    except RpcError as error:
        raise _no_ray(address, str(error)) from error
    return True


def _client_server_lets_in(address: str) -> bool:
    """Ask what `ray://` clients ask first."""
    if find_spec("grpc") is None:
        return True  # Ray says what is to be installed
    from ray._private.grpc_utils import init_grpc_channel

    grpc: Any = import_module("grpc")
    messages: Any = import_module("ray.core.generated.ray_client_pb2")
    stubs: Any = import_module("ray.core.generated.ray_client_pb2_grpc")
    ping = messages.ClusterInfoRequest(type=messages.ClusterInfoType.PING)
    try:
        with init_grpc_channel(address.removeprefix(CLIENT)) as channel:
            stubs.RayletDriverStub(channel).ClusterInfo(ping, timeout=_ANSWER_SECONDS)
    except grpc.RpcError as error:
        if error.code() == grpc.StatusCode.UNAUTHENTICATED:
            return False
        raise _no_ray(address, error.details() or error.code().name) from error
    return True


def _no_ray(address: str, reason: str) -> RayUnavailableError:
    return RayUnavailableError(
        f"what listens at {address!r} does not answer as a Ray cluster ({reason}): it is none, or "
        "too busy, or this is another of its ports. ray.address takes host and `ray start --port` "
        "(6379), or ray://host and --ray-client-server-port (10001)"
    )


def _core() -> Any:
    """Return Ray's compiled core: what it says of authentication is no public interface."""
    return import_module("ray._raylet")
