"""The `ray` engine: Ray Data over shard descriptors; no row passes through the object store.

Ray hands out groups of shards, keeps the actors, and runs a group again when its worker or node died.
This module is the driver side; `ray_worker` is what runs in Ray's processes.
"""

from __future__ import annotations

import logging
import pickle
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from importlib import import_module
from subprocess import Popen
from typing import Any

from batchrunner.errors import RayUnavailableError
from batchrunner.execute.bare_ray_data import replaced, without_helper_actors
from batchrunner.execute.first_wave import hold_back
from batchrunner.execute.payload import Payload
from batchrunner.execute.processors import with_processors
from batchrunner.execute.ray_connection import cluster_has, connected, warn_when_overdue
from batchrunner.execute.ray_deaths import deaths_heard
from batchrunner.execute.ray_heartbeats import Hear, beat_seconds, heard
from batchrunner.execute.ray_rate_limit import rate_budget
from batchrunner.execute.ray_worker import GroupActor, process_group
from batchrunner.execute.workers import Workers
from batchrunner.shard import Shard
from batchrunner.worker.heartbeat import Heartbeat, WorkerPhase
from batchrunner.worker.receipt import Receipt
from batchrunner.worker.work import Work

_SERVICES = "ray._private.services"
_MISCOUNTED = "Above ray.get should raise an exception"
_log = logging.getLogger(__name__)


def run_on_ray(
    work: Work, shards: Sequence[Shard], *, as_actors: bool, hear: Hear
) -> Iterator[Receipt | None]:
    """Process *shards* on Ray and yield receipts as they come, in any order.

    A shard may be processed more than once: Ray may run a group again, whole or in part, finished or
    not. A None between the receipts means that a worker has started. Meanwhile, *hear* is called with
    heartbeats, in another thread.

    Raises:
        RayUnavailableError: Ray is not there, fails, or never has room for a worker.
        CapabilityImportError: A processor of `ray.data.llm` cannot be built.
        InvalidSpecError: A processor does what no stage can.
    """
    with ExitStack() as stack:
        with _own_process_groups():
            is_own = stack.enter_context(connected(work.spec.ray))
        cpus, gpus = cluster_has("CPU"), cluster_has("GPU")
        hear(Heartbeat("", WorkerPhase.LOADING, cpus=cpus, gpus=gpus))
        stack.enter_context(deaths_heard(hear))
        stack.enter_context(rate_budget(work))
        for adapted in (without_helper_actors, _quiet_logs, _ray_errors):
            stack.enter_context(adapted())
        work = with_processors(work)
        workers = Workers.of(work.spec)
        groups = workers.groups(shards, first=work.first)
        most = min(workers.most, len(groups))
        if as_actors:
            compute = _actor_pool(min(workers.least, most), most, at_first=workers.at_first)
        else:
            is_open = work.spec.execution.concurrency is None
            compute = _task_pool(None if is_open else most)
        context = _context()
        if work.first is not None:  # other workers wait for the schema of this shard
            hold_back(context, tasks=min(workers.at_first, most))
        seconds = beat_seconds(most)
        payload = Payload.of(work, beat_seconds=seconds)
        dataset = _dataset(payload, workers, groups, compute=compute, context=context)
        batches = dataset.iter_batches(batch_size=None, prefetch_batches=0, batch_format="pyarrow")
        with warn_when_overdue(workers.wanted, is_own=is_own) as has_started:
            listen = partial(_hear_of_starts, hear=hear, has_started=has_started)
            stack.enter_context(heard(work.session, listen, seconds=seconds))
            for batch in _until_miscounted(batches):
                for data in batch.column("receipts").to_pylist():
                    receipts = pickle.loads(data)  # noqa: S301 - written by our workers
                    # With stages, the worker itself starts at once: its heartbeat says when they have.
                    if receipts != [None] or not work.spec.stages:
                        has_started()
                    yield from receipts


def _hear_of_starts(heartbeat: Heartbeat, *, hear: Hear, has_started: Callable[[], None]) -> None:
    if heartbeat.phase is WorkerPhase.RUNNING:
        has_started()
    hear(heartbeat)


