"""The live view of a run on a terminal: a frame at its end, and the log above it."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar, TextIO

from batchrunner.driver.progress import Progress
from batchrunner.spec.secrets import scrubbed
from batchrunner.views.harmless import in_colour
from batchrunner.views.live_frame import Scene, frame
from batchrunner.views.own_stderr import own_stderr
from batchrunner.views.region import DrawnLine, Region
from batchrunner.views.throughput import Throughput
from batchrunner.views.whole_lines import WholeLines

if TYPE_CHECKING:
    from rich.text import Text

REDRAW_SECONDS = 0.1
_STILL_SECONDS = 1.0
"""How often to redraw if nothing changed but the clock."""
_JOIN_SECONDS = 5.0


class LiveDisplay:
    """Draws the frame ten times a second, and keeps stdout and stderr above it, in whole lines.

    While it is open it replaces `sys.stderr`, and `sys.stdout` if that is a terminal, too. Ctrl-Z
    erases the frame before the process stops; in the background nothing is drawn.

    Attributes:
        is_open: Whether a live view of this process is open.
    """

    is_open: ClassVar[bool] = False

    def __init__(self, stream: TextIO | None = None) -> None:
        from rich.console import Console

        self._file = stream or own_stderr()
        self._console = Console(file=self._file, highlight=False)
        self._region, self._throughput = Region(self._file), Throughput()
        self._progress = Progress.before_the_survey()
        self._phase_began, self._drawn_at = self._progress.began, 0.0
        self._lock = threading.RLock()
        self._is_news, self._is_over = True, threading.Event()
        self._is_suspended = False
        self._streams = _replaced_streams(self._file, self._above)
        self._before: Any = None
        if threading.current_thread() is threading.main_thread():
            self._before = signal.signal(signal.SIGTSTP, self._suspend)
        self._thread = threading.Thread(target=self._keep_drawing, daemon=True, name="live view")
        self._thread.start()
        LiveDisplay.is_open = True

    def show(self, progress: Progress) -> None:
        if progress.phase is not self._progress.phase:
            self._phase_began = time.monotonic()
        self._progress, self._is_news = progress, True

    def close(self) -> None:
        """Erase the frame, and give the streams back. Idempotent."""
        if self._is_over.is_set():
            return
        self._is_over.set()
        self._thread.join(_JOIN_SECONDS)  # it may hang in a write to a terminal that is held
        if self._before is not None:
            signal.signal(signal.SIGTSTP, self._before)
        for name, stream in self._streams.items():
            stream.give_back(name)
        with contextlib.suppress(OSError), self._lock:
            self._draw([])
        LiveDisplay.is_open = False

    def end(self, text: str) -> None:
        """Print *text* where the frame was. Call it after `close`."""
        with contextlib.suppress(OSError):
            print(text, file=self._file, flush=True)

    def erasing(self) -> str:
        """Stop drawing, and return the codes that erase the frame. Takes no lock: it may be held."""
        self._is_over.set()
        return self._region.erasing()

    def _above(self, lines: str) -> None:
        text = "".join(f"{in_colour(line)}\n" for line in scrubbed(lines).split("\n"))
        with self._lock:  # the frame as it was: a capability may print thousands of lines a second
            self._draw([] if self._is_over.is_set() else self._region.drawn, above=text)

    def _keep_drawing(self) -> None:
        with contextlib.suppress(OSError):  # the terminal is gone
            while not self._is_over.wait(REDRAW_SECONDS):
                if self._is_suspended:
                    self._stop_process()
                elif self._is_news or time.monotonic() - self._drawn_at >= _STILL_SECONDS:
                    self._is_news, self._drawn_at = False, time.monotonic()
                    with self._lock:
                        self._draw(self._lines())

    def _draw(self, lines: Sequence[DrawnLine], *, above: str = "") -> None:
        if self._region.is_in_front():
            self._region.draw(lines, above=above)
            return
        self._region.forget()
        if above:
            self._region.draw([], above=above)

    def _lines(self) -> list[DrawnLine]:
        progress, now = self._progress, time.monotonic()
        self._throughput.take(progress, at=now)
        is_ascii = not (self._console.encoding or "").lower().startswith("utf")
        scene = Scene(progress, now - self._phase_began, self._throughput, ascii=is_ascii)
        columns, lines = self._region.size()
        return [self._drawn(text) for text in frame(scene, columns=columns, lines=lines)]

    def _drawn(self, text: Text) -> DrawnLine:
        with self._console.capture() as shown:
            self._console.print(text, end="", soft_wrap=True)
        return DrawnLine(shown.get(), text.cell_len)

    def _suspend(self, *_: object) -> None:
        """Take Ctrl-Z. The thread that draws stops the process, since it knows what is drawn."""
        self._is_suspended = True

    def _stop_process(self) -> None:
        with self._lock:
            self._draw([])
            self._is_suspended = False
            os.kill(os.getpid(), signal.SIGSTOP)
            self._region.forget()  # it goes on here, below whatever the shell has written


def _replaced_streams(file: TextIO, take: Any) -> dict[str, WholeLines]:
    """Replace the standard streams that end at a terminal, and return what replaces them."""
    replaced = {}
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        with contextlib.suppress(AttributeError, ValueError):  # there is none, or it is closed
            if stream is file or stream.isatty():
                replaced[name] = WholeLines.replacing(name, take)
    return replaced
