"""W6: prepare on CPUs, a model on an accelerator, finish on a CPU: does the accelerator wait?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from benchmarks.inputs import write_source
from benchmarks.places import in_memory
from benchmarks.race import Contestant, peak_mb_of_all, race
from benchmarks.results import Goal, Result, standing
from benchmarks.size import Size
from benchmarks.three_stages import BATCH, LOAD, MODEL

ROWS_PER_FILE, FILES = 200, 100
CPUS = 16
BUSY = "accelerator busy, %"


def _contestant(name: str, function: str, **arguments: Any) -> Contestant:
    return Contestant(name, f"benchmarks.{function}", arguments, cpus=CPUS, gpus=1)


OURS = _contestant("batchrunner", "ours:in_three_stages")
RAW = _contestant("raw Ray Data", "raw_ray_data:jsonl_in_three_stages")


def measure(size: Size) -> Result:
    """Measure W6."""
    with in_memory() as place:
        files = size.of(FILES, at_least=4)
        rows = files * ROWS_PER_FILE
        source = write_source(place.folder / "in", rows=rows, files=files, format="jsonl")
        laps = race([OURS, RAW], source=source, place=place, laps=size.laps)
        peaks = {c.name: peak_mb_of_all(c, source=source, place=place) for c in (OURS, RAW)}
    ideal = LOAD + rows * MODEL
    facts = {name: [lap.facts for lap in done] for name, done in laps.items()}
    return Result(
        workload="W6",
        title=f"{rows:,} rows in {files} files, 10 ms a row on {CPUS} CPUs, 2 ms a row on an "
        f"accelerator in batches of {BATCH}, 0.2 ms a row on a CPU: ideal {ideal:.2f} s",
        place=place.name,
        standings=[
            standing(name, done, limit=ideal, **_columns(facts[name], peaks[name]))
            for name, done in laps.items()
        ],
        goals=[
            Goal(
                "batchrunner: the accelerator is busy from its first call to its last: at least 95 %",
                min(each[BUSY] for each in facts[OURS.name]),
                95.0,
                at_least=True,
                unit="%",
            )
        ],
        notes=["The ratios are to the ideal: the model's load, then 2 ms a row. All of it sleeps."],
    )


def _columns(facts: list[Mapping[str, float]], peak: float) -> dict[str, list[float]]:
    told = {name: [each[name] for each in facts] for name in facts[0]}
    return {**told, "all processes' peak, MB": [peak]}
