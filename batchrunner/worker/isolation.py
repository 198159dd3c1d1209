"""Calls a capability in a separate process, which may die or hang without harm to the worker.

Used for shards that have killed a worker, and for calls with a time limit. It costs a second copy
of the model, and all rows pass through a pipe. The process runs `call_process`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, cast

from batchrunner.formats.chunk import Chunk, Row
from batchrunner.user_code import is_out_of_memory
from batchrunner.worker.batch import Batch, ChunkRows, InputTypes
from batchrunner.worker.calling import Answer, CallerEdges, Piece, Pieces
from batchrunner.worker.isolated_process import IsolatedProcess
from batchrunner.worker.lost_calls import CallLostError, CallTimedOutError
from batchrunner.worker.metering import Admission
from batchrunner.worker.usage import Usage

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
        attempt: Number of the attempt at its shards: what is known of its rows is of that one.
        places: The same rows by their places alone; None if nothing asks for these.
    """

    content: list[Row] | pa.Table
    counts: list[int]
    input_types: InputTypes
    attempt: int = 0
    places: Batch | None = None

    def __len__(self) -> int:
        return sum(self.counts)

    @property
    def pieces(self) -> tuple[ChunkRows, ...]:
        """The rows by their places."""
        return self.places.pieces if self.places else ()

    @property
    def is_sample(self) -> bool:
        """Whether one attempt at each row is enough."""
        return self.places is not None and self.places.is_sample

    def single(self, index: int) -> Batch | None:
        """Return row *index* alone, by its place: the owner has the row."""
        return self.places and self.places.single(index)

    def without(self, rows: Collection[int]) -> Batch | None:
        """Return the rows but those with the indices *rows*, by their places; None for none."""
        return self.places and self.places.without(rows)

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
class _SentChunk:
    """Stands for a chunk in the other process, which does not have it.

    Attributes:
        place: Where it begins in its file.
    """

    place: int


@dataclass(frozen=True, slots=True)
class Sending:
    """What the other process gets of a batch.

    Attributes:
        input_types: Returns the types of the columns.
        by_rows: Whether the capability takes rows and not a table.
        by_places: Whether its caller keeps what it knows of each row, as that of stages does.
    """

    input_types: Callable[[Batch], InputTypes]
    by_rows: bool
    by_places: bool = False

    def of(self, batch: Batch, *, attempt: int) -> SentBatch:
        """Return *batch* as it is sent in this *attempt* at its shards."""
        content = batch.rows() if self.by_rows else batch.table()
        places = _places_of(batch) if self.by_places else None
        return SentBatch(content, batch.counts, self.input_types(batch), attempt, places)


def _places_of(batch: Batch) -> Batch:
    """Return *batch* without its rows."""
    pieces = []
    for piece in batch.pieces:
        chunk = cast(Chunk, _SentChunk(piece.chunk.locate(0).at))
        pieces.append(replace(piece, shard=replace(piece.shard, slices=()), chunk=chunk))
    return replace(batch, pieces=tuple(pieces), input_types=InputTypes())


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
        sending: Sending,
        bounds: Bounds,
    ) -> None:
        """Prepare to call; the process starts with the first call.

        Args:
            work: The pickled `Work`, with the capability.
            admission: Admits the calls.
            sending: What is sent of a batch.
            bounds: What a call may take.
        """
        self._sending, self._admission = sending, admission
        self._timeout, self._attempt = bounds.timeout, 0
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
            answer, admitted.usage = self._exchange(batch)
        if not isinstance(answer, Exception):
            return [[_whole(piece) for piece in pieces] for pieces in answer]
        if is_out_of_memory(answer):  # memory still held would fail other rows
            self.close()
        raise answer

    def _exchange(self, batch: Batch) -> tuple[list[Pieces] | Exception, Usage]:
        """Send *batch*; return its output or what was raised, and what the calls used.

        Raises:
            CallTimedOutError: It took too long, and was ended with its process.
            CallLostError: It ended its process.
        """
        sent = self._sending.of(batch, attempt=self._attempt)
        try:
            self._process.to.send(sent)
            if self._process.answers.poll(self._timeout):
                reply: tuple[list[Pieces] | Exception, Usage] = self._process.answers.recv()
                return reply
        except (EOFError, BrokenPipeError, ConnectionResetError) as error:
            raise CallLostError(self._process.reap()) from error
        except BaseException:
            # An interrupt: the pending answer would be taken for that of the next call.
            self.close()
            raise
        self.close()
        why = f"the call took more than {self._timeout:g} s, see errors.batch_timeout"
        raise CallTimedOutError(why)

    def renew(self) -> None:
        self._attempt += 1

    def close(self) -> None:
        """End the process and all that it started. The next call starts a new one."""
        self._process.close()
