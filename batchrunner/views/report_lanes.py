"""What each worker of a run did when, in lanes on an axis of time."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from batchrunner.checkpoint import Sentinel
from batchrunner.views.report_times import Axis

MOST_LANES = 32
_MOST_BLOCKS = 5_000
_NEAR = 1 / 1000
"""Blocks of a lane that are nearer than this share of the axis are drawn as one: on a screen they are one."""
_NEAR_FAILURES = 1 / 250
"""The same for the marks of failed rows, which are wider."""


@dataclass(frozen=True, slots=True)
class Block:
    """What one worker did for a while: an attempt, or several that are too near to be two on a screen.

    Attributes:
        lane: Number of its worker.
        start, stop: On the axis.
        shards: How many attempts it is.
        shard: Id of the first one.
        failed: How many rows failed in them.
    """

    lane: int
    start: float
    stop: float
    shards: int
    shard: int
    failed: int


@dataclass(frozen=True, slots=True)
class Lanes:
    """The workers of a run, the first one first, and what each did when.

    Attributes:
        workers: Their names; only the busiest, if there are many.
        blocks: What they did.
        failures: Lane and place on the axis of attempts in which rows failed; of those that are too
            near to be two on a screen, the first.
        left_out: How many workers are left out.
    """

    workers: tuple[str, ...]
    blocks: tuple[Block, ...]
    failures: tuple[tuple[int, float], ...]
    left_out: int


def lanes_of(axis: Axis, sentinels: Sequence[Sentinel]) -> Lanes:
    """Return the lanes of the workers of *sentinels*, which are in the order of their times."""
    busy: dict[str, float] = {}
    for one in sentinels:
        busy[one.worker] = busy.get(one.worker, 0.0) + one.seconds
    busiest = set(sorted(busy, key=lambda worker: -busy[worker])[:MOST_LANES])
    workers = [worker for worker in busy if worker in busiest]
    lane = {worker: number for number, worker in enumerate(workers)}
    drawn = [_block(axis, one, lane[one.worker]) for one in sentinels if one.worker in lane]
    failures = {
        (b.lane, int(b.stop / max(axis.length, 1e-9) / _NEAR_FAILURES)): b
        for b in drawn
        if b.failed
    }
    return Lanes(
        tuple(workers),
        _joined_where_near(drawn, near=axis.length * _NEAR if len(drawn) > _MOST_BLOCKS else 0.0),
        tuple((block.lane, block.stop) for block in failures.values()),
        len(busy) - len(workers),
    )


def _joined_where_near(blocks: Iterable[Block], *, near: float) -> tuple[Block, ...]:
    last: dict[int, int] = {}
    joined: list[Block] = []
    for block in blocks:
        at = last.get(block.lane)
        if near and at is not None and block.start - joined[at].stop < near:
            joined[at] = _joined(joined[at], block)
        else:
            last[block.lane] = len(joined)
            joined.append(block)
    return tuple(joined)


def _block(axis: Axis, one: Sentinel, lane: int) -> Block:
    start, stop = axis.at(one.began), axis.at(one.began + one.seconds)
    return Block(lane, start, stop, 1, one.shard, one.rows_failed)


def _joined(first: Block, other: Block) -> Block:
    stop, shards = max(first.stop, other.stop), first.shards + 1
    return Block(first.lane, first.start, stop, shards, first.shard, first.failed + other.failed)
