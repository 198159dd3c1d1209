"""Work in a fork of this process, which may be killed there. Only for processes without threads."""

from __future__ import annotations

import gc
import os
import sys


class ChildFailed(Exception):  # noqa: N818 - it reads better
    """The child raised; it wrote what to stderr."""


def in_child(work) -> bool:
    """Do *work* in a fork; return whether that was killed."""
    child = os.fork()
    if child == 0:
        gc.disable()
        status = 1
        try:
            work()
            status = 0
        except BaseException as error:  # noqa: BLE001 - reported to the parent
            sys.stderr.write(f"{type(error).__name__}: {error}\n")
        finally:
            os._exit(status)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        return True
    if os.WEXITSTATUS(status):
        raise ChildFailed
    return False
