"""Which stage bounds a run, and what to change: one sentence, from the clocks of its stages."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Self

from batchrunner.spec import BatchSpec, ExecutionSpec, StageSpec
from batchrunner.worker.stage_clock import StageClock, StageKind

_LEAST_SECONDS = 10.0
"""What a worker does in its first seconds says little about the rest: files are opened, caches are cold."""
_BUSY, _WAITS, _OFTEN = 0.75, 0.1, 0.25
"""Shares of its time: from when a stage counts as busy, as waiting at all, and as waiting for what is outside."""
_MOSTLY = 0.5
_COARSE = 4
_IDLE_CPU = 0.2


@dataclass(frozen=True, slots=True)
class StageSetting:
    """What the spec gives the workers of one stage, as far as advice depends on it.

    Attributes:
        num_cpus, num_gpus: Of each worker.
        batch_size: The most rows of a batch; None where it does not matter, as in mode `row`.
        most: The most workers that it may have; None for as many as fit.
    """

    num_cpus: float = 1.0
    num_gpus: float = 0.0
    batch_size: int | None = None
    most: int | None = None

    @classmethod
    def of(cls, given: ExecutionSpec | StageSpec, *, mode: str) -> Self:
        """Return what *given* gives a stage that is called in this *mode*."""
        most = given.concurrency
        return cls(
            num_cpus=1.0 if given.num_cpus is None else given.num_cpus,
            num_gpus=given.num_gpus or 0.0,
            batch_size=given.batch_size if mode == "batch" else None,
            most=most[1] if isinstance(most, tuple) else most,
        )


@dataclass(frozen=True, slots=True)
class RunSetting:
    """What the spec and the machines give a run, as far as advice depends on it.

    Attributes:
        engine: Of the spec.
        cpus: CPUs of all machines; None if they are not known.
        has_stages: Whether the capability has stages, each with fields of its own.
        stages: By name of a stage.
    """

    engine: str = "ray"
    cpus: float | None = None
    has_stages: bool = False
    stages: Mapping[str, StageSetting] = field(default_factory=dict)

    @classmethod
    def of_spec(cls, spec: BatchSpec, *, name: str) -> Self:
        """Return the setting of a run of *spec*, whose capability has the *name*, on machines not yet known."""
        engine, mode = spec.execution.engine, spec.called.mode
        cpus = os.cpu_count() if engine == "local" else None
        if not spec.stages:
            return cls(engine, cpus, stages={name: StageSetting.of(spec.execution, mode=mode)})
        of_stages = {one.called: StageSetting.of(one, mode=one.mode) for one in spec.stages}
        return cls(engine, cpus, has_stages=True, stages=of_stages)

    def of(self, clock: StageClock) -> StageSetting:
        """Return the setting of the stage of *clock*."""
        return self.stages.get(clock.name, StageSetting())

    def field(self, name: str) -> str:
        """Return how a sentence about a stage names the field *name* of the spec."""
        return f"its {name}" if self.has_stages else f"execution.{name}"


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
    found = f"reading bounds the run: {first.name} waits for rows {_per_cent(_share(first.waiting_input, first))}"
    if _waits_outside(read):
        return (
            f"{found} of its time, and the reader for the storage: bring the source nearer to the workers, or "
            f"{_more_workers(setting)}, which wait at the same time"
        )
    return (
        f"{found} of its time, and the reader computes: {_more_workers(setting)}, or store the source in a "
        "format that takes less to read, such as parquet without compression"
    )


def _of_writing(write: StageClock, last: StageClock, setting: RunSetting) -> str:
    found = (
        f"writing bounds the run: {last.name} waits {_per_cent(_share(last.waiting_output, last))}"
    )
    if _waits_outside(write):
        return (
            f"{found} of its time until its rows are written, and the writer for the storage: bring the sink nearer "
            f"to the workers, make the shards larger, or {_more_workers(setting)}"
        )
    return (
        f"{found} of its time until its rows are written, and the writer computes: {_more_workers(setting)}, or "
        "write less (fewer columns, another sink.compression)"
    )


def _waits_outside(outer: StageClock) -> bool:
    """Return whether a thread that reads or writes computes for little of its time; unknown: no."""
    return outer.cpu is not None and outer.calling > 0 and outer.cpu / outer.calling < _MOSTLY


def _more_workers(setting: RunSetting) -> str:
    if setting.engine == "local":
        return "run more workers (execution.engine: ray)"
    return "run more workers (a higher execution.concurrency, a lower execution.num_cpus)"


def _of_stage(busy: StageClock, stages: Sequence[StageClock], setting: RunSetting) -> str:
    """Return that the stage *busy* bounds the run; for one among others, only if another waits for it."""
    waits = _waiting(busy, stages)
    if len(stages) > 1 and not waits:
        return ""
    workers = f"{busy.workers} worker{'' if busy.workers == 1 else 's'}"
    with_workers = f" with {workers}" if busy.workers else ""
    found = f"{busy.name} is busy {_per_cent(_share(busy.calling, busy))} of its time{with_workers}"
    return f"{found}{waits}: {_remedy(busy, stages, setting)}"


def _waiting(busy: StageClock, stages: Sequence[StageClock]) -> str:
    """Return which stage waits most for *busy*; empty if none does for more than a moment."""
    place = stages.index(busy)
    after = {one.name: _share(one.waiting_input, one) for one in stages[place + 1 :]}
    before = {one.name: _share(one.waiting_output, one) for one in stages[:place]}
    name, share = max({**before, **after}.items(), key=lambda item: item[1], default=("", 0.0))
    if share < _WAITS:
        return ""
    what = "waits for it" if name in after else "waits until it takes more"
    return f", {name} {what} {_per_cent(share)} of its time"


def _remedy(busy: StageClock, stages: Sequence[StageClock], setting: RunSetting) -> str:
    """Return what makes the stage *busy* faster."""
    own = setting.of(busy)
    if busy.limited >= _MOSTLY * busy.calling:
        return "the rate limit holds its calls back: raise execution.rate_limit, if the service allows more"
    if own.num_gpus:
        more = f"raise {setting.field('batch_size')} while its memory lasts, or add GPUs"
        return _small_batches(busy, own) or more
    if setting.engine == "local" and not setting.has_stages:
        return "run more workers (execution.engine: ray), or make it faster"
    if busy.cpu is not None and busy.cpu < _IDLE_CPU * busy.calling:
        return (
            f"it mostly waits itself (its CPU is busy {_per_cent(busy.cpu / busy.calling)}): lower "
            f"{setting.field('num_cpus')}, so that more of them fit, or make it `async def`"
        )
    if own.most is not None and busy.workers >= own.most:
        return f"raise {setting.field('concurrency')}, which is {own.most}"
    return _more_cpus(stages, setting)


def _more_cpus(stages: Sequence[StageClock], setting: RunSetting) -> str:
    if setting.cpus is None:
        return "give it more CPUs, or make it faster"
    used = sum(one.workers * setting.of(one).num_cpus for one in stages)
    if used + 1 > setting.cpus:
        return f"all {setting.cpus:g} CPUs are in use: a larger machine or more of them, or a faster capability"
    return f"give it more CPUs: {used:g} of {setting.cpus:g} are in use"


def _of_large_batches(stages: Sequence[StageClock]) -> str:
    """Return that two stages wait for each other, since one makes far more rows at once than the next takes."""
    for one, after in pairwise(stages):
        held, starved = _share(one.waiting_output, one), _share(after.waiting_input, after)
        gives, takes = (clock.rows / max(clock.calls, 1) for clock in (one, after))
        if held >= _WAITS and starved >= _OFTEN and gives > _COARSE * takes > 0:
            return (
                f"{one.name} gets {gives:,.0f} rows a call, and {after.name} {takes:,.0f}, so that they wait for each "
                f"other ({_per_cent(held)} and {_per_cent(starved)} of their time): lower the batch_size of {one.name}"
            )
    return ""


def _of_small_batches(stages: Sequence[StageClock], setting: RunSetting) -> str:
    """Return that a stage with a GPU gets far smaller batches than it may have; empty if none does."""
    small = ((one.name, _small_batches(one, setting.of(one))) for one in stages)
    return next((f"{name}: {what}" for name, what in small if what), "")


def _small_batches(clock: StageClock, own: StageSetting) -> str:
    if not (own.num_gpus and own.batch_size and clock.calls):
        return ""
    rows = clock.rows / clock.calls
    if rows >= _MOSTLY * own.batch_size:
        return ""
    return (
        f"its GPU gets {rows:,.0f} rows a call, and batch_size is {own.batch_size:,}: set one_to_one: true if it "
        "returns one row for each, so that batches go over the ends of shards, or make the shards larger"
    )


def _per_cent(share: float) -> str:
    return f"{100 * share:.0f} %"
