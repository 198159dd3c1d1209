"""Progress in a notebook: one line below the cell, which is updated."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from html import escape
from typing import Any

from batchrunner.driver.progress import Progress
from batchrunner.views.progress_text import line

_EVERY_SECONDS = 1.0


def in_notebook() -> bool:
    """Return whether this process is the kernel of a notebook. Imports nothing."""
    # Another thread may be importing it: it is in `sys.modules` before its functions are in it.
    shell_of = getattr(sys.modules.get("IPython"), "get_ipython", None)
    return shell_of is not None and hasattr(shell_of(), "kernel")


class NotebookDisplay:
    """Shows one line and updates it, at most once a second and at each change of the phase."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._handle: Any = None
        self._shown = ""
        self._last: Progress | None = None
        self._phase, self._next = "", 0.0

    def show(self, progress: Progress) -> None:
        self._last = progress
        if progress.phase != self._phase or self._clock() >= self._next:
            self._phase, self._next = progress.phase, self._clock() + _EVERY_SECONDS
            self._update(line(progress))

    def close(self) -> None:
        """Leave the last figures in the notebook."""
        if self._last is not None:
            self._update(line(self._last))

    def end(self, text: str) -> None:
        """Show *text* in place of the figures."""
        self._update(text)

    def _update(self, text: str) -> None:
        from IPython.display import display  # there is one: `in_notebook`

        if text == self._shown:
            return
        self._shown = text
        shown = {"text/plain": text, "text/html": f"<pre>{escape(text)}</pre>"}
        if self._handle is None:
            self._handle = display(shown, raw=True, display_id=True)
        else:
            self._handle.update(shown, raw=True)
