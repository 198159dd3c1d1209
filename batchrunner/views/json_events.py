"""What a session does, as JSON lines for a program: `docs/reference/progress-events.md`."""

from __future__ import annotations

import contextlib
import json
import logging
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from functools import partial
from typing import Any, Self, TextIO

from batchrunner.views.whole_lines import WholeLines

VERSION = 1
"""Of the events. It grows when a field changes its meaning or goes; new fields and events may come."""


class JsonEvents:
    """Writes events to a stream, each as one line. Safe in several threads."""

    def __init__(self, file: TextIO, *, lossy: bool = False) -> None:
        """Prepare to write to *file*; *lossy*: an event that cannot be written is lost, silently."""
        self._file, self._lossy, self._lock = file, lossy, threading.RLock()
        self._streams: dict[str, WholeLines] = {}

    def write(self, event: str, **fields: Any) -> None:
        """Write one event.

        Raises:
            OSError: It cannot be written, and events may not get lost.
        """
        text = as_line(event, **fields)
        with self._lock, contextlib.suppress(*[OSError] if self._lossy else []):
            self._file.write(f"{text}\n")
            self._file.flush()

    def begin(self, *names: str) -> Self:
        """Replace the streams *names* of `sys`: each line that is printed becomes an event."""
        for name in names:
            if getattr(sys, name):
                self._streams[name] = WholeLines.replacing(name, partial(self._take, name))
        return self

    def end(self, *names: str) -> None:
        """Give the streams *names* back; by default, all that were replaced. Idempotent."""
        for name in names or [*self._streams]:
            if stream := self._streams.pop(name, None):
                stream.give_back(name)

    def _take(self, stream: str, lines: str) -> None:
        from batchrunner.spec.secrets import scrubbed  # here: `--help` imports this module

        meant = _meant.get()
        if meant is None:
            for line in lines.split("\n"):
                self.write("output", stream=stream, text=scrubbed(line))
        elif not meant.is_written:  # one event, however many lines it has for people
            meant.is_written = True
            self.write(meant.event, **meant.fields)


def as_line(event: str, **fields: Any) -> str:
    """Return one event as a line, without its line break."""
    head = {"v": VERSION, "event": event, "at": datetime.now(UTC).isoformat()}
    return json.dumps({**head, **fields}, default=str)


class _Meant:
    """The event that the text printed now stands for."""

    def __init__(self, event: str, fields: Mapping[str, Any]) -> None:
        self.event, self.fields, self.is_written = event, fields, False


_meant: ContextVar[_Meant | None] = ContextVar("meant", default=None)


@contextmanager
def meaning(event: str, **fields: Any) -> Iterator[None]:
    """Say which *event* the text is that the block prints; without `JsonEvents`, it is just text."""
    token = _meant.set(_Meant(event, fields))
    try:
        yield
    finally:
        _meant.reset(token)


def log_fields(record: logging.LogRecord, message: str) -> dict[str, Any]:
    """Return the fields of the event of a log *record*, whose *message* has no secrets any more."""
    return {"level": record.levelname, "logger": record.name, "message": message}
