"""Contestants, each in a fresh process, one after the other, lap by lap."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from benchmarks.content import Content, content_of, expected_of
from benchmarks.memory_watch import MemoryWatch
from benchmarks.places import Place

CHECKOUT = Path(__file__).parents[1]

ENVIRONMENT = {
    **os.environ,
    "PYTHONPATH": str(CHECKOUT),
    "RAY_AUTH_MODE": "disabled",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_BACKEND_LOG_LEVEL": "fatal",
}

TALK = "talk.txt"
"""What a contestant's process says is in a file of this name; shown only if it fails."""

_LONGEST_SECONDS = 1800


@dataclass(frozen=True, slots=True)
class Contestant:
    """One way to do the work.

    Attributes:
        name: In tables.
        function: "module:function", called with source, output and *arguments*.
        arguments: By name.
        on_ray: Whether a Ray is started for it, before its time begins.
        cpus: How many that Ray has.
        gpus: Likewise; no such thing has to be there.
        python: The interpreter of its process.
    """

    name: str
    function: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    on_ray: bool = True
    cpus: int = 2
    gpus: int = 0
    python: str = sys.executable


@dataclass(frozen=True, slots=True)
class Lap:
    """One measurement of one contestant.

    Attributes:
        seconds: Of its work.
        ray_start: Seconds that Ray took to start, before that.
        driver_mb: Peak resident memory of its driver process.
        driver_mb_before: The same, before its work.
        facts: What it told.
        output: "as expected", or how it differs.
        cpu: CPU seconds of its work, in all its processes.
    """

    seconds: float
    ray_start: float = 0.0
    driver_mb: float = 0.0
    driver_mb_before: float = 0.0
    facts: Mapping[str, float] = field(default_factory=dict)
    output: str = ""
    cpu: float = 0.0


Laps = dict[str, list[Lap]]


def race(contestants: Sequence[Contestant], *, source: Path, place: Place, laps: int) -> Laps:
    """Let all *contestants* do the work of *source* *laps* times, taking turns."""
    expected = expected_of(source)
    done: Laps = {contestant.name: [] for contestant in contestants}
    for number in range(laps):
        for contestant in contestants:
            with clean_output(place) as out:
                lap = run(contestant, source=source, out=out)
                lap = with_output(lap, compared(content_of(out), expected))
            done[contestant.name].append(lap)
            say(
                f"  lap {number + 1}: {contestant.name}: {lap.seconds:.2f} s, {lap.cpu:.2f} s of CPU, {lap.output}"
            )
    return done


def peak_mb_of_all(contestant: Contestant, *, source: Path, place: Place) -> float:
    """Return the peak memory of the contestant's whole process tree, in a lap that is not timed."""
    with clean_output(place) as out, started(contestant, source=source, out=out) as (process, _):
        with MemoryWatch(process.pid) as watch:
            process.wait(_LONGEST_SECONDS)
        return watch.peak_mb


@contextmanager
def clean_output(place: Place) -> Iterator[Path]:
    """Have a path for an output, with nothing there before and nothing left after."""
    out = place.folder / "out"
    try:
        yield out
    finally:
        for leftover in place.folder.glob("out*"):
            shutil.rmtree(leftover)


def run(contestant: Contestant, *, source: Path, out: Path) -> Lap:
    """Measure one contestant once, in a fresh process."""
    os.sync()  # what others wrote is not to be written during this
    with started(contestant, source=source, out=out) as (process, answer):
        code = process.wait(_LONGEST_SECONDS)
        if code:
            talk = answer.with_name(TALK).read_text(errors="replace")
            raise RuntimeError(f"{contestant.name} ended with exit code {code}:\n{talk}")
        return Lap(**json.loads(answer.read_text()))


@contextmanager
def started(
    contestant: Contestant, *, source: Path, out: Path
) -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
    """Start a contestant's process; it will put its answer at the path."""
    with tempfile.TemporaryDirectory() as folder:
        answer = Path(folder) / "answer.json"
        order = {
            "function": contestant.function,
            "arguments": contestant.arguments,
            "on_ray": contestant.on_ray,
            "ray": {"num_cpus": contestant.cpus, "num_gpus": contestant.gpus},
            "source": str(source),
            "out": str(out),
            "answer": str(answer),
        }
        command = [contestant.python, "-m", "benchmarks.contestant_process", json.dumps(order)]
        talk = Path(folder) / TALK
        with (
            talk.open("wb") as sink,
            subprocess.Popen(
                command, cwd=CHECKOUT, env=ENVIRONMENT, stdout=sink, stderr=sink
            ) as process,
        ):
            yield process, answer


def with_output(lap: Lap, output: str) -> Lap:
    """Return *lap* with what was found in its output."""
    return replace(lap, output=output)


def compared(found: Content, expected: Content) -> str:
    """Say whether an output is what it has to be."""
    if found == expected:
        return "as expected"
    if found.rows == expected.rows:
        return "all rows are there, but values differ"
    return f"{found.rows:,} rows where {expected.rows:,} are expected"


def say(line: str) -> None:
    """Tell whoever waits how it goes."""
    print(line, file=sys.stderr, flush=True)
