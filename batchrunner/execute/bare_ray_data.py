"""Ray Data without the actors that it starts beside an execution.

There are four: statistics for dashboards, telemetry, the cluster's autoscaler, and a tracker of where
actors are. Each imports ray.data in a process of its own, one of those that Ray holds ready; the first
shard then waits until Ray has started more. On two cores that is 1.7 s of 2.4 (measured with Ray 2.60). A Ray
that this process started for itself needs none of them: it has one node, and no dashboard.

Ray has a setting for telemetry only, so its functions are replaced inside a block. If another release
has other functions, the actors are started again, and nothing else changes.
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
    """Keep Ray Data from starting its helper actors in the block, if this process started Ray."""
    if not _started_here():
        yield
        return
    with ExitStack() as stack:
        stack.enter_context(replaced(_STATS, "get_or_create_stats_actor", _NoActor))
        stack.enter_context(replaced(_EXECUTOR, "create_cluster_autoscaler", _FixedAutoscaler))
        stack.enter_context(replaced(_POOL, "get_or_create_actor_location_tracker", _NoActor))
        stack.enter_context(replaced(_POOL, "get_actor_locations", _no_locations))
        if _NO_TELEMETRY not in os.environ:
            os.environ[_NO_TELEMETRY] = "1"
            stack.callback(os.environ.pop, _NO_TELEMETRY, None)
        yield


def _started_here() -> bool:
    """Return whether this process started the Ray that it is connected to."""
    import ray

    node = getattr(ray._private.worker, "_global_node", None)  # noqa: SLF001 - it has no other name
    return bool(getattr(node, "head", False))


@contextmanager
def replaced(module: str, name: str, ours: Any) -> Iterator[None]:
    """Replace *name* in Ray's *module* by *ours* inside the block, if this Ray has that name."""
    try:
        holder = import_module(module)
    except ImportError:
        yield
        return
    theirs = getattr(holder, name, None)
    if theirs is None or theirs is ours:  # replaced already by another run of this process
        yield
        return
    setattr(holder, name, ours)
    try:
        yield
    finally:
        setattr(holder, name, theirs)


class _NoActor:
    """Stands in for an actor handle: accepts any call, and does nothing."""

    def __getattr__(self, name: str) -> _NoActor:
        if name.startswith("__"):
            raise AttributeError(name)
        return self

    def remote(self, *_: Any, **__: Any) -> None:
        pass


def _no_locations(_: Any) -> dict[str, str]:
    return {}


class _FixedAutoscaler:
    """The autoscaler of a cluster of fixed size, with the methods of Ray's `ClusterAutoscaler`."""

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
