"""marginal: what a row costs once everything has started, beside the pool, polars and Daft."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from benchmarks.by_others import DAFT_PYTHON
from benchmarks.inputs import write_source
from benchmarks.places import in_memory
from benchmarks.race import Contestant, Laps, race, say
from benchmarks.results import Goal, Result, Standing, median_of, standing
from benchmarks.size import Size
from benchmarks.workloads import columnar, lines

MILLIONS, FILES = (2, 10), 200
_NANOS = "ns a row"

Rows = Mapping[int, Laps]


@dataclass(frozen=True, slots=True)
class Half:
    """One format.

    Attributes:
        format: Of source and output.
        limit: The pool, which the goals are relative to.
        goals: By contestant of ours, how often the cost of the limit it may cost.
    """

    format: str
    limit: Contestant
    goals: Mapping[str, float]

    @property
    def contestants(self) -> Sequence[Contestant]:
        return (self.limit, lines.OURS, lines.OURS_BY_COLUMNS, *_others(self.format))


HALVES = (
    Half("jsonl", lines.LIMIT, {lines.OURS.name: 1.3, lines.OURS_BY_COLUMNS.name: 1.0}),
    Half("parquet", columnar.LIMIT, {lines.OURS_BY_COLUMNS.name: 1.3}),
)


def _others(format: str) -> list[Contestant]:  # noqa: A002 - the word of the spec
    polars = Contestant("polars", f"benchmarks.by_others:polars_{format}", on_ray=False)
    if not DAFT_PYTHON.exists():
        return [polars]
    daft = Contestant("Daft", f"benchmarks.by_others:daft_{format}", on_ray=False)
    return [polars, replace(daft, python=str(DAFT_PYTHON))]


def measure(size: Size) -> Result:
    """Measure each format over few and over many rows; what they differ by is what rows cost."""
    rows = [size.of(millions * 10**6) for millions in MILLIONS]
    done = {half.format: {count: _laps(half, count, size) for count in rows} for half in HALVES}
    return Result(
        workload="marginal",
        title=f"what each row costs between {rows[0]:,} and {rows[1]:,} rows of about 200 bytes",
        place="tmpfs",
        standings=[s for half in HALVES for s in _standings(half, done[half.format])],
        goals=[g for half in HALVES for g in _goals(half, done[half.format])],
        notes=[_NOTE, *([] if DAFT_PYTHON.exists() else [_WITHOUT_DAFT])],
    )


_NOTE = (
    "The seconds are those of the larger source. The cost of a row, and how often the limit's it is, are of the\n"
    "difference to the smaller one: start and end are in both. On a busy machine, read the CPU."
)
_WITHOUT_DAFT = (
    "Without Daft, for which `python -m benchmarks.comparison --only Daft` makes an environment."
)


def _laps(half: Half, rows: int, size: Size) -> Laps:
    say(f" {half.format}, {rows:,} rows")
    with in_memory() as place:
        files = size.of(FILES, at_least=4)
        source = write_source(place.folder / "in", rows=rows, files=files, format=half.format)
        return race(half.contestants, source=source, place=place, laps=size.laps)


def _cost(done: Rows, name: str) -> float:
    """Return the nanoseconds that each further row costs."""
    few, many = sorted(done)
    seconds = median_of(done[many][name]) - median_of(done[few][name])
    return seconds / (many - few) * 1e9


def _cpu(done: Rows, name: str) -> float:
    """Return the nanoseconds of CPU that each further row costs."""
    few, many = sorted(done)
    cpu = [statistics.median(lap.cpu for lap in done[rows][name]) for rows in (few, many)]
    return (cpu[1] - cpu[0]) / (many - few) * 1e9


def _standings(half: Half, done: Rows) -> list[Standing]:
    limit = _cost(done, half.limit.name)
    return [
        replace(
            standing(
                f"{half.format}: {name}",
                laps,
                ns_a_row=[_cost(done, name)],
                CPU_ns_a_row=[_cpu(done, name)],
            ),
            ratio=round(_cost(done, name) / limit, 3),
        )
        for name, laps in done[max(done)].items()
    ]


def _goals(half: Half, done: Rows) -> list[Goal]:
    limit = _cost(done, half.limit.name)
    return [
        Goal(
            f"{half.format}: {name}: at most {most} x the limit",
            _cost(done, name),
            most * limit,
            unit=_NANOS,
        )
        for name, most in half.goals.items()
    ]
