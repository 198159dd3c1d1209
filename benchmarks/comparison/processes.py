"""A contestant's process: run to its end, or killed when half of the rows are computed."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import psutil

from benchmarks.comparison.contestants import OURS, Contestant
from benchmarks.race import ENVIRONMENT

_PATIENCE_SECONDS = 400
_TOO_LONG = 124
_CALLS = "COMPARISON_CALLS"
_QUIET = {"DAFT_ANALYTICS_ENABLED": "0", "DO_NOT_TRACK": "1"}


@dataclass(frozen=True, slots=True)
class Ended:
    """How a process ended.

    Attributes:
        code: Its exit code; -9 when it was killed.
        seconds: From its start.
        talk: What it printed.
    """

    code: int
    seconds: float
    talk: str


class Processes:
    """Starts the processes of one contestant in one folder, and ends what they leave."""

    def __init__(self, home: Path, *, contestant: Contestant, python: Path) -> None:
        self._home, self._contestant = home, contestant
        self._python = sys.executable if contestant.python == OURS else str(python)

    def run(self, calls: Path, *, line: str) -> Ended:
        """Start *line*, and wait for its end; one that has none is killed and has code 124."""
        with self._started(calls, line) as (process, talk):
            began = time.monotonic()
            try:
                code = process.wait(_PATIENCE_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                code = _TOO_LONG
            return Ended(code, time.monotonic() - began, talk.read_text(errors="replace"))

    def run_and_kill(self, calls: Path, *, at: int) -> Ended:
        """Start the line, and SIGKILL that process alone when *at* rows have been computed."""
        with self._started(calls, self._contestant.line) as (process, talk):
            began = time.monotonic()
            while process.poll() is None and _noted(calls) < at:
                if time.monotonic() - began > _PATIENCE_SECONDS:
                    raise TimeoutError(f"{self._contestant.name} got nowhere before its kill")
                time.sleep(0.01)
            with contextlib.suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGKILL)
            code = process.wait(_PATIENCE_SECONDS)
            return Ended(code, time.monotonic() - began, talk.read_text(errors="replace"))

    def end_all(self) -> None:
        """Kill what the contestant's processes left running, and nothing else."""
        left = [process for process in psutil.process_iter() if self._is_of_ours(process)]
        for process in left:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(left, timeout=30)

    @contextlib.contextmanager
    def _started(self, calls: Path, line: str) -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
        talk = self._home / "talk.txt"
        with (
            talk.open("wb") as sink,
            subprocess.Popen(
                [self._python, *line.split()],
                cwd=self._home,
                env=self._environment(calls),
                stdout=sink,
                stderr=sink,
            ) as process,
        ):
            yield process, talk

    def _environment(self, calls: Path) -> Mapping[str, str]:
        paths = [str(self._home)]
        if self._contestant.python == OURS:
            paths.append(ENVIRONMENT["PYTHONPATH"])
        own = {"PYTHONPATH": os.pathsep.join(paths), _CALLS: str(calls)}
        return {**ENVIRONMENT, **_QUIET, **own}

    def _is_of_ours(self, process: psutil.Process) -> bool:
        try:
            calls = process.environ().get(_CALLS, "")
        except psutil.Error:
            return False
        return Path(calls).is_relative_to(self._home)


def _noted(calls: Path) -> int:
    return sum(path.stat().st_size for path in calls.iterdir()) // 8
