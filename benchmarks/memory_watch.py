"""The memory of a process and all its descendants, looked at while they work."""

from __future__ import annotations

import contextlib
import threading
from typing import Self

import psutil

_PERIOD_SECONDS = 0.25


class MemoryWatch:
    """Samples the proportional set size of a process tree: shared pages count once.

    Attributes:
        peak_mb: The largest sum seen.
    """

    def __init__(self, pid: int) -> None:
        self.peak_mb = 0.0
        self._root = psutil.Process(pid)
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._look_on, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def _look_on(self) -> None:
        while not self._done.wait(_PERIOD_SECONDS):
            self.peak_mb = max(self.peak_mb, self._now_mb())

    def _now_mb(self) -> float:
        with contextlib.suppress(psutil.Error):
            tree = [self._root, *self._root.children(recursive=True)]
            return sum(map(_pss, tree)) / 2**20
        return 0.0


def _pss(process: psutil.Process) -> int:
    try:
        return int(process.memory_full_info().pss)
    except psutil.Error:  # it ended since
        return 0
