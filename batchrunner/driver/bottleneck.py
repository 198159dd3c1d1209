"""Which stage bounds a run, and what to change: one sentence, from the clocks of its stages."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from batchrunner.driver.remedy import (
    more_readers,
    per_cent,
    remedy,
    small_batches,
)
from batchrunner.driver.run_setting import RunSetting
from batchrunner.worker.stage_clock import StageClock, StageKind

_LEAST_SECONDS = 10.0
"""What a worker does in its first seconds says little about the rest: files are opened, caches are cold."""
_BUSY, _WAITS, _OFTEN = 0.75, 0.1, 0.25
"""Shares of its time: from when a stage counts as busy, as waiting at all, and as waiting for what is outside."""
_MOSTLY = 0.5
_COARSE = 4


def advice(clocks: Sequence[StageClock], setting: RunSetting) -> str:
    """Return what bounds the run and what to change, in the words of the spec; empty if that is not clear.

    That is: the stage whose workers are busy nearly all of their time while others wait for it, or the
    reading or writing for which the stages next to it wait while it is busy itself. *clocks* are those of the
    reading, the stages in their order, and the writing.
    """
    stages = [clock for clock in clocks if clock.kind is StageKind.STAGE]
    if not stages or any(_worker_seconds(clock) < _LEAST_SECONDS for clock in stages):
        return ""
    outer = {clock.kind: clock for clock in clocks if clock.kind is not StageKind.STAGE}
    first, last = stages[0], stages[-1]
    read, write = outer.get(StageKind.READ), outer.get(StageKind.WRITE)
    if read and _is_bound(read, _share(first.waiting_input, first)):
        return _of_reading(read, first, setting)
    if write and _is_bound(write, _share(last.waiting_output, last)):
        return _of_writing(write, last, setting)
    busiest = max(stages, key=lambda clock: _share(clock.calling, clock))
    if _share(busiest.calling, busiest) < _BUSY:
        return _of_large_batches(stages) or _of_small_batches(stages, setting)
    return _of_stage(busiest, stages, setting)


def _worker_seconds(clock: StageClock) -> float:
    return clock.running / max(clock.workers, 1)


def _share(seconds: float, clock: StageClock) -> float:
    """Return *seconds* as a share of the time of workers that were ready, from 0 to 1."""
    return min(seconds / clock.running, 1.0) if clock.running > 0 else 0.0


def _is_bound(outer: StageClock, waits: float) -> bool:
    """Return whether the stage that *waits* for such a share does so for *outer*, which works meanwhile.

    If that waits as well, the cause is elsewhere: a worker without shards, a driver that takes no receipts.
    """
    return waits >= _OFTEN and _share(outer.calling, outer) >= _MOSTLY * waits


def _of_reading(read: StageClock, first: StageClock, setting: RunSetting) -> str:
    share = per_cent(_share(first.waiting_input, first))
    found = f"reading bounds the run: {first.name} waits for rows {share} of its time"
    waits = _waits_outside(read)
    more = more_readers(first, setting, wait=waits)
    if waits:
        ways = ["bring the source nearer to the workers", *more]
        return f"{found}, and the reader for the storage: {', or '.join(ways)}"
    ways = [*more, "store the source in a format that takes less to read, such as parquet"]
    return f"{found}, and the reader computes: {', or '.join(ways)}"


def _of_writing(write: StageClock, last: StageClock, setting: RunSetting) -> str:
    share = per_cent(_share(last.waiting_output, last))
    found = (
        f"writing bounds the run: {last.name} waits {share} of its time until its rows are written"
    )
    waits = _waits_outside(write)
    more = more_readers(last, setting, wait=waits)
    if waits:
        has_few = setting.lacks_shards(setting.readers if setting.has_stages else last.workers)
        larger = [] if has_few else ["make the shards larger (source.shard)"]
        ways = ["bring the sink nearer to the workers", *larger, *more]
        return f"{found}, and the writer for the storage: {', or '.join(ways)}"
    ways = [*more, "write less (fewer columns, another sink.compression)"]
    return f"{found}, and the writer computes: {', or '.join(ways)}"


def _waits_outside(outer: StageClock) -> bool:
    """Return whether a thread that reads or writes computes for little of its time; unknown: no."""
    if outer.cpu is None or outer.calling <= 0:
        return False
    return (outer.cpu + outer.cpu_wait) / outer.calling < _MOSTLY


def _of_stage(busy: StageClock, stages: Sequence[StageClock], setting: RunSetting) -> str:
    """Return that the stage *busy* bounds the run; for one among others, only if another waits for it."""
    waits = _waiting(busy, stages)
    if len(stages) > 1 and not waits:
        return ""
    workers = f"{busy.workers} worker{'' if busy.workers == 1 else 's'}"
    with_workers = f" with {workers}" if busy.workers else ""
    found = f"{busy.name} is busy {per_cent(_share(busy.calling, busy))} of its time{with_workers}"
    return f"{found}{waits}: {remedy(busy, stages, setting)}"


def _waiting(busy: StageClock, stages: Sequence[StageClock]) -> str:
    """Return which stage waits most for *busy*; empty if none does for more than a moment."""
    place = stages.index(busy)
    after = {one.name: _share(one.waiting_input, one) for one in stages[place + 1 :]}
    before = {one.name: _share(one.waiting_output, one) for one in stages[:place]}
    name, share = max({**before, **after}.items(), key=lambda item: item[1], default=("", 0.0))
    if share < _WAITS:
        return ""
    what = "waits for it" if name in after else "waits until it takes more"
    return f", {name} {what} {per_cent(share)} of its time"


def _of_large_batches(stages: Sequence[StageClock]) -> str:
    """Return that two stages wait for each other, since one makes far more rows at once than the next takes."""
    for one, after in pairwise(stages):
        held, starved = _share(one.waiting_output, one), _share(after.waiting_input, after)
        gives, takes = (clock.rows / max(clock.calls, 1) for clock in (one, after))
        if held >= _WAITS and starved >= _OFTEN and gives > _COARSE * takes > 0:
            return (
                f"{one.name} gets {gives:,.0f} rows a call, and {after.name} {takes:,.0f}, so that they wait for each "
                f"other ({per_cent(held)} and {per_cent(starved)} of their time): lower the batch_size of {one.name}"
            )
    return ""


def _of_small_batches(stages: Sequence[StageClock], setting: RunSetting) -> str:
    """Return that a stage with a GPU gets far smaller batches than it may have; empty if none does."""
    small = ((one.name, small_batches(one, setting)) for one in stages)
    return next((f"{name}: {what}" for name, what in small if what), "")
