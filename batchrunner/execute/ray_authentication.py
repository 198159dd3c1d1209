"""Authentication to a Ray cluster: with a token, or without.

Ray's own clients look for a token only where they also look for the cluster ("auto"). At a given
address, a client without the right token retries for 20 to 30 s and then reports that it cannot
connect; one that uses a token where the cluster requires none connects, and then its actors die. So
the cluster is asked first which of the two it requires: that takes milliseconds, and says what is wrong.
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
    """Set Ray up inside the block to authenticate as the cluster at *address* requires it.

    The address is host:port or ray://…. RAY_AUTH_MODE, where it is set, is obeyed. It is changed inside
    the block only: Ray reads it while it connects, and caches it.

    Raises:
        RayUnavailableError: The token is missing, is not the cluster's, or the cluster requires none;
            or no Ray answers at *address*.
    """
    with _environment(_mode_for(address)):
        yield


@contextmanager
def environment_kept() -> Iterator[None]:
    """Restore RAY_AUTH_MODE after the block: a local Ray sets it as it starts and leaves it set."""
    with _environment(os.environ.get(_MODE)):
        yield


def authentication_at(address: str) -> str:
    """Return, in words, how this process authenticates to the cluster at *address*; no token is in it.

    Raises:
        RayUnavailableError: As `authenticated`.
    """
    if _mode_for(address) == _DISABLED:
        return "without a token"
    return f"with the token in {_place_of_token()}"


@contextmanager
def _environment(mode: str | None) -> Iterator[None]:
    before = os.environ.get(_MODE)
    try:
        _set_mode(mode)
        core = _core()
        # Ray caches the mode and the token of the previous cluster, and this process would go on to
        # require that token from its callers. So make Ray read both again.
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
    if _accepts(address, mode=_DISABLED):
        return _mode_without_token(address, wanted)
    if wanted is not None and wanted.lower() != _TOKEN:
        raise RayUnavailableError(
            f"Ray at {address!r} requires a token, but {_MODE} is {wanted!r} here. Unset it, or set "
            f"{_MODE}=token"
        )
    _check_token(address)
    if not _accepts(address, mode=_TOKEN):
        raise RayUnavailableError(
            f"Ray at {address!r} refuses the token in {_place_of_token()}: the cluster has another one. "
            "Put that one there: `ray get-auth-token` prints it on the cluster"
        )
    return _TOKEN


def _mode_without_token(address: str, wanted: str | None) -> str:
    if wanted is None or wanted.lower() != _TOKEN:
        return _DISABLED
    if address.startswith(
        CLIENT
    ):  # such a client only makes calls, and this cluster ignores their token
        return _TOKEN
    raise RayUnavailableError(
        f"Ray at {address!r} runs without token authentication, but {_MODE} is {wanted!r} here: "
        f"its workers could not call back. Unset {_MODE}, or start the cluster with {_MODE}=token"
    )


def _check_token(address: str) -> None:
    from ray.exceptions import AuthenticationError

    loader = _core().AuthenticationTokenLoader.instance()
    loader.reset_cache()  # the user may have stored the token since the last try
    try:
        if loader.has_token(ignore_auth_mode=True):
            return
        reason = "this machine has none"
    except AuthenticationError as error:
        reason = error.message
    raise RayUnavailableError(
        f"Ray at {address!r} requires a token: {reason}. Put the cluster's, which `ray "
        "get-auth-token` prints there, into ~/.ray/auth_token, or set RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH"
    )


def _place_of_token() -> str:
    """Return the variable or file that Ray takes the token from, in Ray's order."""
    variables = [name for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH") if os.environ.get(name)]
    return variables[0] if variables else "~/.ray/auth_token"


def _accepts(address: str, *, mode: str) -> bool:
    """Return whether the cluster accepts a client in this *mode*."""
    config = _core().Config
    config.initialize(json.dumps({"AUTH_MODE": mode, **_IMPATIENT}))
    try:
        if address.startswith(CLIENT):
            return _client_server_accepts(address)
        return _control_store_accepts(address)
    finally:
        config.initialize("")


def _control_store_accepts(address: str) -> bool:
    from ray.exceptions import AuthenticationError, RpcError

    try:
        _core().GcsClient(address=address)
    except AuthenticationError:
        return False
    except RpcError as error:
        raise _no_ray(address, str(error)) from error
    return True


def _client_server_accepts(address: str) -> bool:
    """Send the first request of `ray://` clients, and return whether it is accepted."""
    if find_spec("grpc") is None:
        return True  # Ray reports which package to install when it connects
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
        f"what listens at {address!r} does not answer as a Ray cluster ({reason}): it is another "
        "program, another port of the cluster, or too busy. ray.address takes host and `ray start --port` "
        "(6379); for jobs also ray://host and --ray-client-server-port (10001)"
    )


def _core() -> Any:
    """Return Ray's compiled core: Ray has no public interface for authentication."""
    return import_module("ray._raylet")
