"""Calls a capability in a separate process, which may die or hang without harm to the worker.

Used for shards that have killed a worker, and for calls with a time limit. It costs a second copy
of the model, and all rows pass through a pipe. The process runs `call_process`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, cast

from batchrunner.formats.chunk import Row
from batchrunner.user_code import CallRaisedError, blamed, is_out_of_memory
from batchrunner.worker.batch import Batch, InputTypes
from batchrunner.worker.calling import Answer, CallerEdges, Piece, Pieces
from batchrunner.worker.isolated_process import IsolatedProcess
from batchrunner.worker.lost_calls import CallLostError, CallTimedOutError
from batchrunner.worker.metering import Admission
from batchrunner.worker.usage import added

if TYPE_CHECKING:
    import pyarrow as pa

    from batchrunner.worker.stopping import StopSignal


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
    """Calls a capability of mode `batch` or `run` in another process, one call at a time; replaces the process if it died.

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
            admission: Admits the calls.
            input_types: Returns the types of a batch's columns.
            by_rows: Whether the capability takes rows and not a table.
            bounds: What a call may take.
        """
        self._by_rows, self._timeout = by_rows, bounds.timeout
        self._input_types, self._admission = input_types, admission
        self._process = IsolatedProcess(work, bounds.memory)

    def submit(self, batch: Batch) -> Answer:
        """Return an answer that makes the call when it is read."""
        return lambda: self._call(batch)

    def begin(self, stop: StopSignal) -> None:
        self._admission.waits.stop = stop

    def _call(self, batch: Batch) -> list[Pieces]:
        if not self._process.is_started:  # before the gate admits the call, which is not to be late
            self._process.start()
        with self._admission.admitted() as admitted:
            output = self._called(batch)
            admitted.usage = added(*(piece.usage for pieces in output for piece in pieces))
        return output

    def _called(self, batch: Batch) -> list[Pieces]:
        content = batch.rows() if self._by_rows else batch.table()
        kind, answer = self._exchange(SentBatch(content, batch.counts, self._input_types(batch)))
        if kind == "late":
            self.close()
            raise CallTimedOutError(
                f"the call took more than {self._timeout:g} s, see errors.batch_timeout"
            )
        if kind == "raised":
            described, stage = answer
            error = CallRaisedError(*described)
            if stage:
                blamed(error, stage)
            if is_out_of_memory(error):  # memory still held would fail other rows
                self.close()
            raise error
        output: list[Pieces] = answer
        return [[_whole(piece) for piece in pieces] for pieces in output]

    def _exchange(self, sent: SentBatch) -> tuple[str, Any]:
        try:
            self._process.to.send(sent)
            in_time = self._process.answers.poll(self._timeout)
            reply: tuple[str, Any] = self._process.answers.recv() if in_time else ("late", None)
        except (EOFError, BrokenPipeError, ConnectionResetError) as error:
            raise CallLostError(self._process.reap()) from error
        except BaseException:
            # An interrupt: the pending answer would be taken for that of the next call.
            self.close()
            raise
        return reply

    def close(self) -> None:
        """End the process and all that it started. The next call starts a new one."""
        self._process.close()
