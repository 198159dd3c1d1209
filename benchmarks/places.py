"""Where inputs and outputs are while they are measured: memory, or the disk of this checkout."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

_CHECKOUT = Path(__file__).parents[1]
_MEMORY = Path("/dev/shm")  # noqa: S108 - a folder of our own in it


@dataclass(frozen=True, slots=True)
class Place:
    """A folder for one workload's data.

    Attributes:
        name: "tmpfs" or "disk".
        folder: Empty; removed at the end.
    """

    name: str
    folder: Path


@contextmanager
def in_memory() -> Iterator[Place]:
    """Have a folder on tmpfs, where nothing waits for a disk; without tmpfs, one on the disk."""
    if not _MEMORY.is_dir():
        with on_disk() as place:
            yield place
        return
    with _folder(_MEMORY / f"batchrunner-bench-{os.getpid()}") as folder:
        yield Place("tmpfs", folder)


@contextmanager
def on_disk() -> Iterator[Place]:
    """Have a folder on the disk that this checkout is on."""
    with _folder(_CHECKOUT / ".bench" / str(os.getpid())) as folder:
        yield Place("disk", folder)


@contextmanager
def _folder(path: Path) -> Iterator[Path]:
    path.mkdir(parents=True)
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)
