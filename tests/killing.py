"""Runs of the command line that are killed half-way."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from builders import parts
from command import start
from patience import PATIENCE


def killed_with_parts(
    folder: Path, *arguments: object, count: Callable[[], int] | None = None, **environment: str
) -> int:
    """Start `run spec.yaml` in *folder*, and kill it once it has three parts; return how many it has then.

    *arguments* stand in place of `spec.yaml`; *count* counts its parts, if they are not in `out/`.
    """
    published = count or (lambda: len(parts(folder / "out")))
    given = arguments or ("spec.yaml",)
    with start("run", *given, cwd=folder, **environment) as process:
        deadline = time.monotonic() + PATIENCE
        while published() < 3 and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.02)
        process.kill()
        process.communicate()
    return published()
