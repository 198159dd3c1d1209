"""The state of a run, from listings and records alone: changes nothing, starts nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import BinaryIO

from batchrunner.checkpoint import Checkpoint, Generation, Quarantine, RunRecord
from batchrunner.errors import SpecChangedError
from batchrunner.plan.again import Again, with_letters
from batchrunner.plan.asked_for import AskedFor
from batchrunner.plan.output import SUCCESS, Output, check_unused, examine, parts_in
from batchrunner.plan.planning import Opener, StoredPlan, first_generation, next_generation
from batchrunner.plan.source import SourceFile, check_apart, list_source
from batchrunner.shard import Shard, Slicing
from batchrunner.spec import BatchSpec
from batchrunner.spec.fingerprint import differences
from batchrunner.storage import Entry, Storage, locate

_MOST_DIFFERENCES = 40


@dataclass(frozen=True, slots=True)
class Run:
    """A run as it is asked for now.

    Attributes:
        spec: What was asked for.
        asked_for: What decides the output, also the code.
        checkpoint: Where it is remembered.
        sink: Where the parts go.
    """

    spec: BatchSpec
    asked_for: AskedFor
    checkpoint: Checkpoint
    sink: Storage

    @property
    def decisive(self) -> Mapping[str, str]:
        """Every field that decides the output, with its value as text."""
        return self.asked_for.decisive


@dataclass(frozen=True)
class Survey:
    """What was asked for before, what there is to do, and what is done.

    Attributes:
        record: Of the run so far; None when there is none.
        accepted: Differences to the spec so far, which somebody accepts with this session.
        addition: The generation that the source adds to the stored plan; None for nothing.
        plan: The stored plan with *addition*.
        output: What is in the sink.
        is_finished: The sink says that it is complete.
        quarantined: Shards that failed too often to be tried again, by id.
    """

    record: RunRecord | None
    accepted: Sequence[str]
    addition: Generation | None
    plan: StoredPlan
    output: Output
    is_finished: bool
    quarantined: Mapping[int, Quarantine] = field(default_factory=dict)

    @cached_property
    def pending(self) -> tuple[Shard, ...]:
        """The shards to run, in the order of their ids."""
        there = {*self.output.committed, *self.output.unsealed, *self.quarantined}
        return tuple(shard for shard in self.plan.active if shard.id not in there)

    @property
    def nothing_to_do(self) -> bool:
        """Tell whether a session would leave everything as it is."""
        todo = (self.pending, self.output.unsealed, self.accepted, self.addition)
        ended = self.is_finished and not self.output.retired
        return (ended or bool(self.quarantined)) and not any(todo)

    def why(self, shard: Shard) -> str:
        """Tell why *shard* is pending."""
        if shard.id not in self.plan.added_later:
            return "not committed yet" if self.record else "new run"
        if shard.slicing is Slicing.LETTERS:
            return f"rows that shard {shard.start} set aside"
        before = {old.uri for old in self.plan.retired}
        return "its file changed" if shard.uri in before else "its file is new"


def survey(run: Run, *, accept_changes: bool = False, again: Again | None = None) -> Survey:
    """Look at source, checkpoint and sink.

    Args:
        run: The run as it is asked for.
        accept_changes: Whatever changed is right.
        again: Also try again what failed; with code that changed, since that is how it is mended.

    Raises:
        RunRefusedError: What is there is not what was asked for: one of its subclasses.
        InvalidSpecError: The source cannot be read as the spec says.
        StorageError: Something cannot be listed or read.
    """
    files = check_source(run)
    record = run.checkpoint.run()
    if record is None:
        return _of_new_run(run, files)
    accepted = differences(record.decisive, run.asked_for.compared_with(record.decisive))
    mended = again is not None and all(line.startswith("capability.code") for line in accepted)
    if accepted and not accept_changes and not mended:
        raise SpecChangedError(_changed(run, accepted))
    generations = run.checkpoint.generations()
    if not generations:  # the first session died before it could store its plan
        return _of_new_run(run, files, record=record, accepted=accepted)
    plan = stored = StoredPlan.of(generations)
    addition = next_generation(
        run.spec, stored, files, opener=_opener(run.spec), accept_vanished=accept_changes
    )
    sentinels = run.checkpoint.sentinels()
    if addition:
        plan = StoredPlan.of([*generations, addition])
    if again and again.rows and (addition := with_letters(addition, plan, sentinels.good)):
        plan = StoredPlan.of([*generations, addition])
    entries = list(run.sink.list())
    output = examine(plan, parts_in(entries), sentinels, run_uid=record.run_uid)
    active = {shard.id for shard in plan.active}
    quarantined = {i: q for i, q in run.checkpoint.quarantined().items() if i in active}
    waiting = {i: q for i, q in quarantined.items() if i not in output.committed}
    return Survey(record, accepted, addition, plan, output, _says_success(entries), waiting)


def check_source(run: Run) -> list[SourceFile]:
    """Return the files of the source.

    Raises:
        InvalidSpecError: It cannot be read as the spec says, or the sink lies in it.
        StorageError: It cannot be listed, or there is nothing.
    """
    check_apart(run.spec.source, run.spec.sink.uri)
    return list_source(run.spec.source)


def _of_new_run(
    run: Run,
    files: Sequence[SourceFile],
    *,
    record: RunRecord | None = None,
    accepted: Sequence[str] = (),
) -> Survey:
    entries = list(run.sink.list())
    check_unused(run.sink.uri, entries)
    first = first_generation(run.spec, files, _opener(run.spec))
    return Survey(record, accepted, first, StoredPlan.of([first]), Output({}), is_finished=False)


def _opener(spec: BatchSpec) -> Opener:
    def opened(file: SourceFile) -> BinaryIO:
        storage, key = locate(file.uri, storage_options=spec.source.storage_options)
        return storage.open(Entry(key, file.size, file.identity))

    return opened


def _says_success(entries: Sequence[Entry]) -> bool:
    return any(entry.key == SUCCESS for entry in entries)


def _changed(run: Run, differences_: Sequence[str]) -> str:
    more = len(differences_) - _MOST_DIFFERENCES
    told = [*differences_[:_MOST_DIFFERENCES], *([f"and {more} more"] if more > 0 else [])]
    lines = "".join(f"\n  {line}" for line in told)
    return (
        f"the spec or the code is not that of the run in {run.checkpoint.storage.uri}:{lines}\n"
        "Nothing was changed. Put it back; or run with --accept-changes to go on with the new one "
        "for what is not committed yet; or start over with --fresh."
    )
