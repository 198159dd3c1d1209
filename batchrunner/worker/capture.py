"""What this process prints and logs, seen on its way by whoever listens.

Only what goes through Python: a C library that writes to file descriptor 2 by itself is not seen.
"""

from __future__ import annotations

import io
import logging
import os
import sys
import threading
from collections.abc import Callable
from typing import Any, TextIO

Listener = Callable[[str], None]

_FORMAT = "%(levelname)s %(name)s: %(message)s"

_listeners: list[Listener] = []
_lock = threading.RLock()


def listen(listener: Listener) -> None:
    """Give *listener* every text that is printed or logged from now on. It must not print itself."""
    with _lock:
        _listeners.append(listener)
        if len(_listeners) == 1:
            _install()


def stop_listening(listener: Listener) -> None:
    """Give *listener* nothing more. Idempotent."""
    with _lock:
        if listener in _listeners:
            _listeners.remove(listener)
            if not _listeners:
                _uninstall()


def name_levels() -> None:
    """Have warnings that no handler takes say their level and their logger."""
    logging.lastResort = _last_resort


class _Tee(io.TextIOBase):
    """A standard stream that the listeners hear, too."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream

    @property
    def encoding(self) -> str:  # type: ignore[override]  # `TextIOBase` says None, which click takes for a broken one
        return self.stream.encoding

    @property
    def errors(self) -> str | None:  # type: ignore[override]
        return self.stream.errors

    def write(self, text: str) -> int:
        """Write *text*; what the stream cannot encode, as escapes: no row fails for what it prints."""
        try:
            self.stream.write(text)
        except UnicodeEncodeError:
            self.stream.write(text.encode("ascii", "backslashreplace").decode())
        _hear(text)
        return len(text)

    def flush(self) -> None:
        self.stream.flush()

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self.stream.fileno()

    def isatty(self) -> bool:
        return self.stream.isatty()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


class _RootHandler(logging.Handler):
    """Hears the records that only handlers get which know the standard streams from before."""

    def emit(self, record: logging.LogRecord) -> None:
        if record.name.startswith("batchrunner"):  # the driver's, on the local engine
            return
        handlers = logging.getLogger().handlers
        if not any(isinstance(getattr(handler, "stream", None), _Tee) for handler in handlers):
            _hear(self.format(record) + "\n")


class _LastResort(logging.Handler):
    """Writes to whatever is stderr by then, as logging's own does."""

    def emit(self, record: logging.LogRecord) -> None:
        print(self.format(record), file=sys.stderr)  # noqa: T201 - where warnings go by default


def _hear(text: str) -> None:
    for listener in tuple(_listeners):
        listener(text)


_root_handler = _RootHandler()
_last_resort = _LastResort(logging.WARNING)
for _handler in (_root_handler, _last_resort):
    _handler.setFormatter(logging.Formatter(_FORMAT))
_usual_last_resort: logging.Handler | None = logging.lastResort


def _install() -> None:
    """Take the place of the standard streams.

    A root logger without handlers gets none, or `logging.basicConfig` in the user's code would do
    nothing. Its warnings go to the last resort, which names level and logger for the time being.
    """
    if sys.stdout is not None:
        sys.stdout = _Tee(sys.stdout)
    if sys.stderr is not None:
        sys.stderr = _Tee(sys.stderr)
    name_levels()
    if logging.getLogger().handlers:
        logging.getLogger().addHandler(_root_handler)


def _uninstall() -> None:
    """Put back what was there, unless the user's code has put something else there since."""
    if isinstance(sys.stdout, _Tee):
        sys.stdout = sys.stdout.stream
    if isinstance(sys.stderr, _Tee):
        sys.stderr = sys.stderr.stream
    logging.lastResort = _usual_last_resort
    logging.getLogger().removeHandler(_root_handler)


def _be_quiet() -> None:
    """In a fork, whose lines would only be kept by its parent, hear nothing: locks may be held there."""
    _listeners.clear()


os.register_at_fork(after_in_child=_be_quiet)
