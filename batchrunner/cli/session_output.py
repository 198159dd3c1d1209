"""What a session writes to stderr, for people or for programs."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

from batchrunner.cli.terminal import say
from batchrunner.driver.progress import Display, NoDisplay, Progress
from batchrunner.driver.report import BatchReport
from batchrunner.views.displays import display_of
from batchrunner.views.json_display import JsonDisplay
from batchrunner.views.json_events import JsonEvents, as_line
from batchrunner.views.live_display import LiveDisplay

_KILLED = 137
"""What a shell says of a process that was killed with SIGKILL."""


class ForPeople:
    """Shows progress, and prints the report as text. Keeps the latest progress for a forced end.

    Attributes:
        progress: What was shown last; None before the first time.
    """

    def __init__(self, mode: str) -> None:
        """Prepare the display for *mode*, one of those of `display_of`."""
        self._mode = mode
        self._inner: Display = NoDisplay()
        self.progress: Progress | None = None

    @contextmanager
    def streams(self) -> Iterator[None]:
        """Enter before `begin`, to take what is printed until after `end`."""
        yield

    def begin(self) -> Display:
        """Open the display; the caller closes it, before `end`."""
        self._inner = display_of(self._mode)
        return self._inner

    def show(self, progress: Progress) -> None:
        self.progress = progress
        self._inner.show(progress)

    def close(self) -> None:
        """Do nothing: who called `begin` closes the display."""

    def end(self, report: BatchReport, text: str) -> None:
        """Print the *report*, of which *text* is the form for people."""
        del report
        say(text)

    def forced_text(self, text: str, *, exit_code: int) -> str:
        """Return what to print in place of a report when the process ends by force. Never waits."""
        del exit_code
        return self._inner.erasing() + text if isinstance(self._inner, LiveDisplay) else text

    def killed_text(self, text: str) -> str:
        """Return what another process prints once it has killed this one."""
        return f"\n{text}\n"


class ForPrograms(ForPeople):
    """Writes nothing but JSON events to stderr, from now to the end of the process."""

    def __init__(self) -> None:
        super().__init__("json")
        self._events = JsonEvents(sys.stderr, lossy=True).begin("stderr")

    @contextmanager
    def streams(self) -> Iterator[None]:
        # Again: the watch has put a stderr with a descriptor of its own in place.
        self._events = JsonEvents(sys.stderr, lossy=True).begin("stdout", "stderr")
        try:
            yield
        finally:
            self._events.end()

    def begin(self) -> Display:
        # The report goes to the stdout of before, once the display is closed.
        self._inner = JsonDisplay(self._events, on_close=partial(self._events.end, "stdout"))
        return self._inner

    def end(self, report: BatchReport, text: str) -> None:
        self._events.write("report", report=report.to_dict(), text=text)

    def forced_text(self, text: str, *, exit_code: int) -> str:
        return as_line("error", type="ForcedEnd", message=text, exit_code=exit_code)

    def killed_text(self, text: str) -> str:
        fields = {"type": "Killed", "message": text, "exit_code": _KILLED}
        return as_line("error", **fields, at="@AT@") + "\n"
