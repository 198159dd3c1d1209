"""Calling a capability in a process of its own, which may die or hang there without harm.

It serves what has killed a worker before, and calls that have a time limit. The price is the way of
the rows through a pipe, and a second copy of the model.
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
from dataclasses import dataclass, replace
from functools import cache
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from batchrunner.errors import CapabilityImportError
from batchrunner.formats.chunk import Row
from batchrunner.user_code import CallRaisedError, is_out_of_memory
from batchrunner.worker.batch import Batch, Given
from batchrunner.worker.calling import Answer, Piece, Pieces

if TYPE_CHECKING:
    import pyarrow as pa


class CallLostError(Exception):
    """There will be no answer: the call took the process with it, or was not over in time."""

    type_name = "CapabilityDied"


class CallTimedOutError(CallLostError):
    """The call was not over in time."""

    type_name = "CapabilityTimedOut"


_LAST_WORDS_SECONDS = 3.0
_USUAL_SHARE = 0.8
"""Of the memory here that a capability may take by default, so that the rest of the machine lives."""


@dataclass(frozen=True, slots=True)
class SentBatch:
    """The rows of a batch on their way to the other process, as the capability's format needs them.

    Attributes:
        content: The rows.
        count: How many there are: a pickled table without columns does not say.
        given: What is known of them.
    """

    content: list[Row] | pa.Table
    count: int
    given: Given

    def rows(self) -> list[Row]:
        """As `Batch.rows`; only for content that is rows."""
        return cast(list[Row], self.content)

    def in_format(self, batch_format: str) -> Any:
        """As `Batch.in_format`."""
        from batchrunner.worker.batch import in_format

        if isinstance(self.content, list):
            return self.content
        return in_format(_with_rows(self.content, self.count), batch_format)


def _with_rows(table: pa.Table, count: int) -> pa.Table:
    """Return *table*, which has been pickled, with its *count* rows: without columns, it lost them."""
    from batchrunner.formats.columns import bare_table

    return table if table.num_rows == count else bare_table(count)


def _whole(piece: Piece) -> Piece:
    is_lines = isinstance(piece.rows, bytes)
    return piece if is_lines else replace(piece, rows=_with_rows(piece.rows, piece.count))


class IsolatedCaller:
    """Calls the capability over there, a call at a time; a new process takes the place of a dead one."""

    ahead = 1

    def __init__(
        self,
        work: bytes,
        *,
        given: Callable[[Batch], Given],
        by_rows: bool,
        timeout: float | None,
        memory: int | None = None,
    ) -> None:
        """Call the capability of the pickled *work*, for at most *timeout* seconds each.

        Args:
            work: What the other process is to do.
            given: Tells what is known of the rows of a batch.
            by_rows: Whether it takes rows, and not a table.
            timeout: Of a call, in seconds.
            memory: Bytes that it may allocate; by default, most of what this machine has.
        """
        self._work, self._by_rows, self._timeout = work, by_rows, timeout
        self._given = given
        self._memory = memory or int(_USUAL_SHARE * usable_memory())
        self._process: subprocess.Popen[bytes] | None = None
        self._hearing: threading.Thread
        self._to: Connection[Any, Any]
        self._from: Connection[Any, Any]

    def submit(self, batch: Batch) -> Answer:
        """Return what makes the call when it is asked for its answer."""
        return lambda: self._call(batch)

    def _call(self, batch: Batch) -> Pieces:
        if self._process is None:
            self._start()
        content = batch.rows() if self._by_rows else batch.table()
        kind, answer = self._exchange(SentBatch(content, len(batch), self._given(batch)))
        if kind == "late":
            self.close()
            raise CallTimedOutError(f"the call took more than {self._timeout:g} s")
        if kind == "raised":
            error = CallRaisedError(*answer)
            if is_out_of_memory(error):  # what the call still holds there must fail no other row
                self.close()
            raise error
        pieces: Pieces = answer
        return [_whole(piece) for piece in pieces]

    def _exchange(self, sent: SentBatch) -> tuple[str, Any]:
        try:
            self._to.send(sent)
            in_time = self._from.poll(self._timeout)
            reply: tuple[str, Any] = self._from.recv() if in_time else ("late", None)
        except (EOFError, BrokenPipeError, ConnectionResetError) as error:
            raise CallLostError(self._epitaph()) from error
        except (
            BaseException
        ):  # an interrupt; the answer that is still to come answers no later call
            self.close()
            raise
        return reply

    def _start(self) -> None:
        ours_in, theirs_out = os.pipe()
        theirs_in, ours_out = os.pipe()
        arguments = (theirs_in, theirs_out, os.getpid(), self._memory)
        self._process = _by_lasting_thread(
            lambda: subprocess.Popen(  # noqa: S603 - our own module
                [sys.executable, "-m", "batchrunner.worker.call_process", *map(str, arguments)],
                pass_fds=(theirs_in, theirs_out),
                env={
                    **os.environ,
                    "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
                    "PYTHONUNBUFFERED": "1",
                },
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                process_group=0,  # what the capability starts there ends with it
            )
        )
        self._hearing = threading.Thread(target=_say_again, args=(self._process,), daemon=True)
        self._hearing.start()
        os.close(theirs_in)
        os.close(theirs_out)
        self._from, self._to = (
            Connection(ours_in, writable=False),
            Connection(ours_out, readable=False),
        )
        try:
            self._to.send_bytes(self._work)
            problem = self._from.recv()
        except (EOFError, BrokenPipeError, ConnectionResetError) as error:
            raise CapabilityImportError(
                f"the capability cannot be built: {self._epitaph()}"
            ) from error
        if problem:
            self.close()
            raise CapabilityImportError(problem)

    def _epitaph(self) -> str:
        code = self._process.wait() if self._process else 0
        self.close()
        how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        return f"the call ended its process ({how})"

    def close(self) -> None:
        """End the process; the next call starts another."""
        if self._process is not None:
            with contextlib.suppress(OSError):
                self._to.close()
                self._from.close()
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._hearing.join(_LAST_WORDS_SECONDS)  # what it started may hold the pipe open
            self._process = None


def _say_again(process: subprocess.Popen[bytes]) -> None:
    """Say what *process* says, its last words included, where this one's own lines go."""
    with process.stdout or contextlib.nullcontext(()) as lines:
        for line in lines:
            sys.stderr.write(line.decode(errors="backslashreplace"))


