"""Trying again: which rows that were set aside become new shards."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from batchrunner.checkpoint import Generation, Sentinel
from batchrunner.plan.planning import StoredPlan
from batchrunner.shard import Shard, Slicing


@dataclass(frozen=True, slots=True)
class Again:
    """What to try again besides the shards that are set apart.

    Attributes:
        rows: Also the rows set aside.
        mended: Code that changed is the mended one, and accepted as that.
    """

    rows: bool
    mended: bool = True


def with_letters(
    addition: Generation | None, plan: StoredPlan, committed: Mapping[int, Sentinel]
) -> Generation | None:
    """Return *addition* with a shard for every one of *plan* that set rows aside.

    Rows that have such a shard already are that shard's: it, too, may set rows aside.
    """
    taken = {shard.start for shard in plan.active if shard.slicing is Slicing.LETTERS}
    first_id = len(plan.active) + len(plan.retired)
    origins = [
        (shard, committed[shard.id])
        for shard in plan.active
        if shard.id in committed and committed[shard.id].rows_failed and shard.id not in taken
    ]
    letters = tuple(
        _shard(origin, sentinel, shard_id)
        for shard_id, (origin, sentinel) in enumerate(origins, start=first_id)
    )
    if addition is None:
        return Generation(plan.facts, letters) if letters else None
    return replace(addition, shards=(*addition.shards, *letters))


def _shard(origin: Shard, sentinel: Sentinel, shard_id: int) -> Shard:
    rows = sentinel.rows_failed
    return Shard(
        id=shard_id,
        uri=origin.uri,
        slicing=Slicing.LETTERS,
        start=origin.id,
        stop=rows,
        size=origin.size,
        identity=origin.identity,
        rows=rows,
        weight=origin.weight * rows // max(sentinel.rows_in, 1),
    )
