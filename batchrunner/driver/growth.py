"""Computes what a session adds to the stored plan: shards of files and of dead letters."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from batchrunner.checkpoint import Generation, Sentinel
from batchrunner.driver.additions import some_of
from batchrunner.driver.cutting import rest_of
from batchrunner.driver.file_table import SourceFile, SourceFiles
from batchrunner.driver.moving import place_of
from batchrunner.driver.plan import next_generation
from batchrunner.driver.run import Run
from batchrunner.driver.source_files import Listing
from batchrunner.driver.stored_plan import StoredPlan, changed_files
from batchrunner.formats.registry import format_named
from batchrunner.shard import Shard, Slice, Slicing
from batchrunner.spec import SourceSpec


@dataclass(frozen=True, slots=True)
class Retry:
    """What `retry` runs again besides the quarantined shards.

    Attributes:
        rows: Whether to run the dead letters again, too.
        mended: Whether to accept changed code, as the fix that the retry follows.
    """

    rows: bool
    mended: bool = True


@dataclass(frozen=True, slots=True)
class Growth:
    """The generations of a run as stored, and the one that this session adds.

    Attributes:
        generations: The stored generations, with URIs as of where the run is now.
        plan: The plan that the stored generations and the addition make together.
        addition: The generation to add; None if there is nothing to add.
        notes: Warnings about the source, for the user.
        changed: Which planned files changed since the last session, as one of the *notes*; "" for none.
    """

    generations: Sequence[Generation]
    plan: StoredPlan
    addition: Generation | None = None
    notes: tuple[str, ...] = ()
    changed: str = ""

    def adding(self, addition: Generation | None) -> Growth:
        """Return the growth with *addition* in place of its own; unchanged if that is None."""
        if addition is None:
            return self
        plan = StoredPlan.of([*self.generations, addition])
        return replace(self, addition=addition, plan=plan)


def notes_on_cut(source: SourceSpec, files: Iterable[SourceFile]) -> tuple[str, ...]:
    """Return a note if *source* asks for small shards of *files* that cannot be cut."""
    wanted = source.shard
    if wanted is None or wanted.bytes is None:
        return ()
    large = [file for file in files if file.size > wanted.bytes]
    compressed = [file for file in large if file.kind.compression]
    whole = [file for file in large if not file.kind.compression]
    uncut = [file for file in whole if not format_named(file.kind.format).cuts_by_bytes]
    notes = (
        _whole(
            compressed,
            "compressed files cannot be cut by bytes",
            "`source.shard: {rows: …}` cuts them",
        ),
        _whole(uncut, "files cannot be cut by bytes", "`source.shard: {rows: …}` cuts them"),
    )
    return tuple(filter(None, notes))


def _whole(files: Sequence[SourceFile], what: str, way_out: str) -> str:
    if not files:
        return ""
    return (
        f"source.shard: {len(files):,} {what}, and each is one shard, as {files[0].uri}: a kill costs "
        f"its whole work. {way_out}"
    )


def growth_of(
    run: Run,
    generations: Sequence[Generation],
    listing: Listing,
    committed: Mapping[int, Sentinel],
    *,
    accept_vanished: bool,
) -> Growth:
    """Return the growth of the stored *generations* by new, changed and vanished files.

    And by the rest of shards that ended early, if an earlier session could not add it.

    Reads committed files whose time differs from the plan, and what the cut of new files needs.

    Raises:
        InputChangedError: A file vanished, and *accept_vanished* is not set.
        InvalidSpecError: The files cannot be cut, or the parts cannot be written, as the spec says.
    """
    stored = StoredPlan.of(generations)
    # First: hashes in the sentinel of a shard that ended early are of the slices that it read.
    rest = rest_of(stored, committed, spec=run.spec)
    whole = StoredPlan.of([*generations, rest]) if rest else stored
    listing = listing.read_once(whole.planned)
    comparison = run.comparer.compare(whole, listing.files, committed)
    whole = whole.identified(comparison.same)
    addition = next_generation(
        run.spec,
        whole,
        listing.files,
        slicer=run.slicer,
        accept_vanished=accept_vanished,
    )
    if rest is not None:
        addition = _with_rest(whole, rest, addition)
    if comparison.same:
        # Stored even if nothing else is added, or each session would compare the bytes again.
        addition = replace(addition or _nothing(stored), identities=comparison.same)
    changed = _changed(changed_files(whole, SourceFiles.of(listing.files)))
    notes = (*listing.notes, *comparison.notes(), *filter(None, [changed]))
    growth = Growth(generations, stored, notes=notes, changed=changed)
    return growth.adding(_placed(run, addition))


def _changed(uris: Sequence[str]) -> str:
    if not uris:
        return ""
    return f"{len(uris):,} file{'' if len(uris) == 1 else 's'} changed: {some_of(uris)}"


def _with_rest(plan: StoredPlan, rest: Generation, addition: Generation | None) -> Generation:
    """Return *addition* with *rest* before it, whose shards *plan* has with their present identities."""
    ids = {shard.id for shard in rest.shards}
    shards = tuple(shard for shard in plan.active if shard.id in ids)
    added = addition or _nothing(plan)
    return replace(added, shards=(*shards, *added.shards), ended=rest.ended)


def with_dead_letters(run: Run, growth: Growth, committed: Mapping[int, Sentinel]) -> Growth:
    """Return *growth* with a shard for the dead letters of each committed shard that has some."""
    shards = _dead_letter_shards(growth.plan, committed)
    if not shards:
        return growth
    addition = growth.addition or _nothing(growth.plan)
    return growth.adding(_placed(run, replace(addition, shards=(*addition.shards, *shards))))


def with_empty_generation(run: Run, growth: Growth) -> Growth:
    """Return *growth* with at least an empty generation, which records an accepted change."""
    return growth if growth.addition else growth.adding(_placed(run, _nothing(growth.plan)))


def _nothing(plan: StoredPlan) -> Generation:
    return Generation(plan.facts, ())


def _placed(run: Run, addition: Generation | None) -> Generation | None:
    return addition and replace(addition, place=place_of(run.spec))


def _dead_letter_shards(plan: StoredPlan, committed: Mapping[int, Sentinel]) -> tuple[Shard, ...]:
    """Return a shard for the dead letters of each shard of *plan* that has no such shard yet.

    If it has one, that shard retries the dead letters; rows that fail again are its own dead
    letters.
    """
    retried = {shard.retries for shard in plan.active}
    origins = [
        shard
        for shard in plan.active
        if shard.id in committed and committed[shard.id].rows_failed and shard.id not in retried
    ]
    return tuple(
        _dead_letter_shard(origin, committed[origin.id], shard_id)
        for shard_id, origin in enumerate(origins, start=plan.next_id)
    )


def _dead_letter_shard(origin: Shard, sentinel: Sentinel, shard_id: int) -> Shard:
    rows = sentinel.rows_failed
    weight = origin.weight * rows // max(sentinel.rows_in, 1)
    # All of its files, since its dead letters are read only when they are retried.
    others = (_retried(piece, origin.id, rows=0, weight=0) for piece in origin.slices[1:])
    return Shard(shard_id, (_retried(origin.first, origin.id, rows=rows, weight=weight), *others))


def _retried(piece: Slice, origin: int, *, rows: int, weight: int) -> Slice:
    # Positions of dead letters are those in their file, whatever window of it their shard had.
    return replace(
        piece,
        slicing=Slicing.DEAD_LETTERS,
        start=origin,
        stop=rows,
        rows=rows,
        weight=weight,
        skip=0,
        take=None,
    )
