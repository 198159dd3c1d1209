"""What the workers of the stages reserve, and whether the machines of a cluster have room for them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from batchrunner.errors import RayUnavailableError
from batchrunner.execute.ray_connection import listed, needed
from batchrunner.spec import StageSpec

Amounts = Mapping[str, float]
"""Amounts of resources, by Ray's names."""

_LEAST_CPUS = 0.05
_ROUNDING = 1e-6


@dataclass(frozen=True, slots=True)
class StageNeed:
    """What one stage needs of a cluster.

    Attributes:
        stage: The stage, with what it takes from `execution`.
        each: What each of its workers reserves.
        least: The fewest workers that it has.
        most: The most that it has; infinity if only the room bounds it.
    """

    stage: StageSpec
    each: Amounts
    least: int = 1
    most: float = math.inf

    @property
    def has_accelerator(self) -> bool:
        """Whether a worker has more than CPUs and memory: what is rare should never wait."""
        return any(name not in {"CPU", "memory"} for name in self.each)

    @property
    def rank(self) -> tuple[int, float]:
        """How hard a worker is to place."""
        rare = [name for name in self.each if name not in {"CPU", "memory"}]
        return len(rare), self.each.get("CPU", 0.0)

    def __str__(self) -> str:
        times = f"{self.least} x " if self.least > 1 else ""
        return f"{self.stage.called!r} {times}({listed(self.each)})"


@dataclass(frozen=True, slots=True)
class Room:
    """The machines of a cluster, for several workers of a run that have the same stages each.

    Attributes:
        nodes: What each machine has in all.
        workers: How many workers share them.
    """

    nodes: tuple[Amounts, ...]
    workers: int = 1

    @classmethod
    def of_cluster(cls, *, workers: int) -> Room:
        """Return what Ray's cluster has now."""
        import ray

        nodes: list[Any] = ray.nodes()  # type: ignore[no-untyped-call]  # Ray is half typed
        return cls(tuple(node["Resources"] for node in nodes if node["Alive"]), workers)

    @property
    def cpus(self) -> float:
        """The CPUs that each worker has for its stages."""
        return sum(node.get("CPU", 0.0) for node in self.nodes) / self.workers

    @property
    def total(self) -> Amounts:
        """What all machines have."""
        names = {name for node in self.nodes for name in node}
        return {name: sum(node.get(name, 0.0) for node in self.nodes) for name in names}

    def fits(self, needs: Sequence[StageNeed], counts: Sequence[int]) -> bool:
        """Return whether so many workers of each stage have room at once.

        Those that need most are placed first, each on the first machine that has room. That may miss a way
        to place them that exists, never the other way round.
        """
        free = [dict(node) for node in self.nodes]
        order = sorted(range(len(needs)), key=lambda at: needs[at].rank, reverse=True)
        return all(_placed(free, needs[at].each, counts[at] * self.workers) for at in order)


def _placed(free: Sequence[dict[str, float]], each: Amounts, count: int) -> bool:
    for node in free:
        here = min(count, _times(node, each))
        for name, amount in each.items():
            node[name] = node.get(name, 0.0) - here * amount
        count -= here
    return count <= 0


def _times(node: Amounts, each: Amounts) -> int:
    if not each:
        return int(node.get("CPU", 1))  # they reserve nothing, and are as many as there are CPUs
    return int(min(node.get(name, 0.0) / amount for name, amount in each.items()) + _ROUNDING)


def needs_of(stages: Sequence[StageSpec], room: Room, *, may_grow: bool) -> list[StageNeed]:
    """Return what each of *stages* needs of each worker's share of *room*.

    A stage that does not say how many CPUs gets one, or an equal share of those that the others leave, if
    there are fewer. What does not fit into a cluster that may grow gets one, and waits for machines.

    Raises:
        RayUnavailableError: There is no room for the fewest workers of all stages, and the cluster cannot
            grow.
    """
    needs = _needs(stages, room, share=_share(stages, room))
    if room.fits(needs, [need.least for need in needs]):
        return needs
    if may_grow:
        return _needs(stages, room, share=1.0)
    raise RayUnavailableError(
        f"the cluster has no room for all stages at once: {texts(needs)}; in all there is "
        f"{listed(room.total)}. Ask for less in the stages, or use more or larger machines."
    )


def _needs(stages: Sequence[StageSpec], room: Room, *, share: float) -> list[StageNeed]:
    return [
        StageNeed(
            stage,
            needed(stage, num_cpus=share if stage.num_cpus is None else stage.num_cpus),
            *_bounds(stage, workers=room.workers),
        )
        for stage in stages
    ]


def _share(stages: Sequence[StageSpec], room: Room) -> float:
    """Return the CPUs of a worker of a stage that does not say how many."""
    fewest = {stage.called: _bounds(stage, workers=room.workers)[0] for stage in stages}
    given = sum((stage.num_cpus or 0.0) * fewest[stage.called] for stage in stages)
    count = sum(fewest[stage.called] for stage in stages if stage.num_cpus is None)
    left = (room.cpus - given) / count if count else 1.0
    return max(_LEAST_CPUS, min(1.0, math.floor(left * 100) / 100))


def _bounds(stage: StageSpec, *, workers: int) -> tuple[int, float]:
    number = stage.concurrency
    if number is None:
        return 1, math.inf
    least, most = (number, number) if isinstance(number, int) else number
    return max(least // workers, 1), max(most // workers, 1)


def texts(needs: Sequence[StageNeed]) -> str:
    """Return *needs* as text, for people."""
    return "; ".join(map(str, needs))
