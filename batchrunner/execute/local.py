"""The `local` engine: everything in this process, one shard after the other, without Ray."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing

from batchrunner.execute.payload import pickled
from batchrunner.shard import Shard
from batchrunner.worker.process import ShardWorker
from batchrunner.worker.receipt import Receipt
from batchrunner.worker.stopping import Stop
from batchrunner.worker.work import Work


def run_locally(work: Work, shards: Sequence[Shard], *, stop: Stop) -> Iterator[Receipt | None]:
    """Process *shards* in order and yield a receipt for each, after a None once work begins.

    Raises:
        CapabilityImportError: The capability cannot be imported or built.
    """
    with closing(ShardWorker(work, pickled=lambda: pickled(work))) as worker:
        yield None
        for receipts in worker.process(shards, stop=stop):
            yield from receipts
