"""The state of a run, from listings and records alone: changes nothing, starts nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import BinaryIO, NoReturn

from batchrunner.checkpoint import (
    Checkpoint,
    Generation,
    Quarantine,
    RunRecord,
    Sentinel,
    Sentinels,
)
from batchrunner.driver.asked_for import AskedFor
from batchrunner.driver.changes import begun_anew, is_empty, is_of_code, refusal
from batchrunner.driver.clearing import ClearedRuns, InTheWay
from batchrunner.driver.moving import brought_here, changes_since, place_of, recorded_place
from batchrunner.driver.overlap import check_apart, check_links
from batchrunner.driver.ownership import OWNER, Ownership, SinkOwner
from batchrunner.driver.plan import (
    Again,
    Opener,
    StoredPlan,
    first_generation,
    next_generation,
    partition_change,
    with_dead_letter_shards,
)
from batchrunner.driver.same_bytes import Comparer
from batchrunner.driver.sink_state import MANIFEST, SUCCESS, Output, check_unused, examine, parts_in
from batchrunner.driver.source_files import Listing, SourceFile, list_source
from batchrunner.errors import DamagedOutputError, SpecChangedError
from batchrunner.formats.naming import PARQUET
from batchrunner.shard import Shard, Slicing
from batchrunner.spec import BatchSpec
from batchrunner.storage import Entry, Storage, locate
from batchrunner.worker.schema import SinkSchema


@dataclass(frozen=True, slots=True)
class Run:
    """A run as it is asked for now.

    Attributes:
        spec: What was asked for.
        asked_for: What decides the output, also the code.
        checkpoint: Where it is remembered.
        sink: Where the parts go.
        comparer: Looks into files that have another time.
    """

    spec: BatchSpec
    asked_for: AskedFor
    checkpoint: Checkpoint
    sink: Storage
    comparer: Comparer

    @property
    def decisive(self) -> Mapping[str, str]:
        """Every field that decides the output, with its value as text."""
        return self.asked_for.decisive

    @property
    def cleared(self) -> ClearedRuns:
        """The runs that a `--fresh` ended, as far as they are remembered."""
        return ClearedRuns(self.checkpoint.ended(), sink=self.sink)

    def ownership(self, run_uid: str, *, ended: ClearedRuns | None = None) -> Ownership:
        """Return the right of the run of that name, over the sink."""
        me = SinkOwner(run_uid, self.checkpoint.storage.uri)
        return Ownership(me, self.sink, self.cleared if ended is None else ended)


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
        notes: What people should know of the source.
        starts_over: The run begins anew, and an earlier one ends with it.
        in_the_way: What has to leave the sink first.
    """

    record: RunRecord | None
    accepted: Sequence[str]
    addition: Generation | None
    plan: StoredPlan
    output: Output
    is_finished: bool
    quarantined: Mapping[int, Quarantine] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    starts_over: bool = False
    in_the_way: InTheWay = field(default_factory=InTheWay)

    @cached_property
    def pending(self) -> tuple[Shard, ...]:
        """The shards to run, in the order of their ids."""
        there = {*self.output.committed, *self.output.unadopted, *self.quarantined}
        return tuple(shard for shard in self.plan.active if shard.id not in there)

    @property
    def nothing_to_do(self) -> bool:
        """Tell whether a session would leave everything as it is."""
        late = self.in_the_way.parts
        todo = (self.pending, self.output.unadopted, self.accepted, self.addition, late)
        ended = self.is_finished and not self.output.retired
        return (ended or bool(self.quarantined)) and not any(todo)

    @property
    def is_whole(self) -> bool:
        """Tell whether the output is complete as it stands, so that nothing in it will change."""
        grows = self.addition is not None and self.addition.changes_output
        return not any((self.pending, self.output.unadopted, self.output.retired, grows))

    def why(self, shard: Shard) -> str:
        """Tell why *shard* is pending."""
        if shard.id not in self.plan.added_later:
            return "not committed yet" if self.record else "new run"
        if shard.slicing is Slicing.DEAD_LETTERS:
            return f"rows that shard {shard.start} set aside"
        before = {old.uri for old in self.plan.retired}
        return "its file changed" if shard.uri in before else "its file is new"


