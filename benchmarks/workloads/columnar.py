"""W2: W1 as Parquet."""

from __future__ import annotations

from benchmarks.inputs import write_source
from benchmarks.places import in_memory
from benchmarks.race import Contestant, race
from benchmarks.results import Goal, Result, median_of, standing
from benchmarks.size import Size
from benchmarks.workloads import lines

LIMIT = Contestant(
    "pool of 2 processes, pyarrow by columns (the limit)",
    "benchmarks.by_hand:pool",
    {"one_file": "parquet_file"},
    on_ray=False,
)
LIMIT_BY_ROWS = Contestant(
    "pool of 2 processes, pyarrow through rows",
    "benchmarks.by_hand:pool",
    {"one_file": "parquet_file_by_rows"},
    on_ray=False,
)
BARE_TASKS = Contestant(
    "a bare Ray task per file, pyarrow by columns",
    "benchmarks.by_hand:bare_ray_tasks",
    {"one_file": "parquet_file"},
)
RAW = Contestant("raw Ray Data", "benchmarks.raw_ray_data:parquet")


def measure(size: Size) -> Result:
    """Measure W2."""
    ours, ours_by_columns = lines.OURS, lines.OURS_BY_COLUMNS
    contestants = [LIMIT, LIMIT_BY_ROWS, BARE_TASKS, ours, ours_by_columns, RAW]
    with in_memory() as place:
        rows, files = size.of(lines.ROWS), size.of(lines.FILES, at_least=4)
        source = write_source(place.folder / "in", rows=rows, files=files, format="parquet")
        laps = race(contestants, source=source, place=place, laps=size.laps)
    medians = {name: median_of(done) for name, done in laps.items()}
    limit = medians[LIMIT.name]
    return Result(
        workload="W2",
        title=f"{rows:,} rows of about 200 bytes as Parquet in {files} files, n = len(text)",
        place=place.name,
        standings=[standing(name, done, limit=limit) for name, done in laps.items()],
        goals=[
            Goal(
                "batchrunner, pyarrow: at most 1.3 x the limit + 1 s",
                medians[ours_by_columns.name],
                1.3 * limit + 1,
            ),
            Goal(
                "batchrunner, rows: at most 1.3 x the pool through rows + 1 s",
                medians[ours.name],
                1.3 * medians[LIMIT_BY_ROWS.name] + 1,
            ),
        ],
    )
