"""What makes a stage faster that bounds its run, in the words of the spec."""

from __future__ import annotations

from collections.abc import Sequence

from batchrunner.driver.run_setting import RunSetting, StageSetting
from batchrunner.spec.rates import rate_of
from batchrunner.worker.stage_clock import StageClock

_MOSTLY = 0.5
_LEAST_CPUS = 0.1
_LARGER = "take a larger machine or more of them"
_OF_FUNCTIONS = (".preprocess", ".postprocess")
"""Steps that call a function of the user's, which no concurrency of the configuration is for."""
_ADMITTED = 0.6
"""Share of the calls that a limit must have admitted which brings rows; else others were in vain."""


def remedy(busy: StageClock, stages: Sequence[StageClock], setting: RunSetting) -> str:
    """Return what makes *busy* faster, one of the *stages* of a run."""
    own = setting.of(busy)
    if own.limit and busy.limited >= _MOSTLY * busy.calling:
        return _of_limit(busy, own, setting)
    if busy.loading >= _MOSTLY * busy.seconds:
        share = per_cent(busy.loading / busy.seconds)
        return f"its workers have loaded for {share} of their time, as more of them would: load less, or faster"
    if _lacks_cpu(busy, setting):
        share = per_cent(min(_of_one(busy.cpu_wait, busy, setting) / busy.calling, 1.0))
        return f"its machine is full, for it waits for a CPU {share} of that: {_LARGER}, or run less beside it"
    if own.num_gpus:
        return small_batches(busy, setting) or _of_gpu(busy, stages, setting)
    if _waits(busy, setting):
        share = per_cent(_of_one(busy.cpu or 0.0, busy, setting) / busy.calling)
        return (
            f"it mostly waits itself (its CPU is busy {share}): {_of_waits(busy, stages, setting)}"
        )
    return _of_local(setting) if setting.is_local else _of_cpus(busy, stages, setting)


def small_batches(clock: StageClock, setting: RunSetting) -> str:
    """Return that a stage with a GPU gets far smaller batches than it may have, if the spec can change that."""
    own = setting.of(clock)
    if not (own.num_gpus and own.batch_size and clock.calls):
        return ""
    rows = clock.rows / clock.calls
    if rows >= _MOSTLY * own.batch_size or (own.one_to_one and setting.has_stages):
        return ""
    larger = "make the shards larger (source.shard)"
    over_ends = (
        f"set {setting.field('one_to_one')}: true if it returns one row for each, so that batches go over the ends "
        f"of shards"
    )
    ways = [] if own.one_to_one else [over_ends]
    ways += [] if setting.has_stages else [larger]
    return (
        f"its GPU gets {rows:,.0f} rows a call, and batch_size is {own.batch_size:,}: "
        f"{', or '.join(ways)}"
    )


def more_shards(setting: RunSetting) -> str:
    """Return that each worker has a shard of its own, and what to do about that."""
    are = "is 1 shard" if setting.shards == 1 else f"are {setting.shards} shards"
    return f"there {are}, each for one worker: cut the source smaller (source.shard; a compressed file is one)"


def more_readers(stage: StageClock, setting: RunSetting, *, wait: bool) -> list[str]:
    """Return how more workers could read and write beside those of *stage*, as some *wait*; nothing if they cannot."""
    if setting.has_stages:
        return _more_readers_of_stages(setting)
    ray = "run more workers (execution.engine: ray)"
    if setting.lacks_shards(stage.workers):
        return [f"{more_shards(setting)}, and {ray}" if setting.is_local else more_shards(setting)]
    if not setting.is_local:
        more = _more_on_ray(stage, [stage], setting, wait=wait)
        return [more] if more else [] if wait else [_LARGER]
    if setting.has_one_cpu:
        return [f"{ray[:-1]}, with a lower execution.num_cpus)"] if wait else []
    return [ray]


