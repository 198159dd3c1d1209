"""Calls the user's code so that whatever it raises is an `Exception`, except a real interrupt.

For one bad row it may raise `SystemExit`, `KeyboardInterrupt`, or anything else that ends a process, a
thread or an event loop; only that row may fail. Ctrl-C, SIGTERM and Ray's cancel raise the same types in
the same place, and must stop the work at once. The type does not distinguish the two, but a real
interrupt is raised by a signal handler: so the handlers are wrapped while the user's code runs.

Also finds file and line of an error in the user's code, and its traceback without our frames.
"""

from __future__ import annotations

import gc
import importlib
import re
import signal
import sys
import sysconfig
import threading
import traceback
from collections.abc import Callable, Iterable
from pathlib import Path
from types import FrameType
from typing import Any, Self, TypeVar

T = TypeVar("T")

# The C functions behind `signal`, whose enums make it ten times as slow: it is called per batch.
_raw = importlib.import_module("_signal")

_INTERRUPTS = (int(signal.SIGINT), int(signal.SIGTERM))
"""Signals that stop a run. Not SIGALRM and others: user code limits its own calls with those."""


_OURS = f"{Path(__file__).parent}/"
_SHIPPED = f"{_OURS}capabilities/"  # which stand where a user's code would
_LIBRARIES = tuple({f"{sysconfig.get_path(name)}/" for name in ("stdlib", "platstdlib")})
_INSTALLED = ("/site-packages/", "/dist-packages/")
_COMPILED = (".pyx", ".pxi", ".pxd")
_FRAME = re.compile(r'^ *File "(.+)", line (\d+)', re.MULTILINE)
_CHAINED = re.compile(
    r"^(?:The above exception was the direct cause of the following|"
    r"During handling of the above exception, another) exception(?: occurred)?:$",
    re.MULTILINE,
)
_MAX_TRACEBACK = 4000
_NO_MEMORY = (
    "out of memory",  # CUDA, HIP, MPS, XLA, the driver
    "alloc_failed",  # CUBLAS_STATUS_ALLOC_FAILED, CUDNN_STATUS_ALLOC_FAILED
    "available memory of",  # onnxruntime: … is smaller than requested bytes of …
    "oom when allocating",  # TensorFlow
    "allocate memory",  # onnxruntime, torch on the CPU, the system's ENOMEM
    "you tried to allocate",  # torch on the CPU
    "bad_alloc",  # C++
    "bad allocation",
)
"""What the messages of libraries say when memory ran out, in lower case."""


class CallRaisedError(Exception):
    """Stands for an error of the user's code that cannot be raised here as it is.

    It is not an `Exception`, its message cannot be formatted, or another process raised it.

    Attributes:
        type_name: Name of the error's type.
        traceback: The traceback of the user's code as text; may be empty.
    """

    def __init__(self, type_name: str, message: str, traceback: str) -> None:
        super().__init__(message)
        self.type_name, self.traceback = type_name, traceback

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.type_name, str(self), self.traceback), self.__dict__

    @classmethod
    def of(cls, error: BaseException) -> CallRaisedError:
        """Return a `CallRaisedError` that stands for *error*, with its traceback."""
        frames = "".join(traceback.format_tb(error.__traceback__))
        return cls(_type_name(error), _text(error), frames).with_traceback(error.__traceback__)


def contained(call: Callable[[], T]) -> T:
    """Make *call* into the user's code and return its result; all that it raises is an `Exception`.

    A signal that interrupts the call ends it, even if the user's code catches the exception.

    Raises:
        Exception: The user's code raised it; a `CallRaisedError` stands for what is no `Exception`.
        BaseException: A signal handler raised it: a real interrupt.
    """
    with Containment() as containment:
        return containment.call(call)


