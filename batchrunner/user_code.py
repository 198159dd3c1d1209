"""The one way into the user's code: whatever it raises comes out as an `Exception`, save a real interrupt.

A row may raise `SystemExit`, `KeyboardInterrupt`, or what else ends a process, a thread or an event
loop. It is one bad row all the same. Ctrl-C, SIGTERM and Ray's cancel raise the same types in the
same place, and must stop the work at once. The type does not tell them apart. What does: a real
interrupt is raised by a signal handler, so the handlers are watched while the user's code runs.

Where an error of the user's code comes from: file and line, and the traceback without our frames.
"""

from __future__ import annotations

import importlib
import re
import signal
import sysconfig
import threading
import traceback
from collections.abc import Callable, Iterable
from pathlib import Path
from types import FrameType
from typing import Any, Self, TypeVar

T = TypeVar("T")

# What `signal` wraps: with its enums around them they take ten times as long, at each batch.
_raw = importlib.import_module("_signal")

_INTERRUPTS = (int(signal.SIGINT), int(signal.SIGTERM))
"""Not SIGALRM and the like: with those, users bound their own calls."""


class CallRaisedError(Exception):
    """The user's code raised what is no `Exception`, or did so in another process; this says what."""

    def __init__(self, type_name: str, message: str, traceback: str) -> None:
        super().__init__(message)
        self.type_name, self.traceback = type_name, traceback

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.type_name, str(self), self.traceback)

    @classmethod
    def of(cls, error: BaseException) -> CallRaisedError:
        """Return what stands for *error*, with its traceback."""
        name = getattr(error, "type_name", type(error).__name__)
        told = cls(str(name), _text(error), "".join(traceback.format_tb(error.__traceback__)))
        return told.with_traceback(error.__traceback__)


def contained(call: Callable[[], T]) -> T:
    """Return what *call* returns. Whatever the user's code raises in it is an `Exception` here.

    A signal that interrupts the call ends it, whatever the user's code made of that.

    Raises:
        Exception: What the user's code raised; as `CallRaisedError` when it was none.
        BaseException: What a signal handler raised: a real interrupt.
    """
    with _Interrupts() as interrupts:
        try:
            result = call()
        except BaseException as error:
            interrupts.go_on()
            if isinstance(error, Exception) and _has_text(error):
                raise
            raise CallRaisedError.of(error) from error
        interrupts.go_on()  # the user's code may have caught it
        return result


class _Interrupts:
    """Notes what the handlers of signals raise inside the block; in the main thread, where they run."""

    def __init__(self) -> None:
        self._raised: BaseException | None = None
        self._before: dict[int, Callable[[int, FrameType | None], Any]] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for number in _INTERRUPTS:
                handler = _raw.getsignal(number)
                if callable(handler):
                    self._before[number] = handler
                    _raw.signal(number, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            if _raw.getsignal(number) == self._handle:  # else it is the user's own by now
                _raw.signal(number, handler)

    def go_on(self) -> None:
        """Raise again what a handler raised."""
        if self._raised is not None:
            raise self._raised

    def _handle(self, number: int, frame: FrameType | None) -> None:
        try:
            self._before[number](number, frame)
        except BaseException as error:
            self._raised = error
            raise


def is_out_of_memory(error: Exception) -> bool:
    """Tell whether *error* is of the host's memory, or of a GPU's by the words of its library."""
    name = getattr(error, "type_name", type(error).__name__)
    by_name = "MemoryError" in name or "OutOfMemory" in name
    return isinstance(error, MemoryError) or by_name or "out of memory" in str(error)


def _has_text(error: Exception) -> bool:
    """Tell whether the message of *error* can be had: making it runs the user's code, too."""
    try:
        str(error)
    except BaseException:  # noqa: BLE001 - the user's code may raise anything
        return False
    return True


def _text(error: BaseException) -> str:
    try:
        return str(error)
    except BaseException as failure:  # noqa: BLE001 - the user's code may raise anything
        return f"(its message cannot be made: {type(failure).__name__})"


_OURS = f"{Path(__file__).parent}/"
_LIBRARIES = tuple({f"{sysconfig.get_path(name)}/" for name in ("stdlib", "platstdlib")})
_INSTALLED = ("/site-packages/", "/dist-packages/")
_COMPILED = (".pyx", ".pxi", ".pxd")
_FRAME = re.compile(r'^ *File "(.+)", line (\d+)', re.MULTILINE)
_MAX_TRACEBACK = 4000


def place_in_code(error: BaseException) -> str:
    """Return file:line of the innermost frame of the user's code; "" if the error came from none.

    Where all of it is installed, that is the line which we called.
    """
    walked = traceback.walk_tb(error.__traceback__)  # no `extract_tb`: that reads the source
    frames = [(frame.f_code.co_filename, line) for frame, line in walked]
    told = _FRAME.findall(error.traceback) if isinstance(error, CallRaisedError) else ()
    return _innermost(frames) or _innermost(told)


def traceback_of(error: BaseException) -> str:
    """Return the traceback of *error* without the frames that are ours; its end, when it is long."""
    if isinstance(error, CallRaisedError):  # stands for what was raised, here or in another process
        text = traceback_of(error.__cause__) if error.__cause__ else error.traceback
    else:
        text = "".join(_theirs(traceback.TracebackException.from_exception(error)).format())
    return text if len(text) <= _MAX_TRACEBACK else f"…{text[-_MAX_TRACEBACK:]}"


def _innermost(frames: Iterable[tuple[str, int | str]]) -> str:
    theirs = [(file, line) for file, line in frames if not _is_ours(file)]
    own = [(file, line) for file, line in theirs if not _is_installed(file)]
    file, line = (own or theirs[:1] or [("", "")])[-1]
    return f"{file}:{line}" if file else ""


def _theirs(told: traceback.TracebackException) -> traceback.TracebackException:
    theirs = [frame for frame in told.stack if not _is_ours(frame.filename)]
    own = [frame for frame in theirs if not _is_installed(frame.filename)]
    # What stands before their first frame is the machinery by which we called it.
    told.stack[:] = theirs[theirs.index(own[0]) :] if own else theirs
    for before in (told.__cause__, told.__context__):
        if before is not None:
            _theirs(before)
    return told


def _is_ours(file: str) -> bool:
    return file.startswith((_OURS, "<frozen "))


def _is_installed(file: str) -> bool:
    is_compiled = file.endswith(_COMPILED)
    return is_compiled or file.startswith(_LIBRARIES) or any(part in file for part in _INSTALLED)