def survey(
    run: Run,
    *,
    accept_changes: bool = False,
    again: Again | None = None,
    starts_over: bool = False,
) -> Survey:
    """Look at source, checkpoint and sink.

    Args:
        run: The run as it is asked for.
        accept_changes: Whatever changed is right.
        again: Also try again what failed; with code that changed where it says so, since that is
            how it is mended. Whatever changed while nothing is committed begins the run anew.
        starts_over: Nothing of what there is counts; it is removed, as far as it is this run's.

    Raises:
        RunRefusedError: What is there is not what was asked for: one of its subclasses.
        InvalidSpecError: The source cannot be read as the spec says.
        StorageError: Something cannot be listed or read.
    """
    listing = check_source(run)
    if starts_over or run.checkpoint.is_half_cleared:
        return _of_new_run(run, listing, starts_over=_has_begun(run.checkpoint))
    record = run.checkpoint.run()
    if record is None:
        return _of_new_run(run, listing)
    generations = run.checkpoint.generations()
    was = recorded_place(record.decisive, generations, run.spec)
    gained = partition_change(generations, run.spec.source)
    now = run.asked_for.compared_with(record.decisive)
    accepted = changes_since(record.decisive, now, was=was, spec=run.spec) + gained
    mended = again is not None and again.mended and is_of_code(accepted)
    if accepted and not mended and is_empty(run.checkpoint, run.sink):
        seen = _of_new_run(run, listing, starts_over=True)
        return replace(seen, notes=(*seen.notes, begun_anew(accepted)))
    if accepted and not accept_changes and not mended:
        _refuse_changes(run, record, accepted)
    if any(line.startswith("sink.schema") for line in accepted):
        _check_schema(run)
    if not generations:  # the first session died before it could store its plan
        return _of_new_run(run, listing, record=record, accepted=accepted)
    sentinels = run.checkpoint.sentinels()
    here = brought_here(generations, spec=run.spec, was=was)
    grown = _grown(run, here, listing, sentinels.good, accept_vanished=accept_changes)
    if gained and grown.addition is None:  # so that it is known from now on that it was accepted
        facts = grown.plan.facts
        grown = replace(grown, addition=Generation(facts, (), place=place_of(run.spec)))
    if again and again.rows:
        more = with_dead_letter_shards(grown.addition, grown.plan, sentinels.good)
        grown = replace(grown, addition=more and replace(more, place=place_of(run.spec)))
    return _looked_at(run, record, accepted, grown.with_addition(here), sentinels)


def _refuse_changes(run: Run, record: RunRecord, differences: Sequence[str]) -> NoReturn:
    sentinels = run.checkpoint.sentinels()
    is_renamed = record.name != run.spec.name
    raise SpecChangedError(
        refusal(differences, checkpoint=run.checkpoint, sentinels=sentinels, is_renamed=is_renamed)
    )


def _refuse_lost_record(run: Run, entries: Sequence[Entry]) -> None:
    """Refuse to begin anew where only the run's record is gone; an empty sink costs no request."""
    names = (SUCCESS, MANIFEST, OWNER)
    if parts_in(entries) or any(entry.key in names for entry in entries):
        run.checkpoint.refuse_without_record()


def _check_schema(run: Run) -> None:
    """Refuse types that parts have not: to accept them would leave parts that nobody reads together."""
    try:
        SinkSchema(run.checkpoint, declared=run.spec.sink.schema_).check_declared()
    except ValueError as error:
        raise SpecChangedError(
            f"sink.schema is not what the parts in {run.sink.uri} have: {error}\n"
            "Parts are never changed. Put it back, or start over with --fresh."
        ) from error


@dataclass(frozen=True, slots=True)
class _Grown:
    """A stored plan, and what the source adds to it.

    Attributes:
        addition: None for nothing.
        plan: The stored one, with it.
        notes: What people should know of the source.
    """

    addition: Generation | None
    plan: StoredPlan
    notes: tuple[str, ...]

    def with_addition(self, generations: Sequence[Generation]) -> _Grown:
        """Return the same with the plan that *generations* and the addition make."""
        if self.addition is None:
            return self
        return replace(self, plan=StoredPlan.of([*generations, self.addition]))


def _grown(
    run: Run,
    generations: Sequence[Generation],
    listing: Listing,
    committed: Mapping[int, Sentinel],
    *,
    accept_vanished: bool,
) -> _Grown:
    stored = StoredPlan.of(generations)
    listing = listing.read_once({shard.uri for shard in stored.active})
    found = run.comparer.compare(stored, listing.files, committed)
    addition = _addition(run, stored, listing, found.same, accept_vanished=accept_vanished)
    notes = (*listing.notes, *found.notes())
    return _Grown(addition, stored, notes).with_addition(generations)


