"""What an engine promises: the `local` and the `ray` engine process the shards of a session."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

from batchrunner.shard import Shard
from batchrunner.worker.heartbeat import Heartbeat
from batchrunner.worker.receipt import Receipt
from batchrunner.worker.work import Work


class Engine(Protocol):
    """Processes each shard at least once; yields receipts in any order, None when a worker begins.

    Meanwhile it may call *hear*, in any thread, with heartbeats of its workers. They may be lost or
    late: nothing but the display depends on them.
    """

    def __call__(
        self, work: Work, shards: Sequence[Shard], *, hear: Callable[[Heartbeat], None]
    ) -> Iterator[Receipt | None]:
        """Process *shards*.

        Raises:
            CapabilityImportError: The capability cannot be imported or built.
            RayUnavailableError: Ray, on which the workers run, cannot be reached.
        """
