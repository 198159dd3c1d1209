"""W1: many small rows as JSON lines, hardly any work for each."""

from __future__ import annotations

from benchmarks.inputs import write_source
from benchmarks.places import in_memory
from benchmarks.race import Contestant, peak_mb_of_all, race
from benchmarks.results import Goal, Result, median_of, standing
from benchmarks.size import Size

ROWS, FILES = 2_000_000, 200

LIMIT = Contestant(
    "pool of 2 processes, orjson (the limit)",
    "benchmarks.by_hand:pool",
    {"one_file": "jsonl_file"},
    on_ray=False,
)
OURS = Contestant(
    "batchrunner, rows",
    "benchmarks.ours:run",
    {"spec": {"capability": "benchmarks.capabilities:add_length"}},
)
OURS_BY_COLUMNS = Contestant(
    "batchrunner, pyarrow",
    "benchmarks.ours:run",
    {
        "spec": {
            "capability": "benchmarks.capabilities:add_length_column",
            "execution": {"batch_format": "pyarrow"},
        }
    },
)
BARE_TASKS = Contestant(
    "a bare Ray task per file, orjson",
    "benchmarks.by_hand:bare_ray_tasks",
    {"one_file": "jsonl_file"},
)
RAW = Contestant("raw Ray Data", "benchmarks.raw_ray_data:jsonl")


def measure(size: Size) -> Result:
    """Measure W1."""
    contestants = [LIMIT, BARE_TASKS, OURS, OURS_BY_COLUMNS, RAW]
    with in_memory() as place:
        rows, files = size.of(ROWS), size.of(FILES, at_least=4)
        source = write_source(place.folder / "in", rows=rows, files=files, format="jsonl")
        laps = race(contestants, source=source, place=place, laps=size.laps)
        peaks = {c.name: peak_mb_of_all(c, source=source, place=place) for c in contestants}
    medians = {name: median_of(done) for name, done in laps.items()}
    limit, ours = medians[LIMIT.name], medians[OURS.name]
    bound = 1.3 * limit + 1
    return Result(
        workload="W1",
        title=f"{rows:,} rows of about 200 bytes as JSON lines in {files} files, n = len(text)",
        place=place.name,
        standings=[
            standing(name, done, limit=limit, **{"all_processes'_peak,_MB": [peaks[name]]})
            for name, done in laps.items()
        ],
        goals=[
            Goal("batchrunner, rows: at most 1.3 x the limit + 1 s", ours, bound),
            Goal(
                "batchrunner, pyarrow: at most 1.3 x the limit + 1 s",
                medians[OURS_BY_COLUMNS.name],
                bound,
            ),
            Goal(
                "batchrunner, rows: at least 4 x faster than raw Ray Data",
                medians[RAW.name] / ours,
                4.0,
                at_least=True,
                unit="x",
            ),
        ],
    )
