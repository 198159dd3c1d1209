"""A run as the present spec describes it: its storages, its code, the owner of its sink."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from batchrunner.checkpoint import RunLocation
from batchrunner.checkpoint.documents import TRIAL
from batchrunner.driver.clearing import ClearedRuns
from batchrunner.driver.definition import RunDefinition
from batchrunner.driver.ownership import Ownership, SinkOwner
from batchrunner.driver.plan import Slicer
from batchrunner.driver.same_bytes import Comparer
from batchrunner.driver.sample import Sample
from batchrunner.spec import BatchSpec


@dataclass(frozen=True, slots=True)
class Run(RunLocation):
    """A run as the present spec describes it, which may differ from the spec that was recorded.

    Attributes:
        definition: The fields that decide the output, the code included.
        comparer: Compares source files whose time has changed with the bytes that were read from
            them.
        slicer: Cuts source files into shards.
        trial: The option of the trial that this is, such as `--limit 3`; empty for a run itself.
    """

    definition: RunDefinition
    comparer: Comparer
    slicer: Slicer
    trial: str = ""

    @classmethod
    def of(
        cls,
        spec: BatchSpec,
        *,
        handed_over: Any = None,
        sample: Sample | None = None,
        trial: str = "",
    ) -> Run:
        """Open sink and checkpoint of *spec*; *handed_over* replaces its capability, if given.

        With a *sample*, a new plan holds that much of the source only. *trial* marks its record.

        Raises:
            StorageError: Sink or checkpoint cannot be reached.
        """
        at = RunLocation.of(spec)
        definition = RunDefinition(spec, handed_over)
        reading = Comparer.of(spec), Slicer.of(spec, sample=sample)
        return Run(spec, at.sink, at.checkpoint, definition, *reading, trial)

    @property
    def decisive(self) -> Mapping[str, str]:
        """The fields that decide the output: their values as text, by dotted path."""
        marked = {TRIAL: json.dumps(self.trial)} if self.trial else {}
        return {**self.definition.decisive, **marked}

    @property
    def cleared(self) -> ClearedRuns:
        """The runs of this checkpoint that a `--fresh` ended and whose records still exist."""
        return ClearedRuns(self.checkpoint.ended(), sink=self.sink)

    def check_can_start(self, *, starts_over: bool) -> None:
        """Check what a session needs, before it removes or writes anything.

        Raises:
            CapabilityImportError: The run starts over, and its capability cannot be imported.
            InvalidSpecError: One of `capability.files` does not exist.
            StorageError: The storage of sink or checkpoint has no conditional writes, which keep a
                second writer out.
        """
        if starts_over and self.decisive:  # read for the errors that it raises
            self.definition.load()
        if not self.spec.unsafe_single_writer:
            self.checkpoint.storage.check_conditional_writes()
            self.sink.check_conditional_writes()

    def ownership(self, run_uid: str, *, ended: ClearedRuns | None = None) -> Ownership:
        """Return the right of the run *run_uid* to write into the sink."""
        owner = SinkOwner(run_uid, self.checkpoint.storage.uri)
        return Ownership(owner, self.sink, self.cleared if ended is None else ended)
