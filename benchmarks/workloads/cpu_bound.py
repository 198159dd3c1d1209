"""W4: a capability that needs CPU: nothing else is to cost anything, and no CPU to be idle."""

from __future__ import annotations

from benchmarks.by_hand import PROCESSES
from benchmarks.inputs import write_source
from benchmarks.places import in_memory
from benchmarks.race import Contestant, race
from benchmarks.results import Goal, Result, median_of, standing
from benchmarks.size import Size

ROWS, FILES, SECONDS = 8000, 40, 0.005

POOL = Contestant(
    "pool of 2 processes, orjson",
    "benchmarks.by_hand:pool",
    {"one_file": "burning_jsonl_file"},
    on_ray=False,
)
OURS = Contestant(
    "batchrunner, rows",
    "benchmarks.ours:run",
    {
        "spec": {
            "capability": {
                "target": "benchmarks.capabilities:burn_rows",
                "fn_kwargs": {"seconds": SECONDS},
            },
            "execution": {"batch_size": 32},
        }
    },
)
RAW = Contestant(
    "raw Ray Data",
    "benchmarks.raw_ray_data:jsonl_burning",
    {"seconds": SECONDS, "batch_size": 32},
)


def measure(size: Size) -> Result:
    """Measure W4."""
    with in_memory() as place:
        rows, files = size.of(ROWS), size.of(FILES, at_least=4)
        source = write_source(place.folder / "in", rows=rows, files=files, format="jsonl")
        laps = race([POOL, OURS, RAW], source=source, place=place, laps=size.laps)
    ideal = rows * SECONDS / PROCESSES
    return Result(
        workload="W4",
        title=f"{rows:,} rows, 5 ms of CPU for each, in {files} files, 2 CPUs: ideal {ideal:.2f} s",
        place=place.name,
        standings=[standing(name, done, limit=ideal) for name, done in laps.items()],
        goals=[
            Goal("batchrunner: at most 1.05 x the ideal", median_of(laps[OURS.name]), 1.05 * ideal)
        ],
        notes=["The ratios are to the ideal: rows x 5 ms / 2 CPUs."],
    )
