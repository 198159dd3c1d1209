"""The state of a run, computed from listings and records; writes nothing and starts no worker."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

from batchrunner.checkpoint import Checkpoint, Generation, Quarantine, RunRecord, Sentinels
from batchrunner.driver.additions import Additions
from batchrunner.driver.clearing import ClearedRuns, StaleOutput
from batchrunner.driver.growth import (
    Growth,
    Retry,
    growth_of,
    notes_on_cut,
    with_dead_letters,
    with_empty_generation,
)
from batchrunner.driver.moving import brought_here, changes_since, place_of, recorded_place
from batchrunner.driver.overlap import list_apart
from batchrunner.driver.plan import first_generation, partition_change
from batchrunner.driver.plan_html import plan_html
from batchrunner.driver.row_windows import note_on_windows
from batchrunner.driver.run import Run
from batchrunner.driver.sink_state import (
    MANIFEST,
    OWNER,
    SUCCESS,
    Output,
    check_unused,
    declaration_in,
    examine,
    parts_in,
)
from batchrunner.driver.source_files import Listing
from batchrunner.driver.spec_changes import begun_anew, is_empty, is_of_code, refuse_changes
from batchrunner.driver.stored_plan import StoredPlan
from batchrunner.driver.trial import check_are_trials, refuse_trial
from batchrunner.errors import DamagedOutputError, SpecChangedError
from batchrunner.shard import Shard
from batchrunner.storage import Entry
from batchrunner.worker.schema import SinkSchema


@dataclass(frozen=True)
class Survey:
    """The state of a run: what is recorded, what is committed, and what is still to do.

    Attributes:
        record: The record of the run; None if the run is new.
        accepted: Differences from the recorded spec, which this session accepts.
        addition: The generation that this session adds to the stored plan; None for nothing.
        plan: The stored plan with *addition*.
        output: The state of the output in the sink.
        is_finished: Whether there is a `_SUCCESS`.
        quarantined: By shard id, the shards that only `retry` runs again.
        notes: Warnings about the source, for the user.
        changed: Which planned files changed, as one of the *notes*; "" for none.
        starts_over: Whether the run begins anew and ends an earlier one.
        stale: Output to remove from the sink before the first shard is handed out.
    """

    record: RunRecord | None
    accepted: Sequence[str]
    addition: Generation | None
    plan: StoredPlan
    output: Output
    is_finished: bool
    quarantined: Mapping[int, Quarantine] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    changed: str = ""
    starts_over: bool = False
    stale: StaleOutput = field(default_factory=StaleOutput)

    def grown(self, generation: Generation) -> Survey:
        """Return the survey with one more *generation* of the plan, which the session has stored."""
        gone = set(generation.retired)
        quarantined = {i: one for i, one in self.quarantined.items() if i not in gone}
        return replace(self, plan=self.plan.grown(generation), quarantined=quarantined)

    @cached_property
    def pending(self) -> tuple[Shard, ...]:
        """The shards to run, in the order of their ids."""
        there = {*self.output.committed, *self.output.unadopted, *self.quarantined}
        return tuple(shard for shard in self.plan.active if shard.id not in there)

    @property
    def nothing_to_do(self) -> bool:
        """Whether a session would change nothing."""
        todo = (
            self.pending,
            self.output.unadopted,
            self.accepted,
            self.addition,
            self.stale.parts,
        )
        is_declared = self.is_finished and not self.output.retired
        # With a quarantined shard the output is never declared complete: only `retry` goes on.
        return (is_declared or bool(self.quarantined)) and not any(todo)

    @property
    def is_whole(self) -> bool:
        """Whether the output is complete as it is, so that no session will change it."""
        grows = self.addition is not None and self.addition.changes_output
        return not any((self.pending, self.output.unadopted, self.output.retired, grows))

    def __str__(self) -> str:
        """Return the figures as one line, then what changed; `repr` has every shard."""
        adopted = len(self.output.unadopted)
        figures = [
            f"plan: {len(self.plan.active):,} shards",
            f"{len(self.output.committed):,} committed",
            f"{adopted:,} to adopt" if adopted else "",
            f"{len(self.pending):,} pending",
            f"{len(self.quarantined):,} quarantined" if self.quarantined else "",
        ]
        return "\n".join([", ".join(filter(None, figures)), *self.accepted, *self.notes])

    def _repr_html_(self) -> str:
        return plan_html(self)

    def why(self, shard: Shard) -> str:
        """Return why *shard* is pending."""
        if shard.retries is not None:
            return f"dead letters of shard {shard.retries}"
        if added := self._additions.why(shard):
            return added
        return "not committed yet" if self.record else "new run"

    @cached_property
    def _additions(self) -> Additions:
        return Additions(self.plan)


def take_survey(
    run: Run,
    *,
    accept_changes: bool = False,
    retry: Retry | None = None,
    starts_over: bool = False,
) -> Survey:
    """Compare the spec with source, checkpoint and sink. Writes nothing.

    Args:
        run: The run as the present spec describes it.
        accept_changes: Accept every difference from the recorded run.
        retry: What `retry` runs again; with its `mended`, changed code is accepted as a fix.
            Without it, a change while nothing is committed begins the run anew.
        starts_over: End the recorded run, and remove its output.

    Raises:
        RunRefusedError: The source, the checkpoint or the sink does not fit the spec; the subclass
            says which, and how.
        InvalidSpecError: The source cannot be read as the spec says.
        StorageError: Source, checkpoint or sink cannot be listed or read.
    """
    listing = list_apart(run.spec)
    # Half cleared: an early version died in a `--fresh`; the rest of the old output must go first.
    if starts_over or run.checkpoint.is_half_cleared:
        has_begun = _has_begun(run.checkpoint)
        if run.trial:
            check_are_trials([*run.checkpoint.ended(), *([run.checkpoint] if has_begun else [])])
        return _of_new_run(run, listing, starts_over=has_begun)
    record = run.checkpoint.run()
    if record is None:
        return _of_new_run(run, listing)
    if record.trial:
        refuse_trial(record, run.checkpoint)
    return _of_begun_run(run, record, listing, accept_changes=accept_changes, retry=retry)


def _of_begun_run(
    run: Run, record: RunRecord, listing: Listing, *, accept_changes: bool, retry: Retry | None
) -> Survey:
    generations = run.checkpoint.generations()
    was = recorded_place(record.decisive, generations, run.spec)
    partitioned = partition_change(generations, run.spec.source)
    now = run.definition.compared_with(record.decisive)
    accepted = changes_since(record.decisive, now, was=was, spec=run.spec) + partitioned
    is_fix = retry is not None and retry.mended and is_of_code(accepted)
    if accepted and not is_fix and is_empty(run.checkpoint, run.sink):
        anew = _of_new_run(run, listing, starts_over=True)
        return replace(anew, notes=(*anew.notes, begun_anew(accepted)))
    if accepted and not accept_changes and not is_fix:
        refuse_changes(accepted, run.checkpoint, is_renamed=record.name != run.spec.name)
    if any(line.startswith("sink.schema") for line in accepted):
        _check_schema(run)
    if not generations:  # the first session died before it could store its plan
        return _of_new_run(run, listing, record=record, accepted=accepted)
    # Sentinels before parts: if workers commit meanwhile, no sentinel appears without its part.
    sentinels = run.checkpoint.sentinels()
    here = brought_here(generations, spec=run.spec, was=was)
    growth = growth_of(run, here, listing, sentinels.good, accept_vanished=accept_changes)
    if partitioned:  # recorded with this generation, so that the user is asked only once
        growth = with_empty_generation(run, growth)
    if retry and retry.rows:
        growth = with_dead_letters(run, growth, sentinels.good)
    return _compared_with_sink(run, record, accepted, growth, sentinels)


def _check_schema(run: Run) -> None:
    """Refuse a declared schema that conflicts with that of the parts: no reader could read both."""
    try:
        SinkSchema(run.checkpoint, declared=run.spec.sink.schema_).check_declared()
    except ValueError as error:
        raise SpecChangedError(
            f"sink.schema is not what the parts in {run.sink.uri} have: {error}\n"
            "Parts are never changed. Put it back, or start over with --fresh."
        ) from error


def _compared_with_sink(
    run: Run, record: RunRecord, accepted: Sequence[str], growth: Growth, sentinels: Sentinels
) -> Survey:
    plan = growth.plan
    entries = list(run.sink.list())
    parts = parts_in(entries)
    late = run.cleared.late_parts(parts, plan=plan)
    rest = {name: entry for name, entry in parts.items() if name not in late}
    output = examine(plan, rest, sentinels, run_uid=record.run_uid, sink=run.sink.uri)
    survey = Survey(
        record,
        accepted,
        growth.addition,
        plan,
        output,
        is_finished=any(entry.key == SUCCESS for entry in entries),
        quarantined=_quarantined(run, record, plan, output),
        notes=growth.notes,
        changed=growth.changed,
    )
    if not survey.is_whole and plan.facts.part_format.keeps_schema:
        run.checkpoint.schemas()  # raises for a damaged one, before the session writes
    # If the output stays as it is, so does `_SUCCESS`. A manifest without a `_SUCCESS` declares
    # nothing, so it can stay: the end of the run replaces it.
    is_withdrawn = survey.is_finished and not survey.is_whole
    declaration = declaration_in(entries) if is_withdrawn else ()
    return replace(survey, stale=StaleOutput(declaration, tuple(late.values())))


def _quarantined(
    run: Run, record: RunRecord, plan: StoredPlan, output: Output
) -> dict[int, Quarantine]:
    active = {shard.id for shard in plan.active}
    return {
        shard: quarantine
        for shard, quarantine in run.checkpoint.quarantined().items()
        # A damaged quarantine record names no run: its shard stays quarantined until `retry`.
        if quarantine.run_uid in ("", record.run_uid)
        and shard in active
        and shard not in output.committed
    }


def _has_begun(checkpoint: Checkpoint) -> bool:
    """Return whether there is a run that `--fresh` would end; one with damaged records counts."""
    try:
        return checkpoint.run() is not None or bool(checkpoint.generations())
    except DamagedOutputError:
        return True


def _of_new_run(
    run: Run,
    listing: Listing,
    *,
    record: RunRecord | None = None,
    accepted: Sequence[str] = (),
    starts_over: bool = False,
) -> Survey:
    entries = list(run.sink.list())
    ended = [*run.checkpoint.ended(), *([run.checkpoint] if starts_over else [])]
    if record is None and not ended:
        _refuse_lost_record(run, entries)
    cleared = ClearedRuns(ended, sink=run.sink)
    run.ownership(record.run_uid if record else "", ended=cleared).check(entries)
    if ended:
        stale = cleared.stale_output(entries)
    else:
        check_unused(run.sink.uri, entries)
        stale = StaleOutput()
    listing = listing.read_once()
    first = first_generation(run.spec, listing.files, run.slicer)
    first = replace(first, place=place_of(run.spec))
    notes = notes_on_cut(run.spec.source, listing.files)
    return Survey(
        record,
        accepted,
        first,
        StoredPlan.of([first]),
        Output({}),
        is_finished=False,
        notes=(*listing.notes, *notes, *note_on_windows(first.shards)),
        starts_over=starts_over,
        stale=stale,
    )


def _refuse_lost_record(run: Run, entries: Sequence[Entry]) -> None:
    """Refuse to begin a new run if the old one has lost only its record.

    The caller has listed the sink already; the checkpoint is listed only if the sink is not empty.
    """
    names = (SUCCESS, MANIFEST, OWNER)
    if parts_in(entries) or any(entry.key in names for entry in entries):
        run.checkpoint.refuse_without_record()