def _more_readers_of_stages(setting: RunSetting) -> list[str]:
    if setting.lacks_shards(setting.readers):
        return [more_shards(setting)]
    more = setting.readers + 1
    ray = "execution.engine: ray, " if setting.is_local else ""
    each = f"execution.concurrency: {more}, and for each stage a concurrency of its own that {more} divides"
    return [f"have {more} workers read and write ({ray}{each})"]


def _more_on_ray(
    stage: StageClock, stages: Sequence[StageClock], setting: RunSetting, *, wait: bool
) -> str:
    """Return how *stage* gets more workers on the machines that there are; empty if they have no room.

    Where they *wait* they need little of a CPU.
    """
    own = setting.of(stage)
    is_capped = own.most is not None and stage.workers >= own.most
    concurrency = f"raise {setting.field('concurrency')}, which is {own.most}{_multiple(setting)}"
    has_room = setting.cpus is None or _cpus_in_use(stages, setting) + own.num_cpus <= setting.cpus
    if is_capped and has_room:
        return concurrency
    is_bound_otherwise = own.reserves_more or own.num_gpus or own.num_cpus <= _LEAST_CPUS
    if not wait or is_bound_otherwise:
        return ""
    # A stage that does not say how many has one, or less on a small cluster.
    now = "" if setting.has_stages else f", which is {own.num_cpus:g}"
    lower = f"lower {setting.field('num_cpus')}{now}, so that more of them fit"
    return f"{concurrency}, and {lower}" if is_capped else lower


def per_cent(share: float) -> str:
    return f"{100 * share:.0f} %"


def _cpus_in_use(stages: Sequence[StageClock], setting: RunSetting) -> float:
    return sum(_workers(one, setting) * setting.of(one).num_cpus for one in stages)


def _workers(stage: StageClock, setting: RunSetting) -> int:
    """Return how many workers *stage* has at a time: a function with a GPU gets a new process for each task of Ray's."""
    most = setting.of(stage).most
    return stage.workers if most is None else min(stage.workers, most)


def _of_limit(busy: StageClock, own: StageSetting, setting: RunSetting) -> str:
    """Return how near to its limit the stage is: whether a higher one, or nothing, would help."""
    limit, seconds = own.limit, setting.seconds
    assert limit is not None  # noqa: S101 - for mypy
    made = {"requests": busy.calls if own.batch_size else busy.rows, "tokens": setting.tokens}
    shares = {
        name: made[name] * rate_of(text).seconds / (seconds * rate_of(text).amount)
        for name in made
        if seconds and (text := getattr(limit, name))
    }
    field = setting.field("rate_limit")
    name = max(shares, key=lambda one: shares[one], default="")
    limited = busy.limited / busy.running
    if name and shares[name] >= _ADMITTED * limited:
        return (
            f"the rate limit holds its calls back, at {per_cent(shares[name])} of {getattr(limit, name)}: raise "
            f"{field}.{name}, if the service allows more"
        )
    if limit.in_flight is not None:
        return (
            f"the rate limit holds its calls back: raise {field}.in_flight, which is {limit.in_flight}, if the "
            "service allows more"
        )
    if not name:
        return f"the rate limit holds its calls back: raise {field}, if the service allows more"
    return (
        f"its calls wait for the service, at {per_cent(shares[name])} of {field}.{name}, {getattr(limit, name)}: it "
        "refuses calls (429) or fails them, and a higher limit brings no more answers"
    )


def _of_gpu(busy: StageClock, stages: Sequence[StageClock], setting: RunSetting) -> str:
    own = setting.of(busy)
    used = sum(_workers(one, setting) * setting.of(one).num_gpus for one in stages)
    others = (
        "run more workers on other GPUs (execution.engine: ray)" if setting.is_local else "add GPUs"
    )
    if setting.gpus is not None and used + own.num_gpus <= setting.gpus:  # only Ray knows of any
        if not setting.has_stages and setting.lacks_shards(busy.workers):
            return more_shards(setting)
        if more := _more_on_ray(busy, stages, setting, wait=False):
            return f"{used:g} of {setting.gpus:g} GPUs are in use: {more}"
    if own.batch_size:
        size = f"raise {setting.field('batch_size')}, which is {own.batch_size:,}, while its memory lasts"
    else:
        size = f"give it batches ({setting.field('mode')}: batch), or {_in_flight(own, setting)}"
    return f"{size}, or {others}"


