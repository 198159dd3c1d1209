"""A process of its own for a capability, which may die or hang without harm to the worker.

It costs a second copy of the model, and all rows pass through a pipe. The process runs `call_process`.
"""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future
from functools import cache
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from batchrunner.errors import CapabilityImportError

_OUTPUT_SECONDS = 3.0
_USUAL_SHARE = 0.8
"""Share of the machine's memory that a capability may use by default; others need the rest."""


class IsolatedProcess:
    """A process with the capability in it; one that ended may be started again.

    Attributes:
        to: The pipe to it.
        answers: The pipe from it.
    """

    to: Connection[Any, Any]
    answers: Connection[Any, Any]

    def __init__(self, work: bytes, memory: int | None) -> None:
        """Prepare to start it with the pickled *work*; it may allocate *memory* bytes, by default most of all."""
        self._work, self._memory = work, memory or int(_USUAL_SHARE * usable_memory())
        self._process: subprocess.Popen[bytes] | None = None
        self._output: threading.Thread

    @property
    def is_started(self) -> bool:
        """Whether it was started, and neither reaped nor closed since."""
        return self._process is not None

    def start(self) -> None:
        """Start the process, and build the capability in it.

        Raises:
            CapabilityImportError: The capability cannot be built there.
        """
        ours_in, theirs_out = os.pipe()
        theirs_in, ours_out = os.pipe()
        arguments = (theirs_in, theirs_out, os.getpid(), self._memory)
        self._process = _start_in_lasting_thread(
            lambda: subprocess.Popen(  # noqa: S603 - our own module
                [sys.executable, "-m", "batchrunner.worker.call_process", *map(str, arguments)],
                pass_fds=(theirs_in, theirs_out),
                env={
                    **os.environ,
                    # The same path: it unpickles functions from modules that this process imported.
                    "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
                    "PYTHONUNBUFFERED": "1",
                },
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                process_group=0,  # so that `close` also ends processes that the capability starts
            )
        )
        self._output = threading.Thread(target=_forward_output, args=(self._process,), daemon=True)
        self._output.start()
        # Otherwise the pipes stay open here after the process ends, and a read would wait forever.
        os.close(theirs_in)
        os.close(theirs_out)
        self.answers, self.to = (
            Connection(ours_in, writable=False),
            Connection(ours_out, readable=False),
        )
        try:
            self.to.send_bytes(self._work)
            problem = self.answers.recv()
        except (EOFError, BrokenPipeError, ConnectionResetError) as error:
            raise CapabilityImportError(f"the capability cannot be built: {self.reap()}") from error
        if problem:
            self.close()
            raise CapabilityImportError(problem)

    def reap(self) -> str:
        """Collect the exit status of the process, which has ended; return it as a message."""
        code = self._process.wait() if self._process else 0
        self.close()
        how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        return f"the call ended its process ({how})"

    def kill(self) -> None:
        """End the process and all that it started; its owner then reads the end of the pipe."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)

    def close(self) -> None:
        """End the process and all that it started."""
        if self._process is not None:
            with contextlib.suppress(OSError):
                self.to.close()
                self.answers.close()
            self.kill()
            self._process.wait()
            # Wait for a limited time: a process that left the group may hold the pipe open.
            self._output.join(_OUTPUT_SECONDS)
            self._process = None


def _forward_output(process: subprocess.Popen[bytes]) -> None:
    """Copy the output of *process* to stderr until it ends, so that the worker's log has it."""
    with process.stdout or contextlib.nullcontext(()) as lines:
        for line in lines:
            sys.stderr.write(line.decode(errors="backslashreplace"))


def usable_memory() -> int:
    """Return the memory of the machine, or of the container if it has less, in bytes."""
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    limits = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")
    return min([total, *filter(None, map(_number_in, limits))])


def _number_in(file: str) -> int | None:
    try:
        return int(Path(file).read_text())
    except (OSError, ValueError):  # no such file, or "max"
        return None


def _start_in_lasting_thread(
    start: Callable[[], subprocess.Popen[bytes]],
) -> subprocess.Popen[bytes]:
    """Call *start* in a thread that lives as long as this process, and return its result.

    With PR_SET_PDEATHSIG, the kernel kills a child when the thread that started it ends. A thread
    of the engine may end long before this process, and the child would be killed during a call.
    """
    started: Future[subprocess.Popen[bytes]] = Future()
    _lasting_thread().put((start, started))
    return started.result()


@cache
def _lasting_thread() -> queue.SimpleQueue[Any]:
    """Start a thread that lives as long as this process; return the queue of its calls.

    Not a thread of an executor: that ends as soon as the interpreter begins to exit, and the child
    with it. A thread that waits for the child's answer would then record a row that kills its
    process.
    """
    orders: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def serve() -> None:
        while True:
            start, started = orders.get()
            try:
                started.set_result(start())
            except BaseException as error:  # noqa: BLE001 - raised in the caller's thread
                started.set_exception(error)

    os.register_at_fork(after_in_child=_lasting_thread.cache_clear)  # a fork lacks the thread
    threading.Thread(target=serve, daemon=True, name="isolation").start()
    return orders
