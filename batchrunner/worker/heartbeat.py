"""Heartbeats: what a worker is doing right now, for the eyes of people.

Nothing is decided by them: they may be late, lost or doubled.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from batchrunner.worker.stage_clock import StageClock
from batchrunner.worker.usage import Usage


class WorkerPhase(StrEnum):
    """What a worker is doing."""

    LOADING = "loading"
    """It imports and builds the capability."""
    RUNNING = "running"
    """It has shards."""
    IDLE = "idle"
    """It has no shard; the engine may hand it more."""
    DIED = "died"
    """Its process is gone. The engine says so, in its place."""


@dataclass(frozen=True, slots=True)
class WorkerClocks:
    """What one worker has spent its time on since it began: each includes those before it.

    Attributes:
        worker: Names the worker, as in `Heartbeat`.
        since: When it began, in seconds since 1970 UTC: a later process may have its name.
        stages: Its reading, the stages that it feeds or is, and its writing, in this order.
        usage: What its calls have used, with their cost, whatever became of their answers.
    """

    worker: str
    since: float
    stages: tuple[StageClock, ...]
    usage: Usage = field(default_factory=dict)

    @property
    def seconds(self) -> float:
        """The time of all stages together, which only grows."""
        return sum(clock.seconds for clock in self.stages)


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """What one worker is doing.

    Attributes:
        worker: Names the worker, `<host>-<pid>`; `<pid>` alone once it has died; empty in the one that an engine sends once it is
            ready and waits for its workers.
        phase: What it does.
        rows: By id of each shard that it has begun and not ended, the rows that have gone through
            the capability in this attempt.
        bytes: The same in bytes of the source, as far as they are known.
        clocks: What it has spent its time on; None before it knows its capability.
        cpus, gpus: In the one of an engine, how many its machines have together; else None.
    """

    worker: str
    phase: WorkerPhase
    rows: Mapping[int, int] = field(default_factory=dict)
    bytes: Mapping[int, int] = field(default_factory=dict)
    clocks: WorkerClocks | None = None
    cpus: float | None = None
    gpus: float | None = None
