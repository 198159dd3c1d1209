"""The standard streams of the command line, from its first line to its last."""

from __future__ import annotations

import contextlib
import os
import sys


def begin_streams() -> None:
    """Open each standard stream that the caller has closed, as with `2>&-`, as the null device.

    Else the next file that is opened, such as a part of the output, would be descriptor 2, and what a
    library writes to stderr would end up in it.
    """
    for descriptor, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            null = os.open(os.devnull, os.O_RDWR)
            os.dup2(null, descriptor)  # to itself, usually: the lowest that is free
            os.set_inheritable(descriptor, True)
            if null != descriptor:
                os.close(null)
            stream = os.fdopen(descriptor, "w" if descriptor else "r", closefd=False)
            setattr(sys, name, stream)


def end_streams() -> None:
    """Write what is left to write. What cannot be written is dropped: at its exit, Python tries again.

    Failing there, it would end a run that is complete with exit code 120.
    """
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            with contextlib.suppress(OSError, ValueError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
        except ValueError:  # the user's code has closed it
            continue
