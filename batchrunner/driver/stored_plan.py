"""The plan that the stored generations of a run make together, and the files that differ from it."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import TYPE_CHECKING, Any

from batchrunner.array_buffers import text_array
from batchrunner.checkpoint import Generation, PlanFacts
from batchrunner.checkpoint.plan_table import identified, shards_in, table_of
from batchrunner.driver.file_table import SourceFiles
from batchrunner.shard import EarlyEnd, Shard, Slice

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True, slots=True)
class StoredPlan:
    """The plan that the stored generations of a run make together.

    Attributes:
        facts: How parts are named and written, as the first generation has it.
        active: Shards whose parts are output, in the order of their ids.
        retired: Shards whose parts are no longer output.
        later: The generations after the first.
        left: By id, the slices from where a shard ended early, which later shards have.
    """

    facts: PlanFacts
    active: tuple[Shard, ...]
    retired: tuple[Shard, ...]
    later: tuple[Generation, ...]
    left: Mapping[int, Sequence[Slice]]

    @classmethod
    def of(cls, generations: Sequence[Generation]) -> StoredPlan:
        """Return the plan that *generations* make, the first one first."""
        plan = cls(generations[0].facts, (), (), (), {})
        for generation in generations:
            plan = plan.grown(generation)
        return replace(plan, later=tuple(generations[1:]))

    @property
    def generations(self) -> int:
        """How many generations are stored."""
        return 1 + len(self.later)

    @property
    def next_id(self) -> int:
        """The id of the next shard to be added."""
        return len(self.active) + len(self.retired)

    def grown(self, generation: Generation) -> StoredPlan:
        """Return the plan with one more *generation*."""
        # Those that are retired already keep the identities under which they were read.
        whole = _identified(self.active, generation.identities)
        shards, gone = _ended(whole, generation.ended) + generation.shards, set(generation.retired)
        retired = (*self.retired, *(shard for shard in shards if shard.id in gone))
        return StoredPlan(
            self.facts,
            tuple(shard for shard in shards if shard.id not in gone) if gone else shards,
            tuple(sorted(retired, key=lambda shard: shard.id)),
            (*self.later, generation),
            {**self.left, **_left(whole, generation.ended)},
        )

    def with_retries(self, ids: Collection[int]) -> tuple[int, ...]:
        """Return *ids*, and those of the active shards that retry dead letters of one of them, and so on."""
        found = set(ids)
        # In the order of ids: a shard of dead letters comes after the one that they are of.
        for shard in self.active:
            if shard.retries in found:
                found.add(shard.id)
        return tuple(sorted(found))

    def slices(self) -> Iterator[Slice]:
        """Yield the slices of the active shards."""
        return chain.from_iterable(shard.slices for shard in self.active)

    def table(self) -> pa.Table:
        """Return the slices of the active shards as a table, with the id of the shard of each."""
        return table_of(self.active)

    def is_of(self, files: SourceFiles) -> bool:
        """Return whether *files* are the planned ones as they were, in the same order.

        That is so for most sessions of a source that was cut into whole files, and costs little to see.
        """
        plan, names = self.table(), ("uri", "size", "identity")
        return len(plan) == len(files) and all(
            plan.column(name).equals(files.column(name)) for name in names
        )

    def planned(self, uris: Sequence[str]) -> frozenset[str]:
        """Return which of *uris* are files of active shards."""
        import pyarrow.compute as pc

        if not uris:
            return frozenset()
        some = text_array(uris)
        known = pc.is_in(some, value_set=self.table().column("uri"))
        return frozenset(some.filter(known).to_pylist())

    def identified(self, identities: Mapping[str, str]) -> StoredPlan:
        """Return the plan with new *identities*, by URI, of files whose bytes did not change."""
        return replace(self, active=_identified(self.active, identities))


def _ended(shards: tuple[Shard, ...], ended: Mapping[int, EarlyEnd]) -> tuple[Shard, ...]:
    if not ended:
        return shards
    return tuple(s.until(ended[s.id]) if s.id in ended else s for s in shards)


def _left(shards: tuple[Shard, ...], ended: Mapping[int, EarlyEnd]) -> dict[int, Sequence[Slice]]:
    some = (s for s in shards if s.id in ended) if ended else ()
    # With the last slice that it read if it read that in part.
    return {s.id: s.slices[ended[s.id].slices - bool(ended[s.id].rows) :] for s in some}


def _identified(shards: tuple[Shard, ...], identities: Mapping[str, str]) -> tuple[Shard, ...]:
    if not shards or not identities:
        return shards
    return tuple(shards_in(identified(table_of(shards), identities)))


@dataclass(frozen=True, slots=True)
class Differences:
    """How the files of a source differ from those of a plan.

    Attributes:
        vanished: URIs of planned files that are not in the source.
        retired: Ids of the shards that read a file which changed or vanished.
        to_cut: The files that need shards: new, changed, or in a retired shard with such a file.
    """

    vanished: Sequence[str]
    retired: tuple[int, ...]
    to_cut: SourceFiles


def differences(stored: StoredPlan, files: SourceFiles) -> Differences:
    """Compare *files* with the *stored* plan, column by column: there may be a million."""
    import pyarrow.compute as pc

    if stored.is_of(files):
        return Differences((), (), files[:0])
    plan = stored.table()
    at = pc.index_in(plan.column("uri"), value_set=files.column("uri"))
    gone = pc.is_null(at)
    stale, retired = _with_their_shards(plan, pc.or_kleene(gone, _differ(plan, files, at)))
    planned = pc.index_in(files.column("uri"), value_set=plan.column("uri"))
    needed = pc.or_(
        pc.is_null(planned),
        pc.is_in(files.column("uri"), value_set=plan.filter(stale).column("uri")),
    )
    vanished = plan.filter(gone).column("uri").unique()
    return Differences(vanished.to_pylist(), tuple(retired), files.where(needed))


def changed_files(stored: StoredPlan, files: SourceFiles) -> list[str]:
    """Return the URIs of the *files* that are planned and are others now, by size or identity."""
    import pyarrow.compute as pc

    if stored.is_of(files):
        return []
    plan = stored.table()
    at = pc.index_in(plan.column("uri"), value_set=files.column("uri"))
    differ = pc.fill_null(_differ(plan, files, at), fill_value=False)
    return plan.filter(differ).column("uri").unique().to_pylist()  # type: ignore[no-any-return]


def _differ(plan: pa.Table, files: SourceFiles, at: Any) -> Any:
    """Return, for each slice of *plan*, whether the file *at* that number is another one now."""
    import pyarrow.compute as pc

    size, identity = (
        pc.not_equal(plan.column(name), files.column(name).take(at))
        for name in ("size", "identity")
    )
    return pc.or_(size, identity)


def _with_their_shards(plan: pa.Table, stale: Any) -> tuple[Any, list[int]]:
    """Return which slices of *plan* are to be read again if those that are *stale* are, and their shards.

    A shard of several files takes the others with it: its part has their rows, too.
    """
    import pyarrow.compute as pc

    count = -1
    while count < (now := pc.sum(stale).as_py() or 0):  # a cut file may link a shard to others
        count = now
        retired = plan.filter(stale).column("id").unique()
        of_retired = plan.filter(pc.is_in(plan.column("id"), value_set=retired))
        stale = pc.is_in(plan.column("uri"), value_set=of_retired.column("uri"))
    return stale, sorted(plan.filter(stale).column("id").unique().to_pylist())
