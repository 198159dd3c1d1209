"""What a worker needs besides its shards; the driver sends it once, pickled."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from batchrunner.capability.module_snapshot import ModuleSnapshot
from batchrunner.checkpoint import Checkpoint, PlanFacts
from batchrunner.checkpoint.dead_letters import Stage
from batchrunner.checkpoint.location import checkpoint_storage, sink_storage
from batchrunner.formats.registry import take_over
from batchrunner.spec import BatchSpec
from batchrunner.storage import Storage
from batchrunner.worker.answer_journal import AnswerJournal
from batchrunner.worker.schema import SinkSchema

_LONGEST_NAME = 60


@dataclass(frozen=True, slots=True)
class Work:
    """The description of a session's work, the same for all its workers.

    Attributes:
        spec: The spec of the run.
        run_uid: Identifies the run.
        session: Id of the driver's session.
        facts: How parts are named and written.
        weight: Size of all shards of the run together, in bytes of the source.
        capability: The user's function or class; None to import the one that the spec names.
        import_paths: Folders that the driver imports from; a worker adds those that it lacks.
        first: Id of the shard whose part is to fix the schema of the sink; None if no shard has to.
        incarnation: Number of the run in its checkpoint, so that a worker that outlives a `--fresh`
            keeps writing into the folder of its own run.
        epoch: Fencing number of the driver's lease.
        formats: By name, formats that the user registered; a worker registers them, too.
        code: By place, the user's modules as the driver saw them, to compare with those that a
            worker imports later. Empty if `capability.version` stands in for the code.
        isolated: Whether the capability runs in a process of its own from the start.
        definition: The fingerprint of what decides the output; "" if no answer is to be journaled.
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
    isolated: bool = False
    definition: str = ""

    def prepare(self) -> None:
        """Register the spec's secrets and the driver's formats in this process. Idempotent."""
        self.spec.remember_secrets()  # first: any error from here on may quote a secret
        take_over(self.formats)

    @property
    def stage_name(self) -> str:
        """The name of a capability without stages: that of its class or function, as it may be shown."""
        if self.capability is None or self.spec.called.stages:
            return self.spec.called.own_targets[0].rpartition(":")[2]
        is_named = isinstance(self.capability, type) or inspect.isroutine(self.capability)
        name = str((self.capability if is_named else type(self.capability)).__name__)
        # A program may give its own classes any name.
        return "".join(filter(str.isprintable, name))[:_LONGEST_NAME] or "capability"

    @property
    def failing_stage(self) -> str:
        """Where a row fails whose error names no stage; without stages, by the name that `status` has for it."""
        # A function may be called as the reader is.
        has_name = not self.spec.called.stages and self.stage_name != Stage.READ
        return self.stage_name if has_name else Stage.CAPABILITY

    @property
    def takes_tables(self) -> bool:
        """Whether the capability takes a batch as columns and not as rows."""
        if stages := self.spec.stages:
            return stages[0].mode == "batch" and stages[0].batch_format != "rows"
        by_batch = self.spec.called.mode == "batch"
        return by_batch and self.spec.execution.batch_format != "rows"

    @property
    def spans_shards(self) -> bool:
        """Whether a batch may have rows of several shards: its output can be divided among them.

        Only where the spec says so: shards wait for the batch that they share, and a kill costs all of
        them. In mode `row` the output could always be divided, and no call would gain by it.
        """
        called = self.spec.called
        return called.one_to_one and called.mode != "run"

    @property
    def seconds(self) -> float | None:
        """How many seconds the calls for a shard should take; None if it is not cut by time.

        A capability run is one call with one row, and is repeated as a whole.
        """
        return None if self.spec.called.mode == "run" else self.spec.source.seconds

    @property
    def has_one_cpu(self) -> bool:
        """Whether each worker has at most one CPU to itself. The `local` engine has the machine."""
        execution = self.spec.execution
        if self.spec.called.stages:  # it mostly waits for them
            return False
        return execution.engine == "ray" and execution.num_cpus <= 1

    def sink(self) -> Storage:
        return sink_storage(self.spec)

    def schema(self) -> SinkSchema:
        return SinkSchema(self.checkpoint(), declared=self.spec.sink.schema_)

    def journal(self) -> AnswerJournal | None:
        """Return a journal of answers, which is to be closed; None unless the spec asks for one."""
        if not (self.spec.execution.journal_answers and self.definition):
            return None
        return AnswerJournal(
            self.checkpoint(),
            self.facts,
            run_uid=self.run_uid,
            definition=self.definition,
            epoch=self.epoch,
        )

    def checkpoint(self) -> Checkpoint:
        return Checkpoint.numbered(checkpoint_storage(self.spec), self.incarnation)
