"""A driver that stops itself in the middle: `python paused_driver.py FOLDER HOST POINT MUTANT ...`.

It says that it is on HOST, takes the lease of another host over after a second, and sends itself
SIGSTOP just before the change to the disk that POINT names: after whatever it looks at before that.
"""

from __future__ import annotations

import os
import platform
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mutants
from batchrunner.checkpoint import lease
from batchrunner.driver import session
from batchrunner.errors import BatchRunnerError
from batchrunner.runner import BatchRunner
from builders import a_spec

POINTS = {
    "before the manifest": ("_manifest.json", 1),
    "before _SUCCESS": ("_SUCCESS", 1),
    "at the claim that starts over": ("_checkpoint/run-0001.json", 1),
    "at the first removal": ("_SUCCESS", 0),
    "at a removal in the middle": ("part-00002.jsonl", 0),
}
"""The name that is given (1: the second argument) or taken away (0: the first)."""

LINKS, REMOVALS = ("link", "replace"), ("unlink", "rename")


def stop_at(point: str, out: Path) -> None:
    """Have this process stop once, at the change called *point*."""
    name, argument = POINTS[point]
    stopped: list[int] = []

    def watched(real: Callable[..., Any]) -> Callable[..., Any]:
        def change(*args: Any, **kwargs: Any) -> Any:
            if not stopped and Path(args[argument]) == out / name:
                stopped.append(1)
                os.kill(os.getpid(), signal.SIGSTOP)
            return real(*args, **kwargs)

        return change

    for call in LINKS if argument else REMOVALS:
        setattr(os, call, watched(getattr(os, call)))


def main(folder: Path, host: str, point: str, mutant: str, *flags: str) -> int:
    platform.node = lambda: host
    lease.STALE_SECONDS = 1.0
    lease.RENEW_SECONDS = session.RENEW_SECONDS = 0.2
    mutants.apply(mutant)
    if point:
        stop_at(point, folder / "out")
    spec = a_spec(
        folder,
        capability={
            "target": "capabilities:waits_for_a_word",
            "fn_kwargs": {"folder": str(folder)},
            "version": "1",
        },
    )
    try:
        return BatchRunner(spec).run(fresh="fresh" in flags).exit_code
    except BatchRunnerError as error:
        sys.stdout.write(f"{type(error).__name__}: {error}")
        return error.exit_code


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), *sys.argv[2:]))