def usable_memory() -> int:
    """Return how many bytes this machine, or the container that we are in, can have in use."""
    whole = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    limits = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")
    return min([whole, *filter(None, map(_number_in, limits))])


def _number_in(file: str) -> int | None:
    try:
        return int(Path(file).read_text())
    except (OSError, ValueError):  # no such file, or "max"
        return None


def _by_lasting_thread(start: Callable[[], subprocess.Popen[bytes]]) -> subprocess.Popen[bytes]:
    """Return what *start* does in a thread that lasts as long as this process.

    The kernel ends the process when the *thread* that started it ends; a thread of the engine may
    do so long before this process does, and would take the process with it in the middle of a call.
    """
    started: Future[subprocess.Popen[bytes]] = Future()
    _lasting_thread().put((start, started))
    return started.result()


@cache
def _lasting_thread() -> queue.SimpleQueue[Any]:
    """Return what to put work into for a thread that lasts as long as this process.

    Not an executor's: that one ends when the interpreter begins to exit, while other threads still
    wait for an answer of the process that it started, and would take its end for a death of a row.
    """
    orders: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def serve() -> None:
        while True:
            start, started = orders.get()
            try:
                started.set_result(start())
            except BaseException as error:  # noqa: BLE001 - raised where it was asked for
                started.set_exception(error)

    os.register_at_fork(after_in_child=_lasting_thread.cache_clear)  # no fork has the thread
    threading.Thread(target=serve, daemon=True, name="isolation").start()
    return orders
