"""live: what people look at costs little: the live view of 10,000 shards, status, report, help."""

from __future__ import annotations

import contextlib
import os
import pty
import select
import statistics
import subprocess
import sys
import time
from pathlib import Path

import psutil

from benchmarks.cli_runs import modules_imported_by, run_command, timed, write_spec
from benchmarks.inputs import write_source
from benchmarks.ours import a_spec
from benchmarks.places import Place, in_memory
from benchmarks.race import CHECKOUT, ENVIRONMENT, Lap, say
from benchmarks.results import Goal, Result, Standing, median_of, standing
from benchmarks.size import Size
from benchmarks.workloads.no_op import (
    CAPABILITY,
    LISTING,
    ROWS_PER_SHARD,
    SHARDS,
    listing_command,
)

MODES = ("off", "live")
HELP, VALIDATE, STATUS, REPORT = (
    f"batchrunner {line}" for line in ("--help", "validate SPEC", "status SPEC", "report SPEC")
)
HEAVY = {"ray", "pandas", "pyarrow", "s3fs"}
TERMINAL = {"TERM": "xterm-256color", "COLUMNS": "140", "LINES": "40"}
_BATCHRUNNER = [sys.executable, "-m", "batchrunner"]
_SAMPLE_SECONDS = 0.05

_NOTE = """The driver's CPU is that of its one process, Ray's part in it included, from its start to its
exit; the live view draws on a pseudo-terminal of 140 columns. Only ratios of one run are comparable:
other work was on the machine."""


def measure(size: Size) -> Result:
    """Measure the live view, then the commands that read a finished run."""
    with in_memory() as place:
        shards = size.of(SHARDS, at_least=4)
        source = write_source(
            place.folder / "in", rows=shards * ROWS_PER_SHARD, files=shards, format="jsonl"
        )
        spec = place.folder / "s.yaml"
        drivers = _drivers(spec, source, place, laps=size.laps)
        report = place.folder / "report.html"
        commands = _commands(spec, place.folder / "out-live-0", report=report, laps=size.laps)
        kib = report.stat().st_size / 1024
        imported = _imported([["--help"], ["validate", str(spec)]])
    return Result(
        workload="live",
        title=f"what people look at, of a run of {shards:,} shards of {ROWS_PER_SHARD} rows",
        place=place.name,
        standings=[
            *(_standing(mode, drivers) for mode in MODES),
            *(standing(name, laps) for name, laps in commands.items()),
        ],
        goals=_goals(drivers, commands, kib=kib, imported=imported),
        notes=[_NOTE],
    )


def _drivers(spec: Path, source: Path, place: Place, *, laps: int) -> dict[str, list[Lap]]:
    """Run *source* with each display, in turns; the spec names the last run at the end."""
    done = {mode: list[Lap]() for mode in MODES}
    for number in range(laps):
        for mode in MODES:
            sink = place.folder / f"out-{mode}-{number}"
            write_spec(spec, a_spec(source, sink, capability=CAPABILITY))
            done[mode].append(_driver(spec, mode))
            say(f"  --progress {mode}: {done[mode][-1]}")
    return done


def _standing(mode: str, drivers: dict[str, list[Lap]]) -> Standing:
    cpu = [lap.facts["CPU"] for lap in drivers[mode]]
    return standing(f"batchrunner run --progress {mode}", drivers[mode], **{"driver's_CPU,_s": cpu})


def _goals(
    drivers: dict[str, list[Lap]],
    commands: dict[str, list[Lap]],
    *,
    kib: float,
    imported: set[str],
) -> list[Goal]:
    off, live = (statistics.median(lap.facts["CPU"] for lap in drivers[mode]) for mode in MODES)
    return [
        Goal("the driver's CPU with the live view: at most 1.15 x that without", live, 1.15 * off),
        Goal(
            "report: at most 2 s more than --help",
            median_of(commands[REPORT]),
            median_of(commands[HELP]) + 2,
        ),
        Goal("report: at most 500 KiB", kib, 500, unit="KiB"),
        Goal("heavy libraries that --help and validate import: none", len(imported), 0, unit=""),
    ]


def _imported(lines: list[list[str]]) -> set[str]:
    return {name for line in lines for name in HEAVY & modules_imported_by([*_BATCHRUNNER, *line])}


def _driver(spec: Path, mode: str) -> Lap:
    """Run *spec* on Ray with this display; the CPU seconds of its driver are a fact of the lap."""
    controller, terminal = pty.openpty()
    with contextlib.closing(os.fdopen(controller, "rb", buffering=0)) as screen:
        began = time.monotonic()
        process = subprocess.Popen(
            [*run_command(spec), "--progress", mode],
            cwd=CHECKOUT,
            env={**ENVIRONMENT, **TERMINAL},
            stdin=terminal,
            stdout=terminal,
            stderr=terminal,
        )
        os.close(terminal)
        cpu, drawn = _cpu_seconds(process, screen.fileno())
        if process.wait():
            talk = drawn.decode(errors="replace")
            raise RuntimeError(f"batchrunner run ended with {process.returncode}:\n{talk}")
        return Lap(time.monotonic() - began, facts={"CPU": cpu})


def _cpu_seconds(process: subprocess.Popen[bytes], screen: int) -> tuple[float, bytes]:
    """Read what *process* draws until it ends; return the CPU it has used by then, and the last."""
    driver, cpu, drawn = psutil.Process(process.pid), 0.0, b""
    while True:
        with contextlib.suppress(psutil.Error):
            times = driver.cpu_times()
            cpu = max(cpu, times.user + times.system)
        if not select.select([screen], [], [], _SAMPLE_SECONDS)[0]:
            continue
        with contextlib.suppress(OSError):  # on Linux: the last writer has closed the terminal
            if more := os.read(screen, 65536):
                drawn = (drawn + more)[-65536:]
                continue
        return cpu, drawn


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
            done[name].append(Lap(timed(line)))
            say(f"  {name}: {done[name][-1].seconds:.2f} s")
    return done
