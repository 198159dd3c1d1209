"""memory: the driver holds shards, never rows, so its memory does not grow with them."""

from __future__ import annotations

import statistics

from benchmarks.inputs import write_source
from benchmarks.places import in_memory
from benchmarks.race import Lap, clean_output, run, say, with_output
from benchmarks.results import Goal, Result, standing
from benchmarks.size import Size
from benchmarks.workloads.lines import OURS

MILLIONS, FILES = (1, 3, 10), 200
NOISE = 1.1


def measure(size: Size) -> Result:
    """Measure the driver's memory over sources of growing size."""
    laps: dict[int, list[Lap]] = {}
    for millions in MILLIONS:
        rows, files = size.of(millions * 10**6), size.of(FILES, at_least=4)
        with in_memory() as place:
            source = write_source(place.folder / "in", rows=rows, files=files, format="jsonl")
            laps[rows] = [_lap(source, place, rows=rows) for _ in range(size.laps)]
    peaks = {rows: statistics.median(lap.driver_mb for lap in done) for rows, done in laps.items()}
    return Result(
        workload="memory",
        title="peak memory of the driver process, Ray's part in it included",
        place=place.name,
        standings=[
            standing(
                f"batchrunner, {rows:,} rows",
                done,
                **{"driver_before_the_run,_MB": [lap.driver_mb_before for lap in done]},
            )
            for rows, done in laps.items()
        ],
        goals=[
            Goal(
                f"the largest source's driver: at most {NOISE} x the smallest source's",
                peaks[max(peaks)],
                NOISE * peaks[min(peaks)],
                unit="MB",
            )
        ],
    )


def _lap(source, place, *, rows: int) -> Lap:
    with clean_output(place) as out:
        lap = run(OURS, source=source, out=out)
    told = int(lap.facts["rows out"])
    say(f"  {rows:,} rows: {lap.seconds:.2f} s, driver {lap.driver_mb:.0f} MB")
    return with_output(lap, "as many rows as expected" if told == rows else f"{told:,} rows")
