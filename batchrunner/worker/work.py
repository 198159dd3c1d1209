"""What a worker has to know besides its shards; travels to it once, by pickle."""

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
        weight: Of all shards of the run, in bytes.
        capability: The user's function or class, or None to import what the spec names.
        import_paths: Folders that the driver imports from, and a worker might not.
        first: The shard whose part is to fix the schema of the sink, as long as none has.
        incarnation: Number of the run in its checkpoint: a worker that outlives a `--fresh` goes on
            writing into the records of its own run.
        epoch: Of the driver's lease.
        formats: Formats that are not ours, by name, as the driver has them registered.
        code: The user's modules by their place, as the driver saw them: a worker imports them
            later, and compares. Empty where `capability.version` stands in for them.
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
        """Make this process one that can read and write what the driver can. Idempotent."""
        self.spec.remember_secrets()  # first: whatever goes wrong from here on may quote one
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
