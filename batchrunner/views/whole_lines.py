"""Replaces a standard stream while a display is on it, and passes on whole lines only."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any, TextIO, cast

_installed: list[WholeLines] = []
"""Kept for the life of the process: a `print` in another thread uses a stream that it does not own
(CPython 3.11), and would write into a freed one."""


class WholeLines:
    """A stream that collects what each thread writes into lines, and passes on the whole ones.

    `print` writes its text and the line break one after the other: without a buffer for each thread,
    lines of two threads would be glued together. Safe in several threads.

    Not a subclass of `io.TextIOBase`, whose encoding is None: click bypasses such a stream.

    Attributes:
        before: The stream that it replaces, to which a fork writes, and whose attributes it has.
    """

    def __init__(self, before: TextIO, take: Callable[[str], None]) -> None:
        """Prepare to replace *before*; *take* is called with whole lines, without the last break."""
        self.before, self._take = before, take
        self._open: dict[int, str] = {}
        # Reentrant: a signal handler may print while its own thread is in here.
        self._lock = threading.RLock()
        self._process = os.getpid()

    @classmethod
    def replacing(cls, name: str, take: Callable[[str], None]) -> WholeLines:
        """Replace `sys.stdout` or `sys.stderr`, also where a log handler writes to it."""
        stream = cls(getattr(sys, name), take)
        _installed.append(stream)
        setattr(sys, name, stream)
        _lead(stream.before, to=stream)
        return stream

    def give_back(self, name: str) -> None:
        """Pass on what is left, and put the stream of before back, unless it was replaced since."""
        self.close()
        _lead(self, to=self.before)
        if getattr(sys, name) is self:
            setattr(sys, name, self.before)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.before, name)

    def write(self, text: str) -> int:
        if os.getpid() != self._process:  # a fork of the user's code has no display
            return self.before.write(text)
        thread = threading.get_ident()
        with self._lock:
            lines, _, rest = ("\n" + self._open.pop(thread, "") + text).rpartition("\n")
            if rest:
                self._open[thread] = _last_state(rest)
            if lines:
                self._pass_on("\n".join(map(_last_state, lines[1:].split("\n"))))
        return len(text)

    def writelines(self, lines: list[str]) -> None:
        self.write("".join(lines))

    def flush(self) -> None:
        """Do nothing in the process with the display, which would be broken by half a line."""
        if os.getpid() != self._process:
            self.before.flush()

    def close(self) -> None:
        """Pass on the last line of each thread, even if it does not end in a line break."""
        with self._lock:
            for line in self._open.values():
                self._pass_on(line)
            self._open = {}

    def _pass_on(self, lines: str) -> None:
        """Pass *lines* on, or lose them: a `print` must not raise because the display is gone."""
        with contextlib.suppress(OSError):
            self._take(lines)


def _lead(stream: Any, *, to: Any) -> None:
    """Lead the log handlers that write to *stream* to another one: they keep the stream they began with."""
    for handler in _handlers():
        if handler.stream is stream:
            handler.setStream(cast(TextIO, to))


def _handlers() -> Iterator[logging.StreamHandler[TextIO]]:
    loggers = [logging.root, *logging.root.manager.loggerDict.values()]
    for logger in loggers:
        for handler in [*logger.handlers] if isinstance(logger, logging.Logger) else []:
            if isinstance(handler, logging.StreamHandler):
                yield handler


def _last_state(line: str) -> str:
    """Return the text of *line* after its last carriage return: progress bars overwrite themselves."""
    return line.rstrip("\r").rpartition("\r")[2]
