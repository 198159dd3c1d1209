"""Chooses the display of a session: live view, plain lines, JSON events, or one line of a notebook."""

from __future__ import annotations

import os
import sys
from typing import Final, TextIO

from batchrunner.driver.progress import Display, NoDisplay
from batchrunner.errors import InvalidSpecError
from batchrunner.views.json_display import JsonDisplay
from batchrunner.views.json_events import JsonEvents
from batchrunner.views.line_display import LineDisplay
from batchrunner.views.live_display import LiveDisplay
from batchrunner.views.notebook_display import NotebookDisplay, in_notebook

MODES: Final = ("auto", "live", "plain", "json", "off")


def display_of(mode: str | Display | None) -> Display:
    """Return a new display for *mode*, or *mode* itself if it is a display.

    `auto` is the live view on a terminal, one line that is updated in a notebook, and plain lines
    elsewhere.

    Raises:
        InvalidSpecError: There is no such mode, or `live` has no terminal to draw on.
    """
    if mode is None:  # as `off`
        return NoDisplay()
    if not isinstance(mode, str):
        return mode
    if mode not in MODES:
        raise InvalidSpecError(
            f"progress cannot be {mode!r}: write one of {', '.join(MODES)}, or pass a Display"
        )
    if mode == "live" and not can_draw(sys.stderr):
        raise InvalidSpecError(
            "the live view needs a terminal at stderr that can move its cursor, and there is none: "
            "use progress plain or json"
        )
    return _made(mode)


def _made(mode: str) -> Display:
    if mode == "off":
        return NoDisplay()
    if mode == "json":
        events = JsonEvents(sys.stderr, lossy=True).begin("stdout", "stderr")
        return JsonDisplay(events, on_close=events.end)
    if mode == "auto" and in_notebook():
        return NotebookDisplay()
    # A second live view, of a run in another thread, would overwrite the first.
    if mode != "plain" and can_draw(sys.stderr) and not LiveDisplay.is_open:
        return LiveDisplay()
    return LineDisplay()


def say_end(display: Display, text: str) -> None:
    """Leave *text*, how the session ended, where the closed *display* has shown its progress."""
    if isinstance(display, LineDisplay | LiveDisplay | NotebookDisplay):
        display.end(text)


def can_draw(stream: TextIO | None) -> bool:
    """Return whether *stream* is a terminal whose cursor can be moved."""
    if stream is None or stream.closed or not stream.isatty():
        return False
    return os.environ.get("TERM", "") not in ("", "dumb", "unknown")
