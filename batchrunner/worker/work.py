"""The work of a session: all that a worker needs besides its shards; sent to it once, by pickle."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from batchrunner.capability.module_snapshot import ModuleSnapshot
from batchrunner.checkpoint import Checkpoint, PlanFacts
from batchrunner.checkpoint.location import checkpoint_storage, sink_storage
from batchrunner.formats.registry import take_over
from batchrunner.spec import BatchSpec
from batchrunner.storage import Storage
from batchrunner.worker.schema import SinkSchema


@dataclass(frozen=True, slots=True)
class Work:
    """One session's work, the same for all workers.

    Attributes:
        spec: What was asked for.
        run_uid: The run.
        session: The driver session.
        facts: How parts are named and written.
        weight: Weight of all shards of the run together, in bytes.
        capability: The user's function or class, or None to import what the spec names.
        import_paths: Folders that the driver imports from, for workers with other ones.
        first: The shard whose part is to fix the schema of the sink; None once one is fixed.
        incarnation: Number of the run in its checkpoint: a worker that outlives a `--fresh` goes on
            writing into the folder of its own run.
        epoch: Of the driver's lease.
        formats: Formats registered by the user, by name, which a worker registers as well.
        code: The user's modules by their place, as the driver saw them, for comparison with what a
            worker imports later. Empty where `capability.version` stands for them.
    """

    spec: BatchSpec
    run_uid: str
    session: str
    facts: PlanFacts
    weight: int
    capability: Any = None
    import_paths: tuple[str, ...] = ()
    first: int | None = None
    incarnation: int = 0
    epoch: int = 0
    formats: Mapping[str, Any] = field(default_factory=dict)
    code: Mapping[str, ModuleSnapshot] = field(default_factory=dict)

    def prepare(self) -> None:
        """Register the spec's secrets and the driver's formats in this process. Idempotent."""
        self.spec.remember_secrets()  # first: any error from here on may quote one
        take_over(self.formats)

    @property
    def takes_tables(self) -> bool:
        """Whether the capability is called with columns, and not with rows."""
        by_batch = self.spec.called.mode == "batch"
        return by_batch and self.spec.execution.batch_format != "rows"

    def sink(self) -> Storage:
        return sink_storage(self.spec)

    def schema(self) -> SinkSchema:
        return SinkSchema(self.checkpoint(), declared=self.spec.sink.schema_)

    def checkpoint(self) -> Checkpoint:
        return Checkpoint.numbered(checkpoint_storage(self.spec), self.incarnation)
