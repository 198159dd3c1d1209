"""The one way into the user's code: whatever it raises comes out as an `Exception`, save a real interrupt.

A row may raise `SystemExit`, `KeyboardInterrupt`, or what else ends a process, a thread or an event
loop. It is one bad row all the same. Ctrl-C, SIGTERM and Ray's cancel raise the same types in the
same place, and must stop the work at once. The type does not tell them apart. What does: a real
interrupt is raised by a signal handler, so the handlers are watched while the user's code runs.
"""

from __future__ import annotations

import importlib
import signal
import threading
import traceback
from collections.abc import Callable
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
