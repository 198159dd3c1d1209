"""Calls a capability in a separate process, which may die or hang without harm to the worker.

Used for shards that have killed a worker, and for calls with a time limit. It costs a second copy
of the model, and all rows pass through a pipe. The process runs `call_process`.
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
from batchrunner.worker.batch import Batch, InputTypes
from batchrunner.worker.calling import Answer, CallerEdges, Piece, Pieces
from batchrunner.worker.lost_calls import CallLostError, CallTimedOutError
from batchrunner.worker.metering import Admission
from batchrunner.worker.usage import added

if TYPE_CHECKING:
    import pyarrow as pa

    from batchrunner.worker.stopping import StopSignal


_OUTPUT_SECONDS = 3.0
_USUAL_SHARE = 0.8
"""Share of the machine's memory that a capability may use by default; others need the rest."""


@dataclass(frozen=True, slots=True)
class SentBatch:
    """A batch as it is sent to the other process.

    Attributes:
        content: The rows, or a table if the capability takes columns.
        counts: How many of the rows each shard has. A table without columns loses their number when
            it is pickled.
        input_types: The types of the columns.
    """

    content: list[Row] | pa.Table
    counts: list[int]
    input_types: InputTypes

    def rows(self) -> list[Row]:
        """Return the rows, as `Batch.rows` does. Only if `content` is rows."""
        return cast(list[Row], self.content)

    def in_format(self, batch_format: str) -> Any:
        """Return the rows in *batch_format*, as `Batch.in_format` does."""
        from batchrunner.worker.batch import in_format

        if isinstance(self.content, list):
            return self.content
        return in_format(_with_rows(self.content, sum(self.counts)), batch_format)


def _with_rows(table: pa.Table, count: int) -> pa.Table:
    """Return *table* with *count* rows: pickled without columns, it loses their number."""
    from batchrunner.formats.columns import bare_table

    return table if table.num_rows == count else bare_table(count)


def _whole(piece: Piece) -> Piece:
    is_lines = isinstance(piece.rows, bytes)
    return piece if is_lines else replace(piece, rows=_with_rows(piece.rows, piece.count))


@dataclass(frozen=True, slots=True)
class Bounds:
    """What a call in another process may take.

    Attributes:
        timeout: Its time limit, in seconds; None for no limit.
        memory: Bytes that the process may allocate; by default, most of the machine's memory.
    """

    timeout: float | None = None
    memory: int | None = None


class IsolatedCaller(CallerEdges):
    """Calls the capability in another process, one call at a time; replaces the process if it died.

    Attributes:
        ahead: How many batches may be submitted before an answer is read: one.
    """

    ahead = 1

    def __init__(
        self,
        work: bytes,
        *,
        admission: Admission,
        input_types: Callable[[Batch], InputTypes],
        by_rows: bool,
        bounds: Bounds,
    ) -> None:
        """Prepare to call; the process starts with the first call.

        Args:
            work: The pickled `Work`, with the capability.
            admission: Admits the calls: of mode `row` under a rate limit, each row is sent alone.
            input_types: Returns the types of a batch's columns.
            by_rows: Whether the capability takes rows and not a table.
            bounds: What a call may take.
        """
        self._work, self._by_rows, self._timeout = work, by_rows, bounds.timeout
        self._input_types, self._admission = input_types, admission
        self._memory = bounds.memory or int(_USUAL_SHARE * usable_memory())
        self._process: subprocess.Popen[bytes] | None = None
        self._output: threading.Thread
        self._to: Connection[Any, Any]
        self._from: Connection[Any, Any]

    def submit(self, batch: Batch) -> Answer:
        """Return an answer that makes the call when it is read."""
        return lambda: self._call(batch)

    def heed(self, stop: StopSignal) -> None:
        self._admission.waits.stop = stop

    def _call(self, batch: Batch) -> list[Pieces]:
        if self._admission.meter.by_row and len(batch) > 1:
            return self._in_turn(batch)
        with self._admission.admitted() as admitted:
            output = self._called(batch)
            admitted.usage = added(*(piece.usage for pieces in output for piece in pieces))
        return output

    def _in_turn(self, batch: Batch) -> list[Pieces]:
        output: dict[int, Pieces] = {shard.id: [] for shard in batch.shards}
        for row in batch.singles():
            [pieces] = self._call(row)
            output[row.shards[0].id] += pieces
        return list(output.values())

    def _called(self, batch: Batch) -> list[Pieces]:
        if self._process is None:
            self._start()
        content = batch.rows() if self._by_rows else batch.table()
        kind, answer = self._exchange(SentBatch(content, batch.counts, self._input_types(batch)))
        if kind == "late":
            self.close()
            raise CallTimedOutError(
                f"the call took more than {self._timeout:g} s, see errors.batch_timeout"
            )
        if kind == "raised":
            error = CallRaisedError(*answer)
            if is_out_of_memory(error):  # memory still held would fail other rows
                self.close()
            raise error
        output: list[Pieces] = answer
        return [[_whole(piece) for piece in pieces] for pieces in output]

    def _exchange(self, sent: SentBatch) -> tuple[str, Any]:
        try:
            self._to.send(sent)
            in_time = self._from.poll(self._timeout)
            reply: tuple[str, Any] = self._from.recv() if in_time else ("late", None)
        except (EOFError, BrokenPipeError, ConnectionResetError) as error:
            raise CallLostError(self._reap()) from error
        except BaseException:
            # An interrupt: the pending answer would be taken for that of the next call.
            self.close()
            raise
        return reply

    def _start(self) -> None:
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
        self._from, self._to = (
            Connection(ours_in, writable=False),
            Connection(ours_out, readable=False),
        )
        try:
            self._to.send_bytes(self._work)
            problem = self._from.recv()
        except (EOFError, BrokenPipeError, ConnectionResetError) as error:
            raise CapabilityImportError(
                f"the capability cannot be built: {self._reap()}"
            ) from error
        if problem:
            self.close()
            raise CapabilityImportError(problem)

    def _reap(self) -> str:
        """Collect the exit status of the process, which has ended; return it as a message."""
        code = self._process.wait() if self._process else 0
        self.close()
        how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        return f"the call ended its process ({how})"

    def close(self) -> None:
        """End the process and all that it started. The next call starts a new one."""
        if self._process is not None:
            with contextlib.suppress(OSError):
                self._to.close()
                self._from.close()
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
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
