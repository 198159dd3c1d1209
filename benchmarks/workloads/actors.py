"""W5: a model that takes seconds to load and then waits for its accelerator: actors, batches."""

from __future__ import annotations

from math import ceil

from benchmarks.by_hand import PROCESSES
from benchmarks.inputs import write_source
from benchmarks.places import in_memory
from benchmarks.race import Contestant, race
from benchmarks.results import Goal, Result, median_of, standing
from benchmarks.size import Size

ROWS_PER_FILE, FILES, BATCH, LOAD, CALL = 400, 100, 32, 2.0, 0.01

OURS = Contestant(
    "batchrunner, rows",
    "benchmarks.ours:run",
    {
        "spec": {
            "capability": {
                "target": "benchmarks.capabilities:RowsModel",
                "fn_constructor_kwargs": {"load": LOAD, "call": CALL},
            },
            "execution": {"batch_size": BATCH, "concurrency": PROCESSES, "num_cpus": 0.5},
        }
    },
)
RAW = Contestant(
    "raw Ray Data, ActorPoolStrategy",
    "benchmarks.raw_ray_data:jsonl_with_model",
    {"load": LOAD, "call": CALL, "actors": PROCESSES},
)


def measure(size: Size) -> Result:
    """Measure W5."""
    with in_memory() as place:
        files = size.of(FILES, at_least=4)
        rows = files * ROWS_PER_FILE
        source = write_source(place.folder / "in", rows=rows, files=files, format="jsonl")
        laps = race([OURS, RAW], source=source, place=place, laps=size.laps)
    ideal = LOAD + files * ceil(ROWS_PER_FILE / BATCH) * CALL / PROCESSES
    return Result(
        workload="W5",
        title=f"{rows:,} rows in {files} files, 2 actors that load for 2 s, batches of 32 that "
        f"take 10 ms each: ideal {ideal:.2f} s",
        place=place.name,
        standings=[standing(name, done, limit=ideal) for name, done in laps.items()],
        goals=[
            Goal("batchrunner: at most 1.05 x the ideal", median_of(laps[OURS.name]), 1.05 * ideal)
        ],
        notes=[_note(files)],
    )


def _note(files: int) -> str:
    a_file = ceil(ROWS_PER_FILE / BATCH)
    saved = (files * a_file - ceil(files * ROWS_PER_FILE / BATCH)) * CALL / PROCESSES
    return (
        f"The ratios are to the ideal: load + batches x 10 ms / 2 actors, with {a_file} batches a "
        f"file. Batches that span files, as Ray Data's do, would save {saved:.2f} s of it."
    )
