"""The process that `isolation` starts: calls a capability and sends the answers through a pipe.

The process must not outlive its owner (the worker), exceed its memory limit, or end because of a
signal that was meant for its owner.
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
from collections.abc import Callable
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from types import FrameType
from typing import Any

from batchrunner.errors import CapabilityImportError, describe
from batchrunner.user_code import contained

_PR_SET_PDEATHSIG = 1
_LOOK_SECONDS = 1.0


def main(receive: int, send: int, owner: int, memory: int) -> None:
    """Build the capability of the `Work` received first; then answer calls until the pipe closes.

    The first answer is a message why the capability cannot be built; empty if it was built.
    """
    die_with(owner)  # before the user's code runs, which may hang
    leave_signals_to_the_owner()
    inbox: Connection[Any, Any] = Connection(receive, writable=False)
    outbox: Connection[Any, Any] = Connection(send, readable=False)
    from batchrunner.worker.capture import name_levels

    name_levels()
    bound_memory(memory)
    try:
        work = contained(partial(pickle.loads, inbox.recv_bytes()))
        answer = _answering(work, memory=memory)
    except CapabilityImportError as error:
        outbox.send(_message(error, error.__cause__, memory=memory))
        return
    except Exception as error:  # noqa: BLE001 - importing runs the user's code
        why = _with(_limit(error, memory=memory), describe(error))
        outbox.send(f"the capability cannot be built: {why}")
        return
    outbox.send("")
    answer(inbox, outbox)


def _answering(work: Any, *, memory: int) -> Callable[[Any, Any], None]:
    """Build the capability of *work*; return what answers the owner until the pipe closes."""
    from batchrunner.worker.batch_service import BatchService
    from batchrunner.worker.capability_loading import loaded_capability
    from batchrunner.worker.row_service import RowService

    message = partial(_message_of, memory=memory)
    if work.spec.called.mode != "row":
        return BatchService(work, message=message).serve
    function = loaded_capability(work)
    return RowService(function, work.spec.called.fn_kwargs, message=message).serve


def _message_of(error: Exception, *, memory: int) -> str:
    return _message(error, error, memory=memory)


def _message(error: Exception, reason: BaseException | None, *, memory: int) -> str:
    """Return the message of *error*; name `execution.memory` if *reason* is a `MemoryError`."""
    return _with(_limit(reason, memory=memory), str(error))


def _with(limit: str, message: str) -> str:
    return f"{message} ({limit})" if limit and message else message or limit


def _limit(reason: BaseException | None, *, memory: int) -> str:
    if not isinstance(reason, MemoryError):
        return ""
    return f"its process may take {memory / 2**30:.3g} GiB, see execution.memory"


def die_with(owner: int) -> None:
    """End this process when its parent *owner* (a pid) ends, even during a call that hangs."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    # For systems without prctl, and if the owner ended before the call above.
    threading.Thread(target=_watch, args=(owner,), daemon=True, name="owner").start()


def _watch(owner: int) -> None:
    while os.getppid() == owner:
        time.sleep(_LOOK_SECONDS)
    os.kill(os.getpid(), signal.SIGKILL)


def leave_signals_to_the_owner() -> None:
    """Ignore Ctrl-C and SIGTERM, which reach the whole group: the owner decides what to end.

    Sets handlers that do nothing, since programs that the capability starts would inherit SIG_IGN.
    """
    me = os.getpid()

    def leave(number: int, _: FrameType | None) -> None:
        if os.getpid() != me:  # in a fork that the capability made: end as usual
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)

    signal.signal(signal.SIGINT, leave)
    signal.signal(signal.SIGTERM, leave)


def bound_memory(memory: int) -> None:
    """Make allocations fail once this process has allocated *memory* bytes more than now.

    Limits the data segment and not the address space, of which CUDA and others reserve far more
    than they use. If the machine still runs out of memory, the kernel kills this process before its
    owner.
    """
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")
    _, most = resource.getrlimit(resource.RLIMIT_DATA)
    limit = _data_bytes() + memory
    with contextlib.suppress(OSError, ValueError):  # a lower limit that is set already stays
        resource.setrlimit(resource.RLIMIT_DATA, (limit, most))


def _data_bytes() -> int:
    with contextlib.suppress(OSError, ValueError, StopIteration):
        lines = Path("/proc/self/status").read_text().splitlines()
        return 1024 * int(next(line for line in lines if line.startswith("VmData")).split()[1])
    return 0


if __name__ == "__main__":
    with contextlib.suppress(BrokenPipeError):  # the owner has ended
        main(*map(int, sys.argv[1:]))
