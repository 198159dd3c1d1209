"""live: what people look at costs little: the live view of 10,000 shards, status, report, help."""

from __future__ import annotations

import contextlib
import os
import pty
import resource
import statistics
import subprocess
import sys
from pathlib import Path

from benchmarks.cli_runs import modules_imported_by, timed, write_spec
from benchmarks.inputs import write_source
from benchmarks.places import in_memory
from benchmarks.race import CHECKOUT, ENVIRONMENT, Lap, run, say
from benchmarks.results import Goal, Result, standing
from benchmarks.size import Size
from benchmarks.workloads.no_op import (
    LISTING,
    ROWS_PER_SHARD,
    SHARDS,
    fields_of,
    first_run,
    listing_command,
)

HELP, VALIDATE, STATUS, REPORT = (
    f"batchrunner {line}" for line in ("--help", "validate SPEC", "status SPEC", "report SPEC")
)
HEAVY = {"ray", "pandas", "pyarrow", "s3fs"}
TERMINAL = {"TERM": "xterm-256color", "COLUMNS": "140", "LINES": "40"}
_BATCHRUNNER = [sys.executable, "-m", "batchrunner"]
_SHOWN_SECONDS = 10

_NOTE = """The live view is measured alone, by the CPU of a process that shows it on a pseudo-terminal of 140
columns for 10 s, with 20 news a second, less that of the same process without it. On a busy machine, read the CPU:
the seconds count the waiting, too."""


def measure(size: Size) -> Result:
    """Measure the live view, then the commands that read a finished run."""
    with in_memory() as place:
        shards = size.of(SHARDS, at_least=4)
        source = write_source(
            place.folder / "in", rows=shards * ROWS_PER_SHARD, files=shards, format="jsonl"
        )
        sink, report = place.folder / "out", place.folder / "report.html"
        run(first_run(source), source=source, out=sink)
        spec = write_spec(place.folder / "s.yaml", {"sink": str(sink), **fields_of(source)})
        commands = _commands(spec, sink, report=report, laps=size.laps)
        kib = report.stat().st_size / 1024
        imported = _imported([["--help"], ["validate", str(spec)]])
        shares = [_share_of_a_core(shards) for _ in range(size.laps)]
    return Result(
        workload="live",
        title=f"what people look at, of a run of {shards:,} shards of {ROWS_PER_SHARD} rows",
        place=place.name,
        standings=[
            standing(name, laps, **{"CPU,_s": _cpu(laps)}) for name, laps in commands.items()
        ],
        goals=_goals(commands, kib=kib, imported=imported, share=statistics.median(shares)),
        notes=[_NOTE],
    )


def _goals(
    commands: dict[str, list[Lap]], *, kib: float, imported: set[str], share: float
) -> list[Goal]:
    report = statistics.median(_cpu(commands[REPORT]))
    return [
        Goal("the live view: at most 5 % of a core", share * 100, 5, unit="%"),
        Goal("report: at most 2 s of CPU", report, 2),
        Goal("report: at most 500 KiB", kib, 500, unit="KiB"),
        Goal("heavy libraries that --help and validate import: none", len(imported), 0, unit=""),
    ]


def _imported(lines: list[list[str]]) -> set[str]:
    return {name for line in lines for name in HEAVY & modules_imported_by([*_BATCHRUNNER, *line])}


def _share_of_a_core(shards: int) -> float:
    """Return the CPU that the live view takes, by the time it is shown."""
    screen, terminal = pty.openpty()
    line = [sys.executable, "-m", "benchmarks.live_view", str(shards), str(_SHOWN_SECONDS)]
    with subprocess.Popen(
        line, cwd=CHECKOUT, env={**ENVIRONMENT, **TERMINAL}, stdout=subprocess.PIPE, stderr=terminal
    ) as process:
        os.close(terminal)
        with contextlib.suppress(OSError):  # on Linux: the last writer has closed the terminal
            while os.read(screen, 65536):
                pass
        os.close(screen)
        text = process.communicate()[0]
    without, with_it = map(float, text.split())
    say(f"  the live view: {with_it - without:.2f} s of CPU in {_SHOWN_SECONDS} s")
    return (with_it - without) / _SHOWN_SECONDS


def _timed(line: list[str]) -> Lap:
    """Time *line*; its CPU seconds are a fact of the lap, and hold on a busy machine too."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds = timed(line)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Lap(seconds, facts={"CPU": cpu})


def _cpu(laps: list[Lap]) -> list[float]:
    return [lap.facts["CPU"] for lap in laps]


def _commands(spec: Path, sink: Path, *, report: Path, laps: int) -> dict[str, list[Lap]]:
    """Time what people start beside a run, in turns."""
    lines = {
        LISTING: listing_command(sink, sink / "_checkpoint/sentinels"),
        HELP: [*_BATCHRUNNER, "--help"],
        VALIDATE: [*_BATCHRUNNER, "validate", str(spec)],
        STATUS: [*_BATCHRUNNER, "status", str(spec)],
        REPORT: [*_BATCHRUNNER, "report", str(spec), "--file", str(report)],
    }
    done = {name: list[Lap]() for name in lines}
    for _ in range(laps):
        for name, line in lines.items():
            done[name].append(_timed(line))
            say(f"  {name}: {done[name][-1]}")
    return done
