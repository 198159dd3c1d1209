"""The `local` engine: all shards in this process, one after the other, without Ray."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager

from batchrunner.execute.payload import pickled
from batchrunner.shard import Shard
from batchrunner.worker.process import ShardWorker
from batchrunner.worker.receipt import Receipt
from batchrunner.worker.stopping import StopSignal
from batchrunner.worker.work import Work
from batchrunner.worker.worker_log import WorkerLog


def run_locally(
    work: Work, shards: Sequence[Shard], *, stop: StopSignal
) -> Iterator[Receipt | None]:
    """Process *shards* in order, and yield None when the work begins, then the receipts.

    Raises:
        CapabilityImportError: The capability cannot be imported or built.
    """
    with _stored_log(work), closing(ShardWorker(work, pickled=lambda: pickled(work))) as worker:
        yield None
        for receipts in worker.process(shards, stop=stop):
            yield from receipts


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
