"""Plain lines of progress, for a log file or a terminal that cannot draw."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import TextIO

from batchrunner.driver.progress import Phase, Progress
from batchrunner.views.progress_text import line

LINE_SECONDS = 30.0


class LineDisplay:
    """Prints a line at each change of the phase, and every `LINE_SECONDS`."""

    def __init__(
        self, stream: TextIO | None = None, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._stream, self._clock = stream or sys.stderr, clock
        self._next, self._phase = clock() + LINE_SECONDS, Phase.SURVEYING

    def show(self, progress: Progress) -> None:
        if progress.phase is self._phase and self._clock() < self._next:
            return
        self._next, self._phase = self._clock() + LINE_SECONDS, progress.phase
        print(line(progress), file=self._stream, flush=True)

    def end(self, text: str) -> None:
        """Print *text* as the last line."""
        print(text, file=self._stream, flush=True)

    def close(self) -> None:
        pass
