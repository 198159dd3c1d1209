"""Divides shards of several files of which some cannot be read: a damaged file costs itself alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from batchrunner.checkpoint import Generation
from batchrunner.checkpoint.plan_table import FEW_SLICES
from batchrunner.driver.stored_plan import StoredPlan
from batchrunner.shard import Shard, Slice, SliceTable
from batchrunner.worker.receipt import Cause, Failure

MOST_ALONE = 1000
"""With more damaged files than this, those of a shard stay together: the spec is wrong, not the files."""


def divided(plan: StoredPlan, failures: Mapping[int, Failure]) -> Generation | None:
    """Return the generation that divides the shards of *plan* whose *failures* name unreadable slices.

    Each such shard is retired, and with it the shards of its dead letters. The slices that can be read make
    one new shard, and each other slice one of its own. None if no shard has to be divided.
    """
    to_divide = {
        shard: failures[shard.id].unreadable
        for shard in plan.active
        if shard.id in failures and _is_divisible(shard, failures[shard.id])
    }
    alone = sum(map(len, to_divide.values())) <= MOST_ALONE
    if not alone:  # one with nothing that can be read would be divided into itself
        to_divide = {s: bad for s, bad in to_divide.items() if len(bad) < len(s.slices)}
    if not to_divide:
        return None
    pieces = (some for shard, bad in to_divide.items() for some in _pieces(shard, bad, alone=alone))
    shards = tuple(Shard(id_, some) for id_, some in enumerate(pieces, start=plan.next_id))
    return Generation(plan.facts, shards, plan.with_retries({shard.id for shard in to_divide}))


def _is_divisible(shard: Shard, failure: Failure) -> bool:
    # If storage refuses all files, that is no damage of theirs: another session may be allowed to read.
    refused = failure.cause is Cause.STORAGE and len(failure.unreadable) == len(shard.slices)
    return bool(failure.unreadable) and not refused


def _pieces(shard: Shard, bad: Sequence[int], *, alone: bool) -> Iterator[Sequence[Slice]]:
    """Yield the slices of each shard that comes of *shard*: first those that can be read."""
    numbers = frozenset(bad)
    good: list[Slice] = []
    rest: list[Slice] = []
    for number, piece in enumerate(shard.slices):
        (rest if number in numbers else good).append(piece)
    together = [good, *([piece] for piece in rest)] if alone else [good, rest]
    yield from (_kept(some) for some in together if some)


def _kept(slices: Sequence[Slice]) -> Sequence[Slice]:
    return SliceTable.of(slices) if len(slices) > FEW_SLICES else tuple(slices)
