"""`batchrunner run` as a process: timed as a whole, or killed half-way."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

from benchmarks.race import CHECKOUT, ENVIRONMENT

_PATIENCE_SECONDS = 600


def write_spec(path: Path, fields: dict[str, Any]) -> Path:
    """Write a spec file; JSON is YAML."""
    path.write_text(json.dumps(fields))
    return path


def run_command(spec: Path) -> list[str]:
    """Return the command line that runs *spec*."""
    return [sys.executable, "-m", "batchrunner", "run", str(spec)]


def timed(command: list[str]) -> float:
    """Return how many seconds *command* took, from start to exit, as a process."""
    began = time.perf_counter()
    subprocess.run(
        command,
        cwd=CHECKOUT,
        env=ENVIRONMENT,
        check=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    return time.perf_counter() - began


def modules_imported_by(command: list[str]) -> set[str]:
    """Return the top-level modules that a Python *command* imports."""
    python, *arguments = command
    done = subprocess.run(
        [python, "-X", "importtime", *arguments],
        cwd=CHECKOUT,
        env=ENVIRONMENT,
        check=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    lines = [line for line in done.stderr.splitlines() if line.startswith("import time:")]
    return {line.rpartition("|")[2].strip().partition(".")[0] for line in lines}


@contextmanager
def killed_when(process: subprocess.Popen[bytes], ripe: Callable[[], bool]) -> Iterator[None]:
    """SIGKILL *process*, and nothing else, as soon as *ripe* says so.

    What it leaves behind is left alone inside the block, as in life, and killed at its end.
    """
    until = time.monotonic() + _PATIENCE_SECONDS
    while process.poll() is None and not ripe():
        if time.monotonic() > until:
            raise TimeoutError("the process that was to be killed got nowhere")
        time.sleep(0.02)
    if process.poll() is not None:
        raise RuntimeError("the process ended before it could be killed")
    left_behind = psutil.Process(process.pid).children(recursive=True)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    try:
        yield
    finally:
        for orphan in left_behind:
            if orphan.is_running():
                orphan.kill()
        psutil.wait_procs(left_behind, timeout=10)
