"""The other side of `isolation`: a process that calls a capability and answers through a pipe.

It must not outlive its owner, nor take more memory than it may, nor end of a signal that was meant
for its owner.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import pickle
import resource
import signal
import sys
import threading
import time
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from types import FrameType
from typing import Any

from batchrunner.errors import CapabilityImportError, describe
from batchrunner.user_code import contained, traceback_of

_PR_SET_PDEATHSIG = 1
_LOOK_SECONDS = 1.0


def main(receive: int, send: int, owner: int, memory: int) -> None:
    """Build the capability of the work that comes first, then answer calls until there are none."""
    die_with(owner)
    leave_signals_to_the_owner()
    inbox: Connection[Any, Any] = Connection(receive, writable=False)
    outbox: Connection[Any, Any] = Connection(send, readable=False)
    from batchrunner.worker.capture import name_levels
    from batchrunner.worker.process import direct_caller

    name_levels()
    bound_memory(memory)
    try:
        work = contained(partial(pickle.loads, inbox.recv_bytes()))
        caller = direct_caller(work, work.schema())
    except CapabilityImportError as error:
        outbox.send(_told(error, error.__cause__, memory=memory))
        return
    except Exception as error:  # noqa: BLE001 - importing runs the user's code
        outbox.send(f"the capability cannot be built: {describe(error)}")
        return
    outbox.send("")
    while True:
        try:
            batch = inbox.recv()
        except EOFError:
            return
        outbox.send(_answer(caller, batch, memory=memory))


def _answer(caller: Any, batch: Any, *, memory: int) -> tuple[str, Any]:
    try:
        return "made", caller.submit(batch)()
    except Exception as error:  # noqa: BLE001 - the user's code may raise anything
        name = getattr(error, "type_name", type(error).__name__)
        return "raised", (name, _told(error, error, memory=memory), traceback_of(error))


def _told(error: Exception, reason: BaseException | None, *, memory: int) -> str:
    """Return what *error* says, and the way out when its *reason* is our own bound."""
    if not isinstance(reason, MemoryError):
        return str(error)
    allowed = f"its process may take {memory / 2**30:.3g} GiB, see execution.memory"
    return f"{error} ({allowed})" if str(error) else allowed


def die_with(owner: int) -> None:
    """End when *owner*, our parent, ends, however it does; a call that hangs would go on otherwise."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    # Also where there is no prctl, and for an owner that was gone before it was called.
    threading.Thread(target=_watch, args=(owner,), daemon=True, name="owner").start()


def _watch(owner: int) -> None:
    while os.getppid() == owner:
        time.sleep(_LOOK_SECONDS)
    os.kill(os.getpid(), signal.SIGKILL)


def leave_signals_to_the_owner() -> None:
    """Have Ctrl-C and SIGTERM, which a whole process group gets, end no call: the owner decides.

    By handlers, which a program that the capability starts does not inherit, as it would inherit
    that they are ignored.
    """
    me = os.getpid()

    def leave(number: int, _: FrameType | None) -> None:
        if os.getpid() != me:  # a fork of the capability's: it ends as usual
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)

    signal.signal(signal.SIGINT, leave)
    signal.signal(signal.SIGTERM, leave)


def bound_memory(memory: int) -> None:
    """Let allocations fail beyond *memory* bytes on top of what this process has by now.

    Its data, not its address space: of that, CUDA and others reserve far more than they use. Should
    the machine run out all the same, the kernel is asked to end this process, and not its owner.
    """
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")
    _, most = resource.getrlimit(resource.RLIMIT_DATA)
    limit = _data_bytes() + memory
    with contextlib.suppress(OSError, ValueError):  # where there is a lower limit, that holds
        resource.setrlimit(resource.RLIMIT_DATA, (limit, most))


def _data_bytes() -> int:
    with contextlib.suppress(OSError, ValueError, StopIteration):
        lines = Path("/proc/self/status").read_text().splitlines()
        return 1024 * int(next(line for line in lines if line.startswith("VmData")).split()[1])
    return 0


if __name__ == "__main__":
    with contextlib.suppress(BrokenPipeError):  # whoever asked is gone
        main(*map(int, sys.argv[1:]))