def _until_miscounted(batches: Iterator[Any]) -> Iterator[Any]:
    """Yield *batches*; end if Ray Data misses one of a task that it has repeated after a death.

    It asserts that the second try yields at least as many as the first. But a shard that the first one has
    committed has its receipt with many others at the second. That try is over then, and the driver looks up
    what has no receipt.
    """
    try:
        yield from batches
    except AssertionError as error:
        if _MISCOUNTED not in str(error):
            raise
        _log.info("Ray Data has no more receipts of a group whose worker died")


def _dataset(
    payload: Payload,
    workers: Workers,
    groups: Sequence[Sequence[Shard]],
    *,
    compute: Any,
    context: Any,
) -> Any:
    import ray.data

    as_tasks = isinstance(compute, ray.data.TaskPoolStrategy)
    rows = [{"group": pickle.dumps(group)} for group in groups]
    # A dataset keeps the context that it is made in: the user's own is replaced only for this block.
    with ray.data.DataContext.current(context):
        dataset: Any = ray.data.from_items(rows, override_num_blocks=len(rows))
        return dataset.map_batches(
            process_group if as_tasks else GroupActor,
            batch_size=1,
            batch_format="pyarrow",
            compute=compute,
            **{"fn_kwargs" if as_tasks else "fn_constructor_kwargs": {"payload": payload}},
            **workers.reserved,
        )


def _context() -> Any:
    from ray.data import DataContext

    context: Any = DataContext.get_current().copy()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    context.execution_no_progress_timeout_s = -1  # a shard may take hours
    context.target_max_block_size = 1  # a receipt is passed on at once, not when its group ends
    # The next two limit memory for blocks, and our blocks are receipts. With the first, Ray Data runs
    # a single task until it has the cluster's CPUs, a second later; with the second, a worker that is
    # two receipts ahead waits until they are fetched, every 100 ms.
    context.op_resource_reservation_enabled = False
    context._max_num_blocks_in_streaming_gen_buffer = None  # noqa: SLF001 - it has no other name
    return context


def _task_pool(most: int | None) -> Any:
    import ray.data

    return ray.data.TaskPoolStrategy(size=most)


def _actor_pool(least: int, most: int, *, at_first: int) -> Any:
    import ray.data

    # One call waits at each actor beside the one that runs: it starts at once, and Ray Data scales up
    # while calls wait.
    if least >= most:
        return ray.data.ActorPoolStrategy(size=most, max_tasks_in_flight_per_actor=2)
    return ray.data.ActorPoolStrategy(
        min_size=least,
        max_size=most,
        initial_size=min(max(least, at_first), most),
        max_tasks_in_flight_per_actor=2,
    )


@contextmanager
def _own_process_groups() -> Iterator[None]:
    """Put the Ray processes that are started inside the block into process groups of their own.

    Otherwise a signal to this process's group (`kill -TERM -- -$PGID`, from a shell or a supervisor)
    would end Ray while workers finish their shards; and a Ray that loses its first process while it
    starts blocks the interpreter, signal handlers too, for half a minute. Ray still ends with this
    process: the kernel ends its children.
    """
    usual = getattr(import_module(_SERVICES), "ConsolePopen", None)
    with replaced(_SERVICES, "ConsolePopen", partial(usual or Popen, process_group=0)):
        yield


@contextmanager
def _quiet_logs() -> Iterator[None]:
    """Keep Ray Data's logs off the user's terminal; Ray's own log files have them."""
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
    """Raise Ray's own errors as RayUnavailableError, in one line."""
    from ray.exceptions import RayError

    try:
        yield
    except RayError as error:
        # The first and last lines are the message; the lines between are Ray's own frames.
        lines = [line for line in str(error).splitlines() if line.strip()] or [""]
        raise RayUnavailableError(
            f"Ray failed: {lines[0][:300]} … {lines[-1].strip()[:300]}. Committed shards are kept: run "
            "the same line again. ray-data.log in Ray's session folder has the details."
        ) from error
