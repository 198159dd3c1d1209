"""tiny: thousands of files of 10 rows, beside the same rows in 20 files; million: a million of 1 KB."""

from __future__ import annotations

import resource
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from benchmarks.cli_runs import run_command, timed, write_spec
from benchmarks.inputs import write_source
from benchmarks.ours import a_spec
from benchmarks.places import Place, in_memory
from benchmarks.race import Contestant, Lap, race, run, say
from benchmarks.results import Goal, Result, median_of, standing
from benchmarks.size import Size

FILES, ROWS_PER_FILE, FEW_FILES, BATCH = 5000, 10, 20, 256
MILLION, ROWS_PER_KB = 1_000_000, 5

CAPABILITY = "benchmarks.capabilities:add_length"
_MEGABYTE = 1 << 10  # `ru_maxrss` is in kilobytes


def measure(size: Size) -> Result:
    """Measure thousands of files of 10 rows, and the same rows in 20 files."""
    files = size.of(FILES, at_least=80)
    with in_memory() as place:
        few = _laps(place, FEW_FILES, rows=files * ROWS_PER_FILE, laps=size.laps)
        many = _laps(place, files, rows=files * ROWS_PER_FILE, laps=size.laps)
    parts = max(lap.facts["shards"] for lap in many)
    return Result(
        workload="tiny",
        title=f"{files:,} files of {ROWS_PER_FILE} rows as JSON lines, in batches of {BATCH}",
        place="tmpfs",
        standings=[
            standing(f"the same rows in {FEW_FILES} files", few, mean_batch=_batches(few)),
            standing(f"{files:,} files", many, limit=median_of(few), mean_batch=_batches(many)),
        ],
        goals=[
            Goal("at most 1.2 x the time of 20 files", median_of(many), 1.2 * median_of(few)),
            Goal("mean batch", min(_batches(many)), 250, at_least=True, unit="rows"),
            Goal("parts: at most one for 50 files", parts, files / 50, unit=""),
        ],
    )


def _laps(place: Place, files: int, *, rows: int, laps: int) -> list[Lap]:
    source = write_source(place.folder / f"in-{files}", rows=rows, files=files, format="jsonl")
    calls = place.folder / f"calls-{files}"
    capability = {"target": f"{CAPABILITY}_noted", "fn_kwargs": {"calls": str(calls)}}
    spec = {"capability": capability, "execution": {"batch_size": BATCH}}
    ours = Contestant(f"{files:,} files", "benchmarks.ours:run", {"spec": spec})
    done = race([ours], source=source, place=place, laps=laps)[ours.name]
    each = rows * laps / calls.stat().st_size
    return [replace(lap, facts={**lap.facts, "mean batch": each}) for lap in done]


def _batches(laps: Sequence[Lap]) -> list[float]:
    return [lap.facts["mean batch"] for lap in laps]


def measure_million(size: Size) -> Result:
    """Measure the plan of a million files of 1 KB, their run, and the run that finds nothing to do."""
    files = size.of(MILLION, at_least=80)
    with in_memory() as place:
        rows = files * ROWS_PER_KB
        source = write_source(place.folder / "in", rows=rows, files=files, format="jsonl")
        sink = place.folder / "out"
        spec = write_spec(place.folder / "s.yaml", a_spec(source, sink, capability=CAPABILITY))
        plan = [_timed(plan_command(spec)) for _ in range(size.laps)]
        work = Contestant("run", "benchmarks.ours:run", {"spec": {"capability": CAPABILITY}})
        whole = run(work, source=source, out=sink)
        no_op = [_timed(run_command(spec)) for _ in range(size.laps)]
    peak = max(lap.driver_mb for lap in (*plan, whole, *no_op))
    return Result(
        workload="million",
        title=f"{files:,} files of 1 KB as JSON lines",
        place="tmpfs",
        standings=[standing("plan", plan), standing("run", [whole]), standing("no-op", no_op)],
        goals=[
            Goal("plan: at most 60 s", median_of(plan), 60),
            Goal("no-op: at most 5 s", median_of(no_op), 5),
            Goal("the driver's peak: at most 1 GB", peak, 1024, unit="MB"),
        ],
    )


def plan_command(spec: Path) -> list[str]:
    """Return the command line that plans *spec*."""
    return [sys.executable, "-m", "batchrunner", "plan", str(spec)]


def _timed(command: list[str]) -> Lap:
    seconds = timed(command)
    # The largest of all processes so far that were waited for: no more than the largest of them.
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / _MEGABYTE
    say(f"  {command[3]}: {seconds:.2f} s, at most {peak:.0f} MB")
    return Lap(seconds, driver_mb=peak)
