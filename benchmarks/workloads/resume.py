"""resume: W1 is killed half-way and run again; beside it, Ray Data with and without its own resume."""

from __future__ import annotations

import contextlib
import os
import statistics
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.cli_runs import killed_when, run_command, write_spec
from benchmarks.content import Content, content_of, data_files, expected_of, ids_in
from benchmarks.inputs import write_source
from benchmarks.ours import a_spec
from benchmarks.places import Place, in_memory
from benchmarks.race import (
    CHECKOUT,
    ENVIRONMENT,
    Contestant,
    Lap,
    clean_output,
    compared,
    run,
    say,
    started,
    with_output,
)
from benchmarks.results import Goal, Result, Standing, median_of, standing
from benchmarks.size import Size
from benchmarks.workloads import lines

KILLED_AT = 0.48

_INTENTS = (
    """Ray Data runs over Parquet, and is killed when 48 % of the rows are in its output. It is measured
once.""",
    """Workers outlive a killed driver for some seconds and go on writing: for batchrunner that is work
done, for Ray Data without checkpoint_config it is more duplicates.""",
)

WITH_CHECKPOINT = Contestant(
    "Ray Data with checkpoint_config", "benchmarks.raw_ray_data:parquet_with_checkpoint"
)
WITHOUT_CHECKPOINT = Contestant(
    "Ray Data without checkpoint_config", "benchmarks.raw_ray_data:parquet"
)


def measure(size: Size) -> Result:
    """Measure what a kill costs."""
    rows, files = size.of(lines.ROWS), size.of(lines.FILES, at_least=4)
    with in_memory() as place:
        source = write_source(place.folder / "in", rows=rows, files=files, format="jsonl")
        whole, again = _ours(source, place, laps=size.laps)
    theirs: list[Standing] = []
    with in_memory() as place:
        source = write_source(place.folder / "in", rows=rows, files=files, format="parquet")
        for contestant in (WITH_CHECKPOINT, WITHOUT_CHECKPOINT):
            theirs += _theirs(contestant, source, place, rows=rows)
    left = statistics.median(lap.facts["shards left"] / lap.facts["shards"] for lap in again)
    return Result(
        workload="resume",
        title=f"W1 ({rows:,} rows in {files} files) killed with SIGKILL at about 48 % of its "
        "shards, then run again",
        place=place.name,
        standings=[
            standing("batchrunner, the whole run", whole),
            standing(
                "batchrunner, again after the kill",
                again,
                shards_left=[lap.facts["shards left"] for lap in again],
                shards=[lap.facts["shards"] for lap in again],
            ),
            *theirs,
        ],
        goals=[
            Goal(
                "batchrunner: again after the kill, at most half the run + 1 s",
                median_of(again),
                median_of(whole) / 2 + 1,
            ),
            Goal(
                f"batchrunner: at most the share of shards left ({left:.2f}) of the run + 1 s",
                median_of(again),
                median_of(whole) * left + 1,
            ),
        ],
        notes=_INTENTS,
    )


def _ours(source: Path, place: Place, *, laps: int) -> tuple[list[Lap], list[Lap]]:
    expected = expected_of(source)
    whole, again = [], []
    for _ in range(laps):
        with clean_output(place) as out:
            whole.append(_run_ours(source, out, expected))
        with clean_output(place) as out, _killed_half_way(source, out, shards=_shards(whole[-1])):
            again.append(_run_ours(source, out, expected))
        say(f"  whole {whole[-1].seconds:.2f} s, again {again[-1].seconds:.2f} s")
    return whole, again


def _run_ours(source: Path, out: Path, expected: Content) -> Lap:
    lap = run(lines.OURS, source=source, out=out)
    return with_output(lap, compared(content_of(out), expected))


def _shards(lap: Lap) -> int:
    return int(lap.facts["shards"])


@contextmanager
def _killed_half_way(source: Path, out: Path, *, shards: int) -> Iterator[None]:
    """Have a `batchrunner run` that was killed when so many of its *shards* were committed."""
    spec = a_spec(source, out, **lines.OURS.arguments["spec"])
    command = run_command(write_spec(out.parent / "spec.yaml", spec))

    def is_ripe() -> bool:
        return _sentinels(out) >= KILLED_AT * shards

    with (
        subprocess.Popen(command, cwd=CHECKOUT, env=ENVIRONMENT, stderr=subprocess.DEVNULL) as own,
        killed_when(own, is_ripe),
    ):
        say(f"  killed at {_sentinels(out)} of {shards} shards")
        yield


def _sentinels(sink: Path) -> int:
    folder = sink / "_checkpoint/sentinels"
    return len(os.listdir(folder)) if folder.is_dir() else 0  # noqa: PTH208 - asked often


def _theirs(contestant: Contestant, source: Path, place: Place, *, rows: int) -> list[Standing]:
    with clean_output(place) as out:
        whole = run(contestant, source=source, out=out)
    with clean_output(place) as out, started(contestant, source=source, out=out) as (process, _):
        footers = Footers(out)
        with killed_when(process, lambda: footers.rows() >= KILLED_AT * rows):
            there = footers.rows()
            again = run(contestant, source=source, out=out)
            ids = ids_in(out)
    say(f"  {contestant.name}: whole {whole.seconds:.2f} s, again {again.seconds:.2f} s, {ids}")
    verdict = (
        f"{ids.rows - ids.distinct:,} rows twice, {rows - ids.distinct:,} missing, "
        f"{ids.unreadable:,} unreadable files"
    )
    return [
        standing(f"{contestant.name}, the whole run", [whole]),
        standing(
            f"{contestant.name}, again after the kill",
            [with_output(again, verdict)],
            rows_there_at_the_kill=[there],
        ),
    ]


class Footers:
    """Counts the rows of the Parquet files that are complete so far, reading each footer once."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._rows = folder, dict[Path, int]()

    def rows(self) -> int:
        import pyarrow as pa
        import pyarrow.parquet as pq

        if not self._folder.is_dir():
            return 0
        for file in data_files(self._folder):
            if file not in self._rows:
                with contextlib.suppress(pa.ArrowException, OSError):  # not complete yet
                    self._rows[file] = pq.read_metadata(file).num_rows
        return sum(self._rows.values())
