"""noop: a finished run is run again: it has to notice, without Ray, in under a second."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from benchmarks.cli_runs import modules_imported_by, run_command, timed, write_spec
from benchmarks.inputs import write_source
from benchmarks.places import on_disk
from benchmarks.race import Contestant, Lap, run, say
from benchmarks.results import Goal, Result, median_of, standing
from benchmarks.size import Size

SHARDS, ROWS_PER_SHARD = 10_000, 10

CAPABILITY = "benchmarks.capabilities:add_length"
LISTING = "the listing alone: every file's size, in a fresh Python"
NO_OP = "batchrunner run, once more"


def measure(size: Size) -> Result:
    """Measure the no-op run."""
    with on_disk() as place:
        shards = size.of(SHARDS, at_least=4)
        source = write_source(
            place.folder / "in", rows=shards * ROWS_PER_SHARD, files=shards, format="jsonl"
        )
        sink = place.folder / "out"
        first = run(first_run(source), source=source, out=sink)
        say(f"  the run that is over: {first.seconds:.1f} s")
        spec = write_spec(place.folder / "s.yaml", {"sink": str(sink), **fields_of(source)})
        listing, no_op = [], []
        for _ in range(size.laps):
            listing.append(
                Lap(timed(listing_command(source, sink, sink / "_checkpoint/sentinels")))
            )
            no_op.append(Lap(timed(run_command(spec)), output=""))
            say(f"  listing {listing[-1].seconds:.3f} s, no-op {no_op[-1].seconds:.3f} s")
        imported = modules_imported_by(run_command(spec))
    return Result(
        workload="noop",
        title=f"a finished run of {int(first.facts['shards']):,} shards, run again",
        place=place.name,
        standings=[standing(LISTING, listing), standing(NO_OP, no_op)],
        goals=[
            Goal("the whole process, from start to exit: at most 1 s", median_of(no_op), 1.0),
            Goal("how often Ray is imported: never", float("ray" in imported), 0.0, unit=""),
        ],
        notes=[
            "Heavy libraries that it imports: "
            + (", ".join(sorted(imported & {"ray", "pyarrow", "numpy", "pandas"})) or "none")
            + f". The run itself took {first.seconds:.0f} s on the local engine, on the disk."
        ],
    )


def first_run(source: Path) -> Contestant:
    """Return the run that is over."""
    spec = {**fields_of(source), "execution": {"engine": "local"}}
    return Contestant("the run", "benchmarks.ours:run", {"spec": spec}, on_ray=False)


def fields_of(source: Path) -> dict[str, Any]:
    """Return what the run's spec has beside its sink: each file is a shard."""
    return {"source": {"uri": str(source), "shard": {"files": 1}}, "capability": CAPABILITY}


def listing_command(*folders: Path) -> list[str]:
    """Return a command that counts the files of *folders*, and does nothing else."""
    code = "import sys; from benchmarks.listing import count; count(sys.argv[1:])"
    return [sys.executable, "-c", code, *map(str, folders)]
