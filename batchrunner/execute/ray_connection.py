"""Connects this process to Ray: joins or starts a cluster, and leaves it as it was found."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from batchrunner.errors import RayUnavailableError, describe
from batchrunner.execute.ray_address import CLIENT, LOCAL, check_listening, refuse_client, resolve
from batchrunner.execute.ray_authentication import authenticated, environment_kept
from batchrunner.spec import ExecutionSpec, RaySpec, StageSpec

_OVERDUE_SECONDS = 40.0
_CHATTER = re.compile(rb"\[\S+ \S+ [IWE] \d+ \d+\]")
_LOG_LEVEL = "RAY_BACKEND_LOG_LEVEL"
_log = logging.getLogger(__name__)


@contextmanager
def connected(spec: RaySpec) -> Iterator[bool]:
    """Connect this process to Ray inside the block; yield whether it has started that Ray.

    If it is connected already, that connection is used and stays. Otherwise the address decides:
    "local" starts a Ray that ends with the block, any other joins a cluster and leaves it running.

    Raises:
        RayUnavailableError: Ray does not start, is not there, does not accept this process, or its
            address is a `ray://` one.
    """
    import ray

    if ray.is_initialized():
        refuse_client(CLIENT if ray.util.client.ray.is_connected() else LOCAL)  # type: ignore[no-untyped-call]  # Ray is half typed
        yield False
        return
    address = resolve(spec.address)
    refuse_client(address)
    is_own = address == LOCAL
    connect(spec)
    try:
        yield is_own
    finally:
        ray.shutdown()


def connect(spec: RaySpec) -> None:
    """Connect this process, which has no connection yet, to Ray; with a token if it requires one.

    A local Ray that does not start gets a second try: on a busy machine the first may time out.

    Raises:
        RayUnavailableError: Ray does not start, is not there, or does not accept this process.
    """
    address = resolve(spec.address)
    with _quiet_start():
        if address == LOCAL:
            _start(spec)
        else:
            _join(spec, address)


def _start(spec: RaySpec) -> None:
    try:
        with environment_kept():
            _start_in_two_tries(spec)
    except (TypeError, ValueError) as error:
        raise RayUnavailableError(
            f"a local Ray cannot be started like this: {_reason(error)}. Correct ray.runtime_env"
        ) from error
    except Exception as error:  # Ray raises a dozen kinds, among them bare Exception
        raise RayUnavailableError(
            f"a local Ray did not start, twice: {_reason(error)}. Is the machine busy, or its memory "
            "or temporary folder full? Run the same line again later, or set ray.address to that of a "
            "cluster, or execution.engine: local"
        ) from error


def _start_in_two_tries(spec: RaySpec) -> None:
    import ray

    try:
        _initialize(spec, LOCAL)
    except (TypeError, ValueError):
        raise
    except Exception as error:  # noqa: BLE001 - Ray raises a dozen kinds, among them bare Exception
        _log.warning("a local Ray did not start and gets a second try: %s", _reason(error))
        ray.shutdown()
        _initialize(spec, LOCAL)


def _join(spec: RaySpec, address: str) -> None:
    check_listening(address)
    try:
        with authenticated(address):
            _initialize(spec, address)
    except RayUnavailableError:
        raise
    except Exception as error:
        raise RayUnavailableError(
            f"Ray at {address!r} cannot be used: {_reason(error)}. "
            "Look at `ray status` on the cluster, and compare its versions of Ray and Python"
        ) from error


def _initialize(spec: RaySpec, address: str) -> None:
    import ray

    ray.init(address=address, **_arguments(spec, local=address == LOCAL))


def _reason(error: Exception) -> str:
    """Return the messages of *error* and its root cause: Ray wraps errors and quotes tracebacks."""
    first: BaseException = error
    while cause := first.__cause__ or (not first.__suppress_context__ and first.__context__):
        first = cause
    _, traceback, quoted = str(first).partition("Traceback (most recent call last)")
    origin = quoted.strip().splitlines()[-1] if traceback else describe(first)
    message = describe(error)
    return origin if first is error or message == origin else f"{message} ({origin})"


@contextmanager
def _quiet_start() -> Iterator[None]:
    """Keep the logs of Ray's C++ side off the user's terminal.

    It reads its log level from a variable when it starts, so the variable is set inside the block. Stderr
    is captured for that long: log lines are dropped, and all other lines are printed afterwards. (An
    error about "constructor arguments", for example, comes with every actor pool and means nothing.)
    """
    unset = _LOG_LEVEL not in os.environ
    os.environ.setdefault(_LOG_LEVEL, "fatal")
    real = os.dup(2)
    with tempfile.TemporaryFile() as captured:
        os.dup2(captured.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(real, 2)
            os.close(real)
            if unset:
                del os.environ[_LOG_LEVEL]
            captured.seek(0)
            os.write(2, b"".join(line for line in captured if not _CHATTER.match(line)))


def _arguments(spec: RaySpec, *, local: bool) -> dict[str, Any]:
    return {
        "runtime_env": dict(spec.runtime_env) or None,
        "log_to_driver": False,
        "logging_level": logging.ERROR,
        "include_dashboard": False if local else None,
    }


def workers_that_fit(execution: ExecutionSpec, *, may_grow: bool) -> int:
    """Return how many workers the cluster has room for, at its current size; at least 1.

    Raises:
        RayUnavailableError: No machine has room for one, and the cluster cannot grow.
    """
    import ray

    wanted = needed(execution, num_cpus=execution.num_cpus)
    alive: list[Any] = ray.nodes()  # type: ignore[no-untyped-call]  # Ray is half typed
    nodes = [node["Resources"] for node in alive if node["Alive"]]
    fitting = sum(min(_times(node, wanted), default=0) for node in nodes)
    if fitting:
        return fitting
    total: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
    message = (
        f"no machine of the cluster has room for one worker: it needs {listed(wanted)}; in all "
        f"there is {listed(total)}"
    )
    if not may_grow:
        raise RayUnavailableError(
            f"{message}. Ask for less in `execution`, or use a larger machine."
        )
    _log.warning(
        "%s. Waiting for the cluster to grow; if it does not, ask for less in `execution`.", message
    )
    return 1


def cluster_has(name: str) -> float | None:
    """Return how many the cluster has of *name*, such as CPU, at its current size; None if it counts none."""
    import ray

    return ray.cluster_resources().get(name)  # type: ignore[no-untyped-call,no-any-return]


def is_lost(node: str) -> bool:
    """Return whether Ray lists *node* as dead; it lists dead nodes for a while."""
    import ray

    nodes = ray.nodes()  # type: ignore[no-untyped-call]  # Ray is half typed
    return any(one["NodeID"] == node and not one["Alive"] for one in nodes)


@contextmanager
def warn_when_overdue(wanted: str, *, is_own: bool) -> Iterator[Callable[[], None]]:
    """Warn after 40 s that no worker has started, and why; yield a function that cancels that.

    *wanted* lists what the workers need; *is_own* says that this process has started Ray for itself.
    """
    timer = threading.Timer(_OVERDUE_SECONDS, _warn_overdue, [wanted, is_own])
    timer.daemon = True
    timer.start()
    try:
        yield timer.cancel
    finally:
        timer.cancel()


_OF_OWN = (
    "The Ray of this run is its own: they are starting, or load the capability, which takes minutes on a busy "
    "machine; the run goes on waiting."
)
_OF_CLUSTER = "Other jobs may use the cluster; the run goes on waiting. `ray status` lists what holds the rest."


def _warn_overdue(wanted: str, is_own: bool) -> None:
    import ray

    with contextlib.suppress(Exception):  # Ray may be gone by now
        free: dict[str, float] = ray.available_resources()  # type: ignore[no-untyped-call]
        _log.warning(
            "no worker has started after %d s: %s, and free are %s. %s",
            _OVERDUE_SECONDS,
            wanted,
            listed(free),
            _OF_OWN if is_own else _OF_CLUSTER,
        )


def needed(of: ExecutionSpec | StageSpec, *, num_cpus: float) -> dict[str, float]:
    """Return what a worker reserves, by Ray's names of resources."""
    wanted = {"CPU": num_cpus, "GPU": of.num_gpus or 0.0, **(of.resources or {})}
    if of.memory:
        wanted["memory"] = of.memory
    if of.accelerator_type:
        wanted[f"accelerator_type:{of.accelerator_type}"] = 0.001
    return {name: amount for name, amount in wanted.items() if amount}


def _times(node: Mapping[str, float], wanted: Mapping[str, float]) -> list[int]:
    if not wanted:
        return [int(node.get("CPU", 1))]
    return [int(node.get(name, 0.0) / amount) for name, amount in wanted.items()]


def listed(resources: Mapping[str, float]) -> str:
    """Return *resources* as text, for people."""
    shown = {name: amount for name, amount in resources.items() if not name.startswith("node:")}
    amounts = (f"{name} {_amount(name, amount)}" for name, amount in sorted(shown.items()))
    return ", ".join(amounts) or "nothing"


def _amount(name: str, amount: float) -> str:
    if name in {"memory", "object_store_memory"}:
        return f"{amount / 2**30:,.1f} GiB" if amount >= 2**29 else f"{amount / 2**20:,.1f} MiB"
    return f"{amount:g}"
