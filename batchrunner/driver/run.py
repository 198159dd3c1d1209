"""A run as its spec asks for it now: where it lives, what decides its output, whose the sink is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from batchrunner.checkpoint import RunLocation
from batchrunner.driver.clearing import ClearedRuns
from batchrunner.driver.definition import RunDefinition
from batchrunner.driver.ownership import Ownership, SinkOwner
from batchrunner.driver.plan import Slicer
from batchrunner.driver.same_bytes import Comparer
from batchrunner.spec import BatchSpec


@dataclass(frozen=True, slots=True)
class Run(RunLocation):
    """A run as it is asked for now.

    Attributes:
        definition: All that decides the output, the code included.
        comparer: Compares source files that have another time with what was read of them.
        slicer: Cuts source files into shards.
    """

    definition: RunDefinition
    comparer: Comparer
    slicer: Slicer

    @classmethod
    def of(cls, spec: BatchSpec, *, handed_over: Any = None) -> Run:
        """Open sink and checkpoint of *spec*, whose capability may have been *handed_over*.

        Raises:
            StorageError: Sink or checkpoint cannot be reached.
        """
        at = RunLocation.of(spec)
        definition = RunDefinition(spec, handed_over)
        reading = Comparer.of(spec), Slicer.of(spec)
        return Run(spec, at.sink, at.checkpoint, definition, *reading)

    @property
    def decisive(self) -> Mapping[str, str]:
        """Every field that decides the output, with its value as text."""
        return self.definition.decisive

    @property
    def cleared(self) -> ClearedRuns:
        """The runs that a `--fresh` ended and whose records are still there."""
        return ClearedRuns(self.checkpoint.ended(), sink=self.sink)

    def check_can_start(self, *, starts_over: bool) -> None:
        """Check what a session needs, before anything is removed or written.

        Raises:
            CapabilityImportError: The capability that is to start over cannot be imported.
            InvalidSpecError: One of `capability.files` is not there.
            StorageError: Sink or checkpoint cannot refuse a second writer.
        """
        if starts_over and self.decisive:  # computed here for the errors that it raises
            self.definition.load()
        if not self.spec.unsafe_single_writer:
            self.checkpoint.storage.check_conditional_writes()
            self.sink.check_conditional_writes()

    def ownership(self, run_uid: str, *, ended: ClearedRuns | None = None) -> Ownership:
        """Return the right of the run called *run_uid* to write into the sink."""
        owner = SinkOwner(run_uid, self.checkpoint.storage.uri)
        return Ownership(owner, self.sink, self.cleared if ended is None else ended)
