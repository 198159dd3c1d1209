"""benchmarks/README.md, from the results alone: `python -m benchmarks.readme RESULTS` prints it."""

from __future__ import annotations

import statistics
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.results import Goal, Result, Standing

ORDER = (
    "W1",
    "W2",
    "W3",
    "W4",
    "W5",
    "W6",
    "W7",
    "tiny",
    "million",
    "marginal",
    "noop",
    "resume",
    "memory",
    "store",
    "jobs",
    "live",
)

_INTRODUCTION = """\
# Benchmarks

How fast batchrunner is, beside what else one would use for the same work. This page is generated
from the JSON in `results/`, where every single measurement is; change nothing here by hand.

## Run them

```
make bench                                        # everything, about 45 minutes on 2 cores
python -m benchmarks --only W1,noop               # some
python -m benchmarks --scale 0.01 --repeats 1 --out /tmp/quick/results    # all of it, small: four minutes
python -m benchmarks.comparison                   # after a kill, a bad row, a new file: half an hour
```

[What is in the output after a kill](../docs/explanation/comparison.md), beside Ray Data, datatrove and Daft, has a
page of its own.

## What is counted

* The limit is what two processes reach that do nothing but the work: no commit, no resume, no
  check; a crash leaves half a file. The goals are relative to it, so they hold on any machine.
* Each measurement is a fresh process with an empty output. Contestants take turns, so that a
  machine that slows down slows all of them; tables give the median, the fastest and the slowest.
* Everything on Ray starts warm: Ray is up (`num_cpus=2`, no dashboard), `ray.data` is imported and
  one trivial task has run. Ray's own start is not counted but stands beside the numbers. What
  workers have to import after that is counted, for everyone.
* Every output is read back after its time has ended: the number of rows and a checksum over all of
  them, in any order, must be that of the source with `n = len(text)` added.
* batchrunner runs with the defaults of its spec unless the tables say otherwise: every part is
  hashed, committed and durable, every shard has its sentinel.

Not counted: making the inputs (always the same rows), reading the outputs back, Ray's start and
end. The noop workload is counted as a whole process, with Python's own start.
"""


def readme(results: Path) -> str:
    """Return the page for the JSON files in folder *results*."""
    found = [results / f"{name}.json" for name in ORDER]
    kept = [Result.from_file(path) for path in found if path.exists()]
    sections = [_section(result, about) for result, about in kept]
    return "\n".join([_INTRODUCTION, _overview(result for result, _ in kept), *sections])


def _overview(results: Iterable[Result]) -> str:
    rows = [[result.workload, *_goal(goal)] for result in results for goal in result.goals]
    return "## Goals\n\n" + _table(["workload", "goal", "measured", "bound", "met"], rows)


def _goal(goal: Goal) -> list[str]:
    return [
        goal.text,
        _amount(goal.measured, goal.unit),
        ("≥ " if goal.at_least else "≤ ") + _amount(goal.bound, goal.unit),
        "yes" if goal.is_met else "**no**",
    ]


def _amount(value: float, unit: str) -> str:
    digits = {"s": 2, "x": 1, "times": 2, "ns a row": 0, "MB": 0, "KiB": 0}.get(unit, 0)
    return f"{value:.{digits}f} {unit}".strip()


def _section(result: Result, about: Mapping[str, Any]) -> str:
    also = list(dict.fromkeys(name for one in result.standings for name in one.also))
    header = ["contestant", "median, s", "fastest to slowest, s", "x the limit", *also, "output"]
    rows = [_standing(one, also) for one in result.standings]
    notes = "".join(f"\n{note}\n" for note in result.notes)
    table = _table(*_without_empty_columns(header, rows))
    return f"## {result.workload}: {result.title}\n\n{_about(result, about)}\n\n{table}{notes}"


def _standing(one: Standing, also: Sequence[str]) -> list[str]:
    return [
        one.contestant,
        _seconds(one.median),
        f"{_seconds(one.min)} to {_seconds(one.max)}" if len(one.seconds) > 1 else "",
        "" if one.ratio is None else f"{one.ratio:.2f}",
        *(_median(one.also.get(name, ())) for name in also),
        one.output,
    ]


def _seconds(value: float) -> str:
    return f"{value:.2f}" if value >= 0.1 else f"{value:.4f}"


def _median(values: Sequence[float]) -> str:
    if not values:
        return ""
    middle = statistics.median(values)
    return f"{middle:,.0f}" if middle >= 100 or middle == int(middle) else f"{middle:.1f}"


def _without_empty_columns(
    header: Sequence[str], rows: Sequence[Sequence[str]]
) -> tuple[list[str], list[list[str]]]:
    used = [n for n in range(len(header)) if any(row[n] for row in rows)]
    return [header[n] for n in used], [[row[n] for n in used] for row in rows]


def _about(result: Result, about: Mapping[str, Any]) -> str:
    machine, versions = about["machine"], about["versions"]
    times = "once" if about["repeats"] == 1 else f"{about['repeats']} times"
    scale = "" if about["scale"] == 1 else f" **At {about['scale']} of its size.**"
    return (
        f"Data on {result.place}. Measured {times} on {about['measured_on']}, with "
        f"{machine['cpus']} CPUs ({machine['cpu']}), {machine['memory_gb']} GB, {machine['disk']}; "
        f"Python {versions['python']}, Ray {versions['ray']}, pyarrow {versions['pyarrow']}, "
        f"orjson {versions['orjson']}.{scale}"
    )


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


if __name__ == "__main__":
    print(readme(Path(sys.argv[1])), end="")
