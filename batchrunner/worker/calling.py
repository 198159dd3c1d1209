"""Calls the user's code with batches: functions, objects, generators and coroutines."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterator
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from batchrunner.spec import CapabilitySpec, ExecutionSpec
from batchrunner.user_code import contained
from batchrunner.worker.batch import MAX_BATCH_BYTES, Batch, InputTypes
from batchrunner.worker.dividing import check_counts, divided
from batchrunner.worker.event_loop import EventLoop
from batchrunner.worker.row_calls import is_async

if TYPE_CHECKING:
    from batchrunner.analytics import CompletedRun
    from batchrunner.worker.stopping import StopSignal


@dataclass(frozen=True, slots=True)
class Piece:
    """Some output rows of a capability, converted for the sink.

    Attributes:
        rows: The rows, as lines (bytes) or as a table.
        count: Number of rows.
        runs: The capability runs to record before the rows are published.
    """

    rows: Any
    count: int
    runs: tuple[CompletedRun, ...] = ()

    @property
    def nbytes(self) -> int:
        """About how many bytes the rows take."""
        return len(self.rows) if isinstance(self.rows, bytes) else int(self.rows.nbytes)


Pieces = list[Piece]
"""The output of a capability for one batch, in order; a generator yields several pieces."""

Answer = Callable[[], list[Pieces]]
"""Returns the output of the capability for each shard of one batch, or raises what its call raised."""

Ready = Callable[[Any, InputTypes], tuple[Any, int]]
"""Converts what a capability returned into lines or a table for the sink, and counts its rows."""


class CallerEdges:
    """What a caller does at the edges of attempts; nothing, if it keeps nothing from one to the next.

    Attributes:
        ahead: How many batches may be submitted before an answer is read.
    """

    ahead: int

    def heed(self, stop: StopSignal) -> None:
        """End waits of calls once *stop* leaves no time for them."""

    def renew(self) -> None:
        """Begin another attempt at some shards: their failed rows are tried anew."""

    def forget(self, shards: Collection[int]) -> None:
        """Drop what is kept of *shards*, which have their receipts."""

    def is_full(self, calls: int, nbytes: int, first: Answer | None) -> bool:  # noqa: ARG002
        """Return whether an answer is to be read before another batch is submitted. May wait for that.

        *calls* batches with *nbytes* of the source are submitted; *first* answers the first of them, None
        if that has no rows.
        """
        return calls >= self.ahead or nbytes >= MAX_BATCH_BYTES

    def abandon(self) -> None:
        """Drop the batches whose answers are not read any more."""


class Caller(CallerEdges):
    """Calls one capability of mode `batch` or `run` in this process.

    An answer raises what the user's code raised as an `Exception`, whatever its type; a real
    interrupt (Ctrl-C, SIGTERM) is raised unchanged.

    Attributes:
        ahead: How many batches may be submitted before an answer is read.
    """

    def __init__(
        self,
        capability: Any,
        spec: CapabilitySpec,
        execution: ExecutionSpec,
        *,
        ready: Ready,
        input_types: Callable[[Batch], InputTypes],
    ) -> None:
        self._function, self._kwargs = capability, spec.fn_kwargs
        self._ready, self._input_types = ready, input_types
        self._format = execution.batch_format
        self._mode, self._one_to_one = spec.mode, spec.one_to_one
        self._loop = EventLoop(execution.max_concurrency) if is_async(capability) else None
        self.ahead = execution.max_concurrency if self._loop else 1

    def submit(self, batch: Batch) -> Answer:
        """Start the call with *batch* if it is asynchronous; else reading the answer makes it."""
        return partial(contained, self._call(batch))

    def _call(self, batch: Batch) -> Answer:
        if self._mode == "run":
            return lambda: [self._completed(batch)]
        if self._loop is None:
            return lambda: self._pieces(self._answer(batch), batch)
        later = self._loop.submit(self._answer_later(batch, self._loop.calls))
        return lambda: self._pieces(later.result(), batch)

    def _pieces(self, returned: list[list[Any]], batch: Batch) -> list[Pieces]:
        """Convert what was *returned* for each shard of *batch*, as if it stood alone in its batch."""
        output = converted(returned, self._input_types(batch), self._ready)
        if self._one_to_one:
            check_counts([sum(p.count for p in pieces) for pieces in output], batch.counts)
        return output

    def _completed(self, batch: Batch) -> Pieces:
        completed_runs = [self._function(row, **self._kwargs) for row in batch.rows()]
        rows, count = self._ready([row for row, _ in completed_runs], InputTypes())
        return [Piece(rows, count, tuple(run for _, run in completed_runs))]

    def _answer(self, batch: Batch) -> list[list[Any]]:
        result = self._function(batch.in_format(self._format), **self._kwargs)
        return divided(list(result) if isinstance(result, Iterator) else [result], batch.counts)

    async def _answer_later(self, batch: Batch, calls: asyncio.Semaphore) -> list[list[Any]]:
        result = await self._await(batch.in_format(self._format), calls)
        return divided(result if isinstance(result, _Streamed) else [result], batch.counts)

    async def _await(self, argument: Any, calls: asyncio.Semaphore) -> Any:
        async with calls:
            return await self._result(argument)

    async def _result(self, argument: Any) -> Any:
        result: Awaitable[Any] | AsyncIterator[Any] = self._function(argument, **self._kwargs)
        if isinstance(result, AsyncIterator):
            return _Streamed([piece async for piece in result])
        return await result

    def close(self) -> None:
        if self._loop is not None:
            self._loop.close()


class _Streamed(list[Any]):
    """The items that an asynchronous generator yielded, unlike a list that a coroutine returned."""


def converted(returned: list[list[Any]], types: InputTypes, ready: Ready) -> list[Pieces]:
    """Convert what was *returned* for each shard of a batch by *ready*, as if it stood alone in its batch."""
    output = list[Pieces]()
    for of_shard in returned:
        output.append([Piece(*ready(piece, types)) for piece in of_shard])
        if len(returned) > 1:
            types = types.after([piece.rows for piece in output[-1]])
    return output
