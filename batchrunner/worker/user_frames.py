"""Where an error of the user's code comes from: file and line, and the traceback without our frames."""

from __future__ import annotations

import re
import sysconfig
import traceback
from collections.abc import Iterable
from pathlib import Path

from batchrunner.user_code import CallRaisedError

_OURS = f"{Path(__file__).parents[1]}/"
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
