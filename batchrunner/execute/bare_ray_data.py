"""Ray Data without the actors that it starts beside an execution.

Four of them, for dashboards, for telemetry, for a cluster that grows and for actors that move, each
import ray.data in a process of their own, and take the worker processes that Ray holds ready; the
first shard waits for other ones. On two cores that is 1.7 s of 2.4 (measured with Ray 2.60). Nobody
looks at them in a Ray that this process started for itself, and it has one node and stays so.

Ray has a setting for telemetry only, so its functions are exchanged for the time being. If they are
gone in another release, the actors are back, and nothing else changes.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from importlib import import_module
from typing import Any

_STATS = "ray.data._internal.stats"
_EXECUTOR = "ray.data._internal.execution.streaming_executor"
_POOL = "ray.data._internal.execution.operators.actor_pool_map_operator"
_NO_TELEMETRY = "RAY_DATA_USAGE_DISABLED"


@contextmanager
def without_helper_actors() -> Iterator[None]:
    """Have Ray Data start none of them inside the block, if this process started Ray."""
    if not _is_ours():
        yield
        return
    with ExitStack() as stack:
        stack.enter_context(exchanged(_STATS, "get_or_create_stats_actor", _Nobody))
        stack.enter_context(exchanged(_EXECUTOR, "create_cluster_autoscaler", _Fixed))
        stack.enter_context(exchanged(_POOL, "get_or_create_actor_location_tracker", _Nobody))
        stack.enter_context(exchanged(_POOL, "get_actor_locations", _none_has_moved))
        if _NO_TELEMETRY not in os.environ:
            os.environ[_NO_TELEMETRY] = "1"
            stack.callback(os.environ.pop, _NO_TELEMETRY, None)
        yield


def _is_ours() -> bool:
    """Tell whether this process started the Ray that it is connected to."""
    import ray

    node = getattr(ray._private.worker, "_global_node", None)  # noqa: SLF001 - it has no other name
    return bool(getattr(node, "head", False))


@contextmanager
def exchanged(module: str, name: str, ours: Any) -> Iterator[None]:
    """Have *ours* in the place of what a *module* of Ray's has there, if it still has it."""
    try:
        holder = import_module(module)
    except ImportError:
        yield
        return
    theirs = getattr(holder, name, None)
    if theirs is None or theirs is ours:  # another run of this process has exchanged it
        yield
        return
    setattr(holder, name, ours)
    try:
        yield
    finally:
        setattr(holder, name, theirs)


class _Nobody:
    """Takes any message that an actor would, and does nothing."""

    def __getattr__(self, name: str) -> _Nobody:
        if name.startswith("__"):
            raise AttributeError(name)
        return self

    def remote(self, *_: Any, **__: Any) -> None:
        pass


def _none_has_moved(_: Any) -> dict[str, str]:
    return {}


class _Fixed:
    """The autoscaler of a cluster that stays as it is: the methods of Ray's `ClusterAutoscaler`."""

    def __init__(self, *_: Any, **__: Any) -> None:
        import ray
        from ray.data import ExecutionResources

        cluster: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]  # Ray is half typed
        self._total = ExecutionResources(
            cpu=cluster.get("CPU", 0.0),
            gpu=cluster.get("GPU", 0.0),
            object_store_memory=cluster.get("object_store_memory", 0.0),
            memory=cluster.get("memory", 0.0),
        )

    def try_trigger_scaling(self) -> None:
        pass

    def on_executor_shutdown(self) -> None:
        pass

    def get_total_resources(self) -> Any:
        return self._total
