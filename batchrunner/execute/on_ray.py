"""The `ray` engine: Ray Data over shard descriptors; no row passes through the object store.

Ray gives out the groups, keeps the actors, and runs again what died with its worker or its node.
A worker never raises into Ray Data, which would end the job or drop a block in silence.

A Ray of our own in process groups of its own: a signal to ours asks us to stop, and not Ray.

`kill -TERM -- -$PGID`, a shell's or a supervisor's, would end Ray under the shards that are to be
finished; and a Ray that loses its first process while it starts holds the whole interpreter, signal
handlers too, for half a minute. It ends with this process all the same: the kernel sees to that.
"""

from __future__ import annotations

import logging
import pickle
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from importlib import import_module
from subprocess import Popen
from typing import Any

from batchrunner.checkpoint.marks import Witness
from batchrunner.errors import CapabilityImportError, RayUnavailableError, describe
from batchrunner.execute.bare_ray_data import exchanged, without_helper_actors
from batchrunner.execute.first_wave import hold_back
from batchrunner.execute.payload import Payload
from batchrunner.execute.ray_connection import connected, told_when_overdue, workers_that_fit
from batchrunner.shard import Shard
from batchrunner.spec import ExecutionSpec
from batchrunner.user_code import contained
from batchrunner.worker.process import ShardWorker
from batchrunner.worker.receipt import Cause, Failure, Receipt
from batchrunner.worker.stopping import Grace, StoredStop
from batchrunner.worker.work import Work
from batchrunner.worker.worker_log import WorkerLog


def run_on_ray(work: Work, shards: Sequence[Shard], *, as_actors: bool) -> Iterator[Receipt | None]:
    """Process *shards* on Ray and yield receipts as they come, in any order.

    At least once: Ray may run a group again, whole or in part, finished or not. None says that a
    worker has begun.

    Raises:
        RayUnavailableError: Ray is not there, or can never hold a worker.
    """
    with ExitStack() as stack:
        with in_groups_of_its_own():
            stack.enter_context(connected(work.spec.ray))
        for needed in (without_helper_actors, _quiet_logs, _ray_errors):
            stack.enter_context(needed())
        execution = work.spec.execution
        fitting = workers_that_fit(execution, may_grow=work.spec.ray.address != "local")
        least, most = _bounds(execution.concurrency, fitting)
        groups = make_groups(shards, workers=min(most, len(shards)), first=work.first)
        if as_actors:
            compute = _actor_pool(least, min(most, len(groups)), at_first=fitting)
        else:
            compute = _task_pool(None if execution.concurrency is None else min(most, len(groups)))
        context = _context()
        if work.first is not None:  # workers may wait for it
            hold_back(context, room=min(fitting, most, len(groups)))
        dataset = _dataset(work, groups, compute=compute, context=context)
        batches = dataset.iter_batches(batch_size=None, prefetch_batches=0, batch_format="pyarrow")
        with told_when_overdue(execution) as begun:
            for batch in batches:
                begun()
                for data in batch.column("receipts").to_pylist():
                    yield from pickle.loads(data)  # noqa: S301 - of our workers


def _bounds(concurrency: int | tuple[int, int] | None, fitting: int) -> tuple[int, int]:
    if concurrency is None:
        return 1, fitting
    return (concurrency, concurrency) if isinstance(concurrency, int) else concurrency


def _dataset(work: Work, groups: Sequence[Sequence[Shard]], *, compute: Any, context: Any) -> Any:
    import ray.data

    as_tasks = isinstance(compute, ray.data.TaskPoolStrategy)
    rows = [{"group": pickle.dumps(group)} for group in groups]
    # The dataset keeps the context that it is made in, so the user's is ours for an instant only.
    with ray.data.DataContext.current(context):
        dataset: Any = ray.data.from_items(rows, override_num_blocks=len(rows))
        return dataset.map_batches(
            process_group if as_tasks else GroupActor,
            batch_size=1,
            batch_format="pyarrow",
            compute=compute,
            **{"fn_kwargs" if as_tasks else "fn_constructor_kwargs": {"payload": Payload.of(work)}},
            **_resources(work.spec.execution),
        )


def _context() -> Any:
    from ray.data import DataContext

    context: Any = DataContext.get_current().copy()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    context.execution_no_progress_timeout_s = -1  # a shard may take hours
    context.target_max_block_size = 1  # a receipt is handed on at once, not when its group ends
    # What the next two guard is memory for blocks, and ours are receipts. With the first, Ray Data
    # runs a single task until it has heard of the cluster's CPUs, a second later; with the second,
    # a worker that is two receipts ahead waits until they are fetched, every 100 ms.
    context.op_resource_reservation_enabled = False
    context._max_num_blocks_in_streaming_gen_buffer = None  # noqa: SLF001 - it has no other name
    return context


def _task_pool(most: int | None) -> Any:
    import ray.data

    return ray.data.TaskPoolStrategy(size=most)


def _actor_pool(least: int, most: int, *, at_first: int) -> Any:
    import ray.data

    # One call more than runs: the next begins at once, and Ray Data sees that actors are wanted.
    if least >= most:
        return ray.data.ActorPoolStrategy(size=most, max_tasks_in_flight_per_actor=2)
    return ray.data.ActorPoolStrategy(
        min_size=least,
        max_size=most,
        initial_size=min(max(least, at_first), most),
        max_tasks_in_flight_per_actor=2,
    )