def _waits(busy: StageClock, setting: RunSetting) -> bool:
    if busy.cpu is None:
        return False
    return _of_one(busy.cpu + busy.cpu_wait, busy, setting) < _MOSTLY * busy.calling


def _lacks_cpu(busy: StageClock, setting: RunSetting) -> bool:
    """Return whether it waits for a CPU for most of the time, and longer than it has one."""
    waits = _of_one(busy.cpu_wait, busy, setting)
    return busy.calling > 0 and waits >= max(_MOSTLY * busy.calling, busy.cpu or 0.0)


def _of_one(cpu: float, busy: StageClock, setting: RunSetting) -> float:
    """Return the *cpu* time to compare with `calling`: the threads of one process share a CPU, as they share the GIL."""
    return cpu * (max(busy.workers, 1) if setting.is_local else 1)


def _of_waits(busy: StageClock, stages: Sequence[StageClock], setting: RunSetting) -> str:
    own = setting.of(busy)
    if own.is_step:
        return _of_step(busy)
    ways = [_in_flight(own, setting)]
    if setting.is_local and setting.has_stages:
        ways.insert(0, f"raise {setting.field('concurrency')}, which is {own.most or 1}")
    lacks_shards = not setting.has_stages and setting.lacks_shards(busy.workers)
    if not setting.is_local and not lacks_shards:
        ways.insert(0, _more_on_ray(busy, stages, setting, wait=True))
    return ", or ".join(way for way in ways if way)


def _of_step(busy: StageClock) -> str:
    """Return what helps a step of a processor that waits: Ray's code makes its calls, as its configuration says."""
    if busy.name.endswith(_OF_FUNCTIONS):
        return "do what it waits for in a stage of its own, which may be `async def`"
    return "raise concurrency in the configuration of the processor"


def _in_flight(own: StageSetting, setting: RunSetting) -> str:
    raised = f"raise {setting.field('max_concurrency')}, which is {own.max_concurrency}"
    return f"have more calls in flight (make it `async def`, and {raised})"


def _multiple(setting: RunSetting) -> str:
    return f" (to a multiple of {setting.readers})" if setting.readers > 1 else ""


def _of_local(setting: RunSetting) -> str:
    """Return what helps a stage that computes in the one process of this engine, where threads share a CPU."""
    if setting.has_one_cpu:
        return "make it faster, or take a machine with more CPUs and execution.engine: ray"
    if not setting.has_stages and setting.lacks_shards(1):
        return f"{more_shards(setting)}, and run more workers (execution.engine: ray)"
    return "run more workers (execution.engine: ray), or make it faster"


def _of_cpus(busy: StageClock, stages: Sequence[StageClock], setting: RunSetting) -> str:
    if not setting.has_stages and setting.lacks_shards(busy.workers):
        return more_shards(setting)
    if setting.cpus is None:
        return f"{_LARGER}, or make it faster"
    used, own = _cpus_in_use(stages, setting), setting.of(busy)
    some = f"{used:g} of {setting.cpus:g} CPUs are in use"
    if more := _more_on_ray(busy, stages, setting, wait=False):
        return f"{some}: {more}"
    if used + own.num_cpus <= setting.cpus:
        return f"more of its workers may start, for {some}; if none do, make it faster"
    which = f"all {setting.cpus:g} CPUs are in use" if used + 1 > setting.cpus else some
    return f"{which}: {_LARGER}, or make it faster"
