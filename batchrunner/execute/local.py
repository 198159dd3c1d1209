"""The `local` engine: all shards in this process, one after the other, without Ray."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from typing import NoReturn

from batchrunner.execute.payload import pickled
from batchrunner.shard import Shard
from batchrunner.worker.heartbeat import Heartbeat, WorkerPhase
from batchrunner.worker.process import Host, ShardWorker
from batchrunner.worker.pulse import Pulse, beating
from batchrunner.worker.rate_gate import own_gate
from batchrunner.worker.receipt import Receipt
from batchrunner.worker.stopping import StopSignal
from batchrunner.worker.work import Work
from batchrunner.worker.worker_log import WorkerLog

_BEAT_SECONDS = 0.25


def run_locally(
    work: Work, shards: Sequence[Shard], *, stop: StopSignal, hear: Callable[[Heartbeat], None]
) -> Iterator[Receipt | None]:
    """Process *shards* in order, and yield None when the work begins, then the receipts.

    Meanwhile, *hear* is called with heartbeats, in another thread.

    Raises:
        CapabilityImportError: The capability cannot be imported or built.
    """
    pulse = Pulse()
    with ExitStack() as stack:
        stack.enter_context(_exits_raise())
        stack.enter_context(_stored_log(work))
        stack.enter_context(beating(pulse, hear, seconds=_BEAT_SECONDS))
        host = Host(pulse=pulse, gate=own_gate(work.spec.execution.rate_limit))
        worker = ShardWorker(work, pickled=lambda: pickled(work), host=host)
        stack.enter_context(closing(worker))
        pulse.phase = WorkerPhase.RUNNING
        yield None
        for receipts in worker.process(shards, stop=stop):
            yield from receipts
        pulse.phase = WorkerPhase.IDLE


@contextmanager
def _stored_log(work: Work) -> Iterator[None]:
    """Store what is printed and logged inside the block, except by the driver."""
    # The driver runs in the main thread, and the shards in another. If shards run in the main thread, too,
    # no thread is ignored.
    driver = frozenset({threading.main_thread()}) - {threading.current_thread()}
    log = WorkerLog(ignored=driver).begin()
    log.store_in(work.checkpoint().storage, session=work.session)
    try:
        yield
    finally:
        log.end()


_exit = os._exit
_running: list[object] = []
"""The sessions of this process that run their shards in it."""


@contextmanager
def _exits_raise() -> Iterator[None]:
    """Make `os._exit` of the user's code raise inside the block, as an error of its row.

    It would end the driver, and with status 0 the run would seem to have succeeded. A fork of the user's
    code still ends by it. A crash in C cannot be held back here.
    """
    process, session = os.getpid(), object()

    def exit_(status: int) -> NoReturn:
        if os.getpid() != process or not _running:
            _exit(status)
        raise SystemExit(status)

    _running.append(session)
    os._exit = exit_
    try:
        yield
    finally:
        _running.remove(session)
        if not _running:  # of runs in several threads, the last one
            os._exit = _exit