def _resources(execution: ExecutionSpec) -> dict[str, Any]:
    wanted = {
        "num_cpus": execution.num_cpus,
        "num_gpus": execution.num_gpus or None,
        "memory": execution.memory,
        "accelerator_type": execution.accelerator_type,
        "resources": dict(execution.resources) or None,
    }
    return {name: amount for name, amount in wanted.items() if amount is not None}


class GroupActor:
    """Processes groups of shards with a capability that is built once."""

    def __init__(self, payload: Payload) -> None:
        self._worker = _Worker(payload)

    def __call__(self, batch: Any) -> Iterator[Any]:
        yield from self._worker.receipts(batch)


def process_group(batch: Any, *, payload: Payload) -> Iterator[Any]:
    """Process one group of shards in a task; the process keeps the capability for the next one."""
    if payload.key not in _workers:
        for earlier in _workers.values():
            earlier.end()
        _workers.clear()
        _workers[payload.key] = _Worker(payload)
    yield from _workers[payload.key].receipts(batch)


_workers: dict[str, _Worker] = {}


class _Worker:
    """A `ShardWorker` that could perhaps not be built; then every shard has that as its receipt."""

    def __init__(self, payload: Payload) -> None:
        self._failure: Failure | None = None
        self._log = WorkerLog().begin()
        try:
            work = _unpacked(payload)
            self._log.keep_in(work.checkpoint().storage, session=work.session)
            self._worker = ShardWorker(
                work, pickled=lambda: payload.work, witness=_witness(work.session)
            )
            poll = Grace(work.spec.execution.grace_period).poll
            self._stop = StoredStop(work.checkpoint().storage, work.session, poll=poll)
        except CapabilityImportError as error:
            self._failure = Failure(Cause.IMPORT, str(error))

    def receipts(self, batch: Any) -> Iterator[Any]:
        """Yield one table for all receipts of a moment, after one that says that the work begins."""
        import pyarrow as pa

        yield pa.table({"receipts": [pickle.dumps([None])]})
        group = pickle.loads(batch.column("group")[0].as_py())  # noqa: S301 - written by our driver
        for receipts in self._process(group):
            yield pa.table({"receipts": [pickle.dumps(receipts)]})
        self._log.keep()  # Ray may end this process as soon as the last task is over

    def end(self) -> None:
        """Make room for a worker of another session."""
        self._log.end()

    def _process(self, group: Sequence[Shard]) -> Iterator[list[Receipt]]:
        if self._failure is not None:
            return iter([[Receipt(shard.id, failure=self._failure) for shard in group]])
        return self._worker.process(group, stop=self._stop)


def _witness(session: str) -> Witness:
    import ray

    return Witness(session, ray.get_runtime_context().get_node_id(), _is_lost)


def _is_lost(node: str) -> bool:
    """Tell whether Ray knows *node* as one that is gone; it keeps those for a while."""
    import ray

    nodes = ray.nodes()  # type: ignore[no-untyped-call]  # Ray is half typed
    return any(one["NodeID"] == node and not one["Alive"] for one in nodes)


def _unpacked(payload: Payload) -> Work:
    """Return the work, with the user's functions in it: their modules are imported for that.

    Raises:
        CapabilityImportError: One of them raises.
    """
    try:
        return contained(payload.unpack)
    except Exception as error:
        raise CapabilityImportError(
            f"the capability cannot be loaded: {describe(error)}"
        ) from error


@contextmanager
def _quiet_logs() -> Iterator[None]:
    """Keep Ray Data's talk off the user's terminal; it stays in Ray's own log files."""
    import ray.data  # noqa: F401 - sets the logging up

    handlers = [h for h in logging.getLogger("ray.data").handlers if h.name == "console"]
    before = [handler.level for handler in handlers]
    for handler in handlers:
        handler.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        for handler, level in zip(handlers, before, strict=True):
            handler.setLevel(level)


@contextmanager
def _ray_errors() -> Iterator[None]:
    """Turn what Ray raises about itself into one line."""
    from ray.exceptions import RayError

    try:
        yield
    except RayError as error:
        # The first and last lines say what; those between are Ray's own frames.
        lines = [line for line in str(error).splitlines() if line.strip()] or [""]
        raise RayUnavailableError(
            f"Ray failed: {lines[0][:300]} … {lines[-1].strip()[:300]}. Committed shards are kept; "
            "ray-data.log in Ray's session folder has the rest."
        ) from error


def make_groups(
    shards: Sequence[Shard], *, workers: int, first: int | None = None
) -> list[tuple[Shard, ...]]:
    """Cut *shards* into groups, large ones first, single shards last; shard *first* before all.

    Each round gives every worker an equal share of half of what is left, as in factoring
    (Hummel, Schonberg and Flynn, 1992): workers that are faster, or have lighter shards, find
    smaller and smaller groups to even things out with.
    """
    queue = sorted(shards, key=lambda shard: (shard.id != first, -shard.weight))
    groups: list[tuple[Shard, ...]] = []
    start = 0
    while start < len(queue):
        left = sum(shard.weight for shard in queue[start:])
        share = left / (2 * workers)
        for _ in range(workers):
            stop = start + 1
            weight = queue[start].weight
            while stop < len(queue) and weight + queue[stop].weight <= share:
                weight += queue[stop].weight
                stop += 1
            groups.append(tuple(queue[start:stop]))
            start = stop
            if start >= len(queue):
                break
    return groups


_SERVICES = "ray._private.services"


@contextmanager
def in_groups_of_its_own() -> Iterator[None]:
    """Have what Ray starts inside the block not be in our process group."""
    usual = getattr(import_module(_SERVICES), "ConsolePopen", None)
    with exchanged(_SERVICES, "ConsolePopen", partial(usual or Popen, process_group=0)):
        yield
