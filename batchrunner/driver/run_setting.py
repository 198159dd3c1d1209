"""What the spec and the machines give a run, as far as advice on its speed depends on it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Self

from batchrunner.spec import BatchSpec, ExecutionSpec, StageSpec
from batchrunner.spec.rates import RateLimitSpec
from batchrunner.worker.stage_clock import StageClock

_OF_CAPABILITY = ("mode", "one_to_one")


@dataclass(frozen=True, slots=True)
class StageSetting:
    """What the spec gives the workers of one stage.

    Attributes:
        num_cpus, num_gpus: Of each worker.
        reserves_more: Whether each reserves memory or anything else besides.
        batch_size: The most rows of a batch; None where it does not matter, as in mode `row`.
        most: The most workers that it may have; None for as many as fit.
        max_concurrency: The most calls of a worker at the same time, if it is `async def`.
        one_to_one: Whether its batches may go over the ends of shards.
        limit: Its rate limit.
        is_step: Whether it is a step of a processor, which has a configuration of its own.
    """

    num_cpus: float = 1.0
    num_gpus: float = 0.0
    reserves_more: bool = False
    batch_size: int | None = None
    most: int | None = None
    max_concurrency: int = 8
    one_to_one: bool = False
    limit: RateLimitSpec | None = None
    is_step: bool = False

    @classmethod
    def of(cls, given: ExecutionSpec | StageSpec, *, mode: str, one_to_one: bool) -> Self:
        """Return what *given* gives a stage that is called in this *mode*."""
        most = given.concurrency
        return cls(
            num_cpus=1.0 if given.num_cpus is None else given.num_cpus,
            num_gpus=given.num_gpus or 0.0,
            reserves_more=bool(given.memory or given.resources or given.accelerator_type),
            batch_size=given.batch_size if mode == "batch" else None,
            most=most[1] if isinstance(most, tuple) else most,
            max_concurrency=given.max_concurrency or 1,
            one_to_one=one_to_one,
            limit=given.rate_limit,
            is_step=isinstance(given, StageSpec) and given.processor is not None,
        )


@dataclass(frozen=True, slots=True)
class RunSetting:
    """What a run is given, and what it has to do.

    Attributes:
        engine: Of the spec.
        cpus, gpus: Of all machines; None if they are not known.
        has_stages: Whether the capability has stages, each with fields of its own.
        stages: By name of a stage.
        readers: With stages, how many workers read and write.
        shards: How many shards there are, each of which one worker reads and writes; None if unknown.
        seconds: For how long the first worker has been ready; None if that is unknown.
        tokens: How many tokens the answers of the session report.
    """

    engine: str = "ray"
    cpus: float | None = None
    gpus: float | None = None
    has_stages: bool = False
    stages: Mapping[str, StageSetting] = field(default_factory=dict)
    readers: int = 1
    shards: int | None = None
    seconds: float | None = None
    tokens: float = 0.0

    @classmethod
    def of_spec(cls, spec: BatchSpec, *, name: str) -> Self:
        """Return the setting of a run of *spec*, whose capability has the *name*, on machines not yet known."""
        execution, called = spec.execution, spec.called
        cpus = os.cpu_count() if execution.engine == "local" else None
        if not spec.stages:
            own = StageSetting.of(execution, mode=called.mode, one_to_one=called.one_to_one)
            return cls(execution.engine, cpus, stages={name: own})
        of_stages = {
            one.called: StageSetting.of(one, mode=one.mode, one_to_one=one.one_to_one)
            for one in spec.stages
        }
        readers = execution.concurrency if isinstance(execution.concurrency, int) else 1
        return cls(execution.engine, cpus, has_stages=True, stages=of_stages, readers=readers)

    @property
    def is_local(self) -> bool:
        """Whether all of it happens in one process."""
        return self.engine == "local"

    @property
    def has_one_cpu(self) -> bool:
        """Whether it is known that there is only one CPU."""
        return self.cpus is not None and self.cpus < 2

    def of(self, clock: StageClock) -> StageSetting:
        """Return the setting of the stage of *clock*."""
        # The steps of a processor are named after it: only in the driver of Ray is it known which it has.
        names = clock.name, clock.name.rpartition(".")[0]
        return next((self.stages[name] for name in names if name in self.stages), StageSetting())

    def field(self, name: str) -> str:
        """Return how a sentence about a stage names the field *name* of the spec."""
        if self.has_stages:
            return f"its {name}"
        return f"capability.{name}" if name in _OF_CAPABILITY else f"execution.{name}"

    def lacks_shards(self, workers: int) -> bool:
        """Return whether more than so many *workers* would have nothing to do."""
        return self.shards is not None and self.shards <= max(workers, 1)
