"""Why a generation after the first added a shard: what changed, vanished, ended early or cannot be read.

No record says it: it follows from what the generation retires and ends, and from what it has instead.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from batchrunner.checkpoint import Generation
from batchrunner.driver.stored_plan import StoredPlan
from batchrunner.shard import Shard, Slice


class Additions:
    """The shards that the generations of a plan after the first added, each with its reason."""

    def __init__(self, plan: StoredPlan) -> None:
        retired = {shard.id: shard for shard in plan.retired}
        self._of = {
            shard.id: addition
            for addition in (_addition(one, plan, retired) for one in plan.later)
            for shard in addition.generation.shards
        }

    def why(self, shard: Shard) -> str:
        """Return why *shard* was added; "" if it is of the first generation."""
        addition = self._of.get(shard.id)
        return addition.why(shard) if addition else ""


def _addition(generation: Generation, plan: StoredPlan, retired: Mapping[int, Shard]) -> _Addition:
    gone = [retired[i] for i in generation.retired if i in retired]
    left = {i: plan.left[i] for i in generation.ended if i in plan.left}
    return _Addition(generation, gone, left)


@dataclass(frozen=True)
class _Addition:
    """A generation, the shards that it retired, and by id what it left of those that ended early."""

    generation: Generation
    retired: Sequence[Shard]
    left: Mapping[int, Sequence[Slice]]

    def why(self, shard: Shard) -> str:
        before = [piece.uri for piece in shard.slices if piece.uri in self._shards_of]
        if self._changed or self._gone:
            return (
                self._why_again(shard, before) if before else self._why_left(shard) or _new(shard)
            )
        return self._why_left(shard) or (self._why_divided(shard) if before else _new(shard))

    def _why_again(self, shard: Shard, uris: Sequence[str]) -> str:
        own = [uri for uri in dict.fromkeys(uris) if uri in self._changed]
        if own:
            return _of_files(own, shard)
        # A file that is cut may have taken other shards with it: then the cause is in none of its own.
        near = [uri for uri in self._near(uris) if uri in self._changed or uri in self._gone]
        cause = (near or [*self._changed, *self._gone])[0]
        fact = "changed" if cause in self._changed else "is no longer read"
        return f"was in a shard with a file that {fact}: {cause}"

    def _near(self, uris: Iterable[str]) -> Iterable[str]:
        shards = {shard.id: shard for uri in uris for shard in self._shards_of[uri]}
        return (piece.uri for shard in shards.values() for piece in shard.slices)

    def _why_left(self, shard: Shard) -> str:
        for origin, piece in self._left_at.get(_key(shard.first)[:4], ()):
            if _begins_in(piece, shard.first.skip):
                return f"the rest of shard {origin}, which ended early"
        return ""

    @cached_property
    def _left_at(self) -> Mapping[tuple[object, ...], Sequence[tuple[int, Slice]]]:
        found: dict[tuple[object, ...], list[tuple[int, Slice]]] = defaultdict(list)
        for origin, slices in self.left.items():
            for piece in slices:
                found[_key(piece)[:4]].append((origin, piece))
        return dict(found)

    def _why_divided(self, shard: Shard) -> str:
        """Return why *shard* came of a divided one: of its shards, the first has what can be read."""
        origin = self._origin_of.get(_key(shard.first), -1)
        first, *others = self._pieces_of.get(origin, (shard,))
        if shard.id != first.id or not others:
            return (
                "its file cannot be read" if len(shard.slices) == 1 else "its files cannot be read"
            )
        return f"was in a shard with a file that cannot be read: {others[0].first.uri}"

    @cached_property
    def _shards_of(self) -> Mapping[str, Sequence[Shard]]:
        shards: dict[str, list[Shard]] = defaultdict(list)
        for shard in self.retired:
            for piece in shard.slices:
                shards[piece.uri].append(shard)
        return dict(shards)

    @cached_property
    def _now(self) -> Mapping[str, tuple[int, str]]:
        return {
            piece.uri: (piece.size, piece.identity)
            for shard in self.generation.shards
            if shard.retries is None and shard.id not in self.generation.retired
            for piece in shard.slices
            if piece.uri in self._shards_of
        }

    @cached_property
    def _changed(self) -> Mapping[str, None]:
        """Files of retired shards that are read again and are others now, in their order."""
        pieces = (piece for shard in self.retired for piece in shard.slices)
        return {
            piece.uri: None
            for piece in pieces
            if piece.uri in self._now and self._now[piece.uri] != (piece.size, piece.identity)
        }

    @cached_property
    def _gone(self) -> Mapping[str, None]:
        """Files of retired shards that are not read again: they vanished, or have no rows now."""
        return dict.fromkeys(uri for uri in self._shards_of if uri not in self._now)

    @cached_property
    def _origin_of(self) -> Mapping[tuple[object, ...], int]:
        return {_key(piece): shard.id for shard in self.retired for piece in shard.slices}

    @cached_property
    def _pieces_of(self) -> Mapping[int, Sequence[Shard]]:
        pieces: dict[int, list[Shard]] = defaultdict(list)
        for shard in self.generation.shards:
            if (origin := self._origin_of.get(_key(shard.first))) is not None:
                pieces[origin].append(shard)
        return pieces


def _key(piece: Slice) -> tuple[object, ...]:
    return piece.uri, piece.slicing, piece.start, piece.stop, piece.skip


def _begins_in(piece: Slice, row: int) -> bool:
    return row >= piece.skip and (piece.take is None or row < piece.skip + piece.take)


def _of_files(changed: Sequence[str], shard: Shard) -> str:
    if len(shard.slices) == 1:
        return "its file changed"
    if len(changed) == 1:
        return f"one of its files changed: {changed[0]}"
    return f"{len(changed):,} of its files changed: {some_of(changed)}"


def _new(shard: Shard) -> str:
    return "its file is new" if len(shard.slices) == 1 else "its files are new"


def some_of(uris: Sequence[str]) -> str:
    """Return the first three of *uris*; dots stand for more."""
    return ", ".join([*uris[:3], *(["..."] if len(uris) > 3 else [])])
