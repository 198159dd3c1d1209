"""What was measured, as it is kept in JSON."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

from benchmarks.race import Lap


@dataclass(frozen=True, slots=True)
class Standing:
    """All laps of one contestant.

    Attributes:
        contestant: Its name.
        seconds: Of every lap.
        median: Of those.
        min: The fastest.
        max: The slowest.
        ratio: Median by the limit's median; None where there is no limit.
        also: What else was measured in every lap, by name and unit.
        output: What the outputs were like.
    """

    contestant: str
    seconds: Sequence[float]
    median: float
    min: float
    max: float
    ratio: float | None = None
    also: Mapping[str, Sequence[float]] = field(default_factory=dict)
    output: str = ""


@dataclass(frozen=True, slots=True)
class Goal:
    """What was to be reached.

    Attributes:
        text: The goal, in words.
        measured: What it is about.
        bound: What that has to be, at most or at least.
        at_least: Whether more is better.
        unit: Of both.
    """

    text: str
    measured: float
    bound: float
    at_least: bool = False
    unit: str = "s"

    @property
    def is_met(self) -> bool:
        return self.measured >= self.bound if self.at_least else self.measured <= self.bound


@dataclass(frozen=True, slots=True)
class Result:
    """One workload's.

    Attributes:
        workload: Its name.
        title: What it is, in a line.
        place: Where the data was.
        standings: In the order in which they took turns.
        goals: What was to be reached.
        notes: What a reader has to know.
    """

    workload: str
    title: str
    place: str
    standings: Sequence[Standing]
    goals: Sequence[Goal]
    notes: Sequence[str] = ()

    def to_json(self, about: Mapping[str, Any]) -> str:
        """Return it as JSON, with what there is to say *about* the machine and the run."""
        fields = asdict(self)
        for goal, told in zip(self.goals, fields["goals"], strict=True):
            told["met"] = goal.is_met
        return json.dumps({**fields, **about}, indent=1, ensure_ascii=False) + "\n"

    @classmethod
    def from_file(cls, path: Path) -> tuple[Self, dict[str, Any]]:
        """Return a result that was kept, and what there is to say about it."""
        kept = json.loads(path.read_text())
        goals = [
            Goal(**{key: value for key, value in goal.items() if key != "met"})
            for goal in kept.pop("goals")
        ]
        standings = [Standing(**standing) for standing in kept.pop("standings")]
        own = {key: kept.pop(key) for key in ("workload", "title", "place", "notes")}
        return cls(**own, standings=standings, goals=goals), kept


def standing(
    contestant: str, laps: Sequence[Lap], *, limit: float | None = None, **also: Iterable[float]
) -> Standing:
    """Return the standing of a contestant with these *laps*, beside *limit* seconds."""
    seconds = [round(lap.seconds, 4) for lap in laps]
    median = statistics.median(seconds)
    more = {name.replace("_", " "): [round(x, 2) for x in values] for name, values in also.items()}
    if any(lap.ray_start for lap in laps):
        more["Ray's start, s"] = [round(lap.ray_start, 2) for lap in laps]
    if any(lap.driver_mb for lap in laps):
        more["driver's peak, MB"] = [round(lap.driver_mb, 1) for lap in laps]
    outputs = list(dict.fromkeys(lap.output for lap in laps if lap.output))
    return Standing(
        contestant=contestant,
        seconds=seconds,
        median=median,
        min=min(seconds),
        max=max(seconds),
        ratio=None if limit is None else round(median / limit, 3),
        also=more,
        output="; ".join(outputs),
    )


def median_of(laps: Sequence[Lap]) -> float:
    """Return the median of the seconds of *laps*."""
    return statistics.median(lap.seconds for lap in laps)
