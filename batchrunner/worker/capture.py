"""Captures what this process prints and logs, and passes it to listeners.

Captures only Python's streams and loggers, not what a C library writes to file descriptor 2.
"""

from __future__ import annotations

import contextlib
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
_streams: list[_CapturedStream] = []
_lock = threading.RLock()


def listen(listener: Listener) -> None:
    """Call *listener* with each text that is printed or logged from now on. It must not print."""
    with _lock:
        _listeners.append(listener)
        if len(_listeners) == 1:
            _install()


def stop_listening(listener: Listener) -> None:
    """Stop calling *listener*. Idempotent."""
    with _lock:
        if listener in _listeners:
            _listeners.remove(listener)
            if not _listeners:
                _uninstall()


def name_levels() -> None:
    """Add level and logger to the warnings that logging prints if no handler is set up."""
    logging.lastResort = _last_resort


class _CapturedStream(io.TextIOBase):
    """A standard stream that also passes its text to the listeners."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream

    @property
    def encoding(self) -> str:  # type: ignore[override]  # None, as of `TextIOBase`, is a broken stream to click
        return self.stream.encoding

    @property
    def errors(self) -> str | None:  # type: ignore[override]
        return self.stream.errors

    def write(self, text: str) -> int:
        """Write *text*; escape what the stream cannot encode, as printing must not fail a row.

        Nor must it where the stream leads nowhere any more: a terminal that was closed, a pipe whose
        reader has ended, a full disk. The listeners have the text.
        """
        _pass_on(text)  # first: a handler of the user's may hold a stream that was closed since
        with contextlib.suppress(OSError):
            try:
                self.stream.write(text)
            except UnicodeEncodeError:
                self.stream.write(text.encode("ascii", "backslashreplace").decode())
        return len(text)

    def flush(self) -> None:
        with contextlib.suppress(OSError):
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
    """Captures log records if no handler of the root logger writes to a captured stream."""

    def emit(self, record: logging.LogRecord) -> None:
        if record.name.startswith("batchrunner"):  # the driver's own, on the local engine
            return
        handlers = logging.getLogger().handlers
        if not any(
            isinstance(getattr(handler, "stream", None), _CapturedStream) for handler in handlers
        ):
            _pass_on(self.format(record) + "\n")


class _LastResort(logging.Handler):
    """Writes to the current `sys.stderr`, as logging's own handler of last resort does."""

    def emit(self, record: logging.LogRecord) -> None:
        print(self.format(record), file=sys.stderr)  # noqa: T201 - where warnings go by default


def _pass_on(text: str) -> None:
    for listener in tuple(_listeners):
        listener(text)


_root_handler = _RootHandler()
_last_resort = _LastResort(logging.WARNING)
for _handler in (_root_handler, _last_resort):
    _handler.setFormatter(logging.Formatter(_FORMAT))
_usual_last_resort: logging.Handler | None = logging.lastResort


def _install() -> None:
    """Replace the standard streams, and add a handler to the root logger if it has handlers.

    If it has none, it gets none: otherwise `logging.basicConfig` in the user's code would do
    nothing. Its warnings then go to logging's last resort, which until `_uninstall` names level and
    logger.
    """
    if sys.stdout is not None:
        sys.stdout = _captured(sys.stdout)
    if sys.stderr is not None:
        sys.stderr = _captured(sys.stderr)
    name_levels()
    if logging.getLogger().handlers:
        logging.getLogger().addHandler(_root_handler)


def _captured(stream: TextIO) -> _CapturedStream:
    """Return the stream that captures *stream*: each time the same one, which is never freed.

    `print` does not own the `sys.stdout` that it writes to. If the last reference to it went while
    another thread, such as a hook's, prints, the interpreter would crash.
    """
    known = next((one for one in _streams if one.stream is stream), None)
    if known is None:
        known = _CapturedStream(stream)
        _streams.append(known)
    return known


def _uninstall() -> None:
    """Restore streams and logging; leave a stream that the user's code has replaced since."""
    if isinstance(sys.stdout, _CapturedStream):
        sys.stdout = sys.stdout.stream
    if isinstance(sys.stderr, _CapturedStream):
        sys.stderr = sys.stderr.stream
    logging.lastResort = _usual_last_resort
    logging.getLogger().removeHandler(_root_handler)


def _clear_listeners() -> None:
    """Remove all listeners in a fork: another thread may have held the lock of one."""
    _listeners.clear()


os.register_at_fork(after_in_child=_clear_listeners)
