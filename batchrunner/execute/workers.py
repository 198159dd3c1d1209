"""How many workers a run has on Ray, what each reserves, and which shards it is handed at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from batchrunner.execute.ray_connection import listed, needed, workers_that_fit
from batchrunner.execute.stage_room import Room, needs_of, texts
from batchrunner.shard import Shard
from batchrunner.spec import BatchSpec, ExecutionSpec

Groups = Sequence[Sequence[Shard]]

_ROUND = 3
"""One part in so many of the remaining weight is handed out in each round."""


@dataclass(frozen=True, slots=True)
class Workers:
    """The workers of a run.

    Attributes:
        least: The fewest that it has.
        most: The most that it has.
        at_first: How many there is room for now.
        reserved: What each reserves, as Ray's arguments.
        wanted: What it needs, for people.
        by_half: Whether each is handed smaller and smaller groups of shards, so that all end together.
    """

    least: int
    most: int
    at_first: int
    reserved: Mapping[str, Any]
    wanted: str
    by_half: bool = True

    @classmethod
    def of(cls, spec: BatchSpec) -> Workers:
        """Return the workers for *spec* on the Ray that this process is connected to.

        Raises:
            RayUnavailableError: It has no room for one worker, or for one of each stage, and cannot grow.
        """
        may_grow = spec.ray.address != "local"
        return _with_stages(spec, may_grow) if spec.stages else _alone(spec.execution, may_grow)

    def groups(self, shards: Sequence[Shard], *, first: int | None = None) -> Groups:
        """Divide *shards* among the workers; shard *first* leads them all."""
        if self.most == 1 and not self.by_half:
            # All at once: between two groups nothing is on its way, and every stage would wait.
            return [tuple(sorted(shards, key=lambda shard: (shard.id != first, shard.id)))]
        return make_groups(shards, workers=min(self.most, len(shards)), first=first)


def _alone(execution: ExecutionSpec, may_grow: bool) -> Workers:
    fitting = workers_that_fit(execution, may_grow=may_grow)
    least, most = _bounds(execution.concurrency, fitting)
    wanted = f"each needs {listed(needed(execution, num_cpus=execution.num_cpus))}"
    return Workers(least, most, fitting, _reserved(execution), wanted)


def _with_stages(spec: BatchSpec, may_grow: bool) -> Workers:
    workers = workers_with_stages(spec.execution)
    needs = needs_of(spec.stages, Room.of_cluster(workers=workers), may_grow=may_grow)
    wanted = f"its stages need {texts(needs)}"
    # The stages do the work. A worker that reserved a CPU would take it from them.
    return Workers(workers, workers, workers, {"num_cpus": 0}, wanted, by_half=False)


def workers_with_stages(execution: ExecutionSpec) -> int:
    """Return how many workers share the workers of the stages: one, unless the spec says how many."""
    number = execution.concurrency
    return number if isinstance(number, int) else 1


def _bounds(concurrency: int | tuple[int, int] | None, fitting: int) -> tuple[int, int]:
    if concurrency is None:
        return 1, fitting
    return (concurrency, concurrency) if isinstance(concurrency, int) else concurrency


def _reserved(execution: ExecutionSpec) -> dict[str, Any]:
    wanted = {
        "num_cpus": execution.num_cpus,
        "num_gpus": execution.num_gpus or None,
        "memory": execution.memory,
        "accelerator_type": execution.accelerator_type,
        "resources": dict(execution.resources) or None,
    }
    return {name: amount for name, amount in wanted.items() if amount is not None}


def make_groups(
    shards: Sequence[Shard], *, workers: int, first: int | None = None
) -> list[tuple[Shard, ...]]:
    """Divide *shards* into groups, from large ones to single shards; shard *first* leads them all.

    Each round gives every worker an equal share of a third of the remaining weight: workers that are
    faster, or have lighter shards, get smaller and smaller groups, so that all end at about the same
    time. Factoring (Hummel, Schonberg and Flynn, 1992) gives a half, to workers that have nothing left to do;
    ours have a group waiting. The worker that starts first is handed two before the others are
    there: of a half, that was as much as its share of the whole, and it ended a tenth later than they did.
    """
    queue = sorted(shards, key=lambda shard: (shard.id != first, -shard.weight))
    groups: list[tuple[Shard, ...]] = []
    start = 0
    while start < len(queue):
        remaining = sum(shard.weight for shard in queue[start:])
        share = remaining / (_ROUND * workers)
        for _ in range(workers):
            stop = start + 1
            weight = queue[start].weight
            while stop < len(queue) and weight + queue[stop].weight <= share:
                weight += queue[stop].weight
                stop += 1
            groups.append(tuple(queue[start:stop]))
            start = stop
            if start >= len(queue):
                break
    return groups
