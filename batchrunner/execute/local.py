"""The `local` engine: everything in this process, one shard after the other, without Ray."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager

from batchrunner.execute.payload import pickled
from batchrunner.shard import Shard
from batchrunner.worker.process import ShardWorker
from batchrunner.worker.receipt import Receipt
from batchrunner.worker.stopping import Stop
from batchrunner.worker.work import Work
from batchrunner.worker.worker_log import WorkerLog


def run_locally(work: Work, shards: Sequence[Shard], *, stop: Stop) -> Iterator[Receipt | None]:
    """Process *shards* in order and yield a receipt for each, after a None once work begins.

    Raises:
        CapabilityImportError: The capability cannot be imported or built.
    """
    with _kept_log(work), closing(ShardWorker(work, pickled=lambda: pickled(work))) as worker:
        yield None
        for receipts in worker.process(shards, stop=stop):
            yield from receipts


@contextmanager
def _kept_log(work: Work) -> Iterator[None]:
    """Keep what is said inside the block, but by the driver, whose thread is another one."""
    driver = frozenset({threading.main_thread()}) - {threading.current_thread()}
    log = WorkerLog(but=driver).begin()
    log.keep_in(work.checkpoint().storage, session=work.session)
    try:
        yield
    finally:
        log.end()