class Containment:
    """A block that makes several calls into the user's code; what signal handlers raise in it is known."""

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
            if _raw.getsignal(number) == self._handle:  # else the user's code has replaced it
                _raw.signal(number, handler)

    def call(self, call: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        """Do as `contained`, inside the block."""
        try:
            result = call(*args, **kwargs)
        except BaseException as error:
            self.check()  # first: an interrupt wins over what the user's code raised after it
            if (stand_in := presentable(error)) is error:
                raise
            raise stand_in from error
        self.check()  # also an interrupt that the user's code has caught
        return result

    def check(self) -> None:
        """Raise the interrupt that a signal handler raised, if one did: the user's code may have caught it."""
        if self._raised is not None:
            raise self._raised

    def _handle(self, number: int, frame: FrameType | None) -> None:
        try:
            self._before[number](number, frame)
        except BaseException as error:
            self._raised = error
            raise


def presentable(error: BaseException) -> Exception:
    """Return *error*; if it is no `Exception`, or its message cannot be formatted, what stands for it."""
    if isinstance(error, Exception) and _has_text(error):
        return error
    return CallRaisedError.of(error)


def _has_text(error: Exception) -> bool:
    """Return whether `str(error)` works: `__str__` is the user's code, too, and may raise."""
    try:
        str(error)
    except BaseException:  # noqa: BLE001 - the user's code may raise anything
        return False
    return True


def _type_name(error: BaseException) -> str:
    return str(getattr(error, "type_name", type(error).__name__))


def _text(error: BaseException) -> str:
    try:
        return str(error)
    except BaseException as failure:  # noqa: BLE001 - the user's code may raise anything
        return f"(its message cannot be formatted: {type(failure).__name__})"


def place_in_code(error: BaseException) -> str:
    """Return file:line of the innermost frame of the user's code; "" if there is none.

    Frames of installed packages count only if there are no others: then it is the line we called.
    """
    walked = traceback.walk_tb(error.__traceback__)  # not `extract_tb`, which reads the source
    frames = [(frame.f_code.co_filename, line) for frame, line in walked]
    return _innermost(frames) or _innermost(_quoted(error))


def _quoted(error: BaseException) -> list[tuple[str, str]]:
    """Return the frames of an error of another process, without those of the errors that caused it."""
    if not isinstance(error, CallRaisedError):
        return []
    return _FRAME.findall(_CHAINED.split(error.traceback)[-1])


def traceback_of(error: BaseException) -> str:
    """Return the traceback of *error* without our frames; if it is long, only its end."""
    if isinstance(error, CallRaisedError):  # it has a cause unless another process raised it
        text = traceback_of(error.__cause__) if error.__cause__ else error.traceback
    else:
        text = "".join(_without_ours(traceback.TracebackException.from_exception(error)).format())
    return text if len(text) <= _MAX_TRACEBACK else f"…{text[-_MAX_TRACEBACK:]}"


def blamed(error: Exception, stage: str) -> Exception:
    """Return *error*, which came up in *stage*; `stage_of` then knows it. Survives pickling."""
    try:
        error.stage_of_batch = stage  # type: ignore[attr-defined]
    except Exception:  # noqa: BLE001 - the class is the user's, and may have slots
        error = portable(error)
        error.stage_of_batch = stage  # type: ignore[attr-defined]
    return error


def stage_of(error: BaseException) -> str:
    """Return the stage that *error* came up in; "" if the capability has no stages."""
    return str(getattr(error, "stage_of_batch", ""))


def portable(error: Exception) -> CallRaisedError:
    """Return what stands for *error* in another process, with its place in the user's code."""
    return CallRaisedError(_type_name(error), _text(error), traceback_of(error))


def is_out_of_memory(error: Exception) -> bool:
    """Return whether *error* means that memory ran out: the host's, or by its message a GPU's."""
    name, text = _type_name(error), _text(error).lower()
    by_name = "MemoryError" in name or "OutOfMemory" in name
    return isinstance(error, MemoryError) or by_name or any(words in text for words in _NO_MEMORY)


def free_memory_of(error: Exception) -> None:
    """Free what the calls that *error* ended still hold, and what torch keeps for later ones.

    Without it, a smaller batch finds the memory full of the larger one: an error refers to the frames that
    it went through, whose variables are tensors, and what torch frees goes into a cache, in blocks that may
    fit nothing else.
    """
    seen: set[int] = set()
    one: BaseException | None = error
    while one is not None and id(one) not in seen:
        seen.add(id(one))
        traceback.clear_frames(one.__traceback__)
        one = one.__cause__ or one.__context__
    gc.collect()
    torch = sys.modules.get("torch")  # imported by the user's code, if at all
    if torch is not None and torch.cuda.is_initialized():
        torch.cuda.empty_cache()


def _innermost(frames: Iterable[tuple[str, int | str]]) -> str:
    theirs = [(file, line) for file, line in frames if not _is_ours(file)]
    own = [(file, line) for file, line in theirs if not _is_installed(file)]
    file, line = (own or theirs[:1] or [("", "")])[-1]
    return f"{file}:{line}" if file else ""


def _without_ours(error: traceback.TracebackException) -> traceback.TracebackException:
    theirs = [frame for frame in error.stack if not _is_ours(frame.filename)]
    own = [frame for frame in theirs if not _is_installed(frame.filename)]
    # Installed frames before the user's first are libraries through which we called the code.
    error.stack[:] = theirs[theirs.index(own[0]) :] if own else theirs
    for earlier in (error.__cause__, error.__context__):
        if earlier is not None:
            _without_ours(earlier)
    return error


def _is_ours(file: str) -> bool:
    is_ours = file.startswith(_OURS) and not file.startswith(_SHIPPED)
    return is_ours or file.startswith("<frozen ")


def _is_installed(file: str) -> bool:
    is_compiled = file.endswith(_COMPILED)
    return is_compiled or file.startswith(_LIBRARIES) or any(part in file for part in _INSTALLED)