def _looked_at(
    run: Run, record: RunRecord, accepted: Sequence[str], grown: _Grown, sentinels: Sentinels
) -> Survey:
    """Hold the plan against the sink."""
    plan = grown.plan
    entries = list(run.sink.list())
    parts = parts_in(entries)
    late = late_parts(run, plan, parts)
    rest = {name: entry for name, entry in parts.items() if name not in late}
    output = examine(plan, rest, sentinels, run_uid=record.run_uid, sink=run.sink.uri)
    seen = Survey(
        record,
        accepted,
        grown.addition,
        plan,
        output,
        _says_success(entries),
        _waiting(run, record, plan, output),
        notes=grown.notes,
    )
    if not seen.is_whole and plan.facts.format == PARQUET:
        run.checkpoint.schemas()  # what cannot be read is refused here, before anything is touched
    # Over an output that stays as it is, `_SUCCESS` stays, too.
    signs = () if seen.is_whole else _signs(entries)
    return replace(seen, in_the_way=InTheWay(signs, tuple(late.values())))


def late_parts(run: Run, plan: StoredPlan, parts: Mapping[str, Entry]) -> dict[str, Entry]:
    """Return those of *parts* that belong to no shard, and that a worker of an ended run wrote."""
    if not run.checkpoint.earlier:
        return {}
    names = {plan.facts.part(shard.id) for shard in (*plan.active, *plan.retired)}
    cleared = run.cleared
    return {n: entry for n, entry in parts.items() if n not in names and cleared.wrote(entry)}


def _waiting(
    run: Run, record: RunRecord, plan: StoredPlan, output: Output
) -> dict[int, Quarantine]:
    active = {shard.id for shard in plan.active}
    return {
        shard: quarantine
        for shard, quarantine in run.checkpoint.quarantined().items()
        if quarantine.run_uid in ("", record.run_uid)
        and shard in active
        and shard not in output.committed
    }


def _signs(entries: Sequence[Entry]) -> tuple[Entry, ...]:
    """Return `_SUCCESS` and the manifest, in the order in which they go, if the first is there."""
    there = {entry.key: entry for entry in entries}
    return tuple(there[key] for key in (SUCCESS, MANIFEST) if SUCCESS in there and key in there)


def _has_begun(checkpoint: Checkpoint) -> bool:
    """Tell whether there is anything that starting over would end."""
    try:
        return checkpoint.run() is not None or bool(checkpoint.generations())
    except DamagedOutputError:
        return True


def _addition(
    run: Run,
    stored: StoredPlan,
    listing: Listing,
    identities: Mapping[str, str],
    *,
    accept_vanished: bool,
) -> Generation | None:
    """Return what the source adds to the *stored* plan, new *identities* of its files included."""
    addition = next_generation(
        run.spec,
        stored.identified(identities),
        listing.files,
        opener=opener_of(run.spec),
        accept_vanished=accept_vanished,
    )
    if addition is None and not identities:
        return None
    addition = addition or Generation(stored.facts, ())
    return replace(addition, identities=identities, place=place_of(run.spec))


def check_source(run: Run) -> Listing:
    """Return what there is in the source.

    Raises:
        InvalidSpecError: It cannot be read as the spec says, or overlaps what the run writes.
        StorageError: It cannot be listed, or there is nothing.
    """
    sink, checkpoint = run.spec.sink.uri, run.spec.checkpoint_uri
    check_apart(run.spec.source, sink, checkpoint)
    listing = list_source(run.spec.source)
    check_links(listing.links, sink, checkpoint)
    return listing


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
    in_the_way, cleared = InTheWay(), ClearedRuns(ended, sink=run.sink)
    run.ownership(record.run_uid if record else "", ended=cleared).check(entries)
    if ended:
        in_the_way = cleared.in_the_way(entries)
    else:
        check_unused(run.sink.uri, entries)
    listing = listing.read_once()
    first = first_generation(run.spec, listing.files, opener_of(run.spec))
    first = replace(first, place=place_of(run.spec))
    return Survey(
        record,
        accepted,
        first,
        StoredPlan.of([first]),
        Output({}),
        is_finished=False,
        notes=listing.notes,
        starts_over=starts_over,
        in_the_way=in_the_way,
    )


def comparer_of(spec: BatchSpec) -> Comparer:
    """Return what compares the files of *spec*, and remembers them for the next survey."""
    return Comparer(opener_of(spec), columns=spec.source.columns)


def opener_of(spec: BatchSpec) -> Opener:
    """Return what opens a source file of *spec*, pinned to the identity that was listed."""

    def opened(file: SourceFile) -> BinaryIO:
        storage, key = locate(file.uri, storage_options=spec.source.storage_options)
        return storage.open(Entry(key, file.size, file.identity))

    return opened


def _says_success(entries: Sequence[Entry]) -> bool:
    return any(entry.key == SUCCESS for entry in entries)
