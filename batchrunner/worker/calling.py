"""Calls the user's code with batches: functions, objects, generators and coroutines."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

from batchrunner.spec import CapabilitySpec, ExecutionSpec
from batchrunner.user_code import contained
from batchrunner.worker.batch import MAX_BATCH_BYTES, Batch, InputTypes
from batchrunner.worker.blocks import own
from batchrunner.worker.dividing import check_counts, divided
from batchrunner.worker.event_loop import EventLoop
from batchrunner.worker.metering import Admission, Metered
from batchrunner.worker.room import Room
from batchrunner.worker.row_results import is_async
from batchrunner.worker.usage import Usage, charging

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
        usage: What the calls used that gave these rows, failed ones among them.
    """

    rows: Any
    count: int
    runs: tuple[CompletedRun, ...] = ()
    usage: Usage = field(default_factory=dict)

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


@dataclass(frozen=True, slots=True)
class Edges:
    """How the rows of batches and of answers are converted.

    Attributes:
        ready: Converts what a capability returned for the sink.
        input_types: Returns the types of the columns of a batch.
    """

    ready: Ready
    input_types: Callable[[Batch], InputTypes]

    def converted(self, returned: list[list[Any]], batch: Batch) -> list[Pieces]:
        """Convert what was *returned* for each shard of *batch*, as if it stood alone in its batch."""
        types, output = self.input_types(batch), list[Pieces]()
        for of_shard in returned:
            output.append([Piece(*self.ready(piece, types)) for piece in of_shard])
            if len(returned) > 1:
                types = types.after([piece.rows for piece in output[-1]])
        return output


class CallerEdges:
    """What a caller does at the edges of attempts; nothing, if it keeps nothing from one to the next.

    Attributes:
        ahead: How many batches may be submitted before an answer is read.
    """

    ahead: int

    @cached_property
    def room(self) -> Room:
        """How many rows memory holds in a call, as its failed calls have shown so far."""
        return Room()

    def begin(self, stop: StopSignal) -> None:
        """Begin some shards; waits of their calls end once *stop* leaves no time for them."""

    def renew(self) -> None:
        """Begin another attempt at some shards: their failed rows are tried anew."""

    def forget(self, shards: Collection[int], *, committed: Collection[int]) -> None:
        """Drop what is kept of *shards*, which have their receipts; of those *committed*, for good."""

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
        edges: Edges,
        admission: Admission,
    ) -> None:
        self._function, self._kwargs = capability, spec.fn_kwargs
        self._edges, self._admission = edges, admission
        self._format = execution.batch_format
        self._mode, self._one_to_one = spec.mode, spec.one_to_one
        self._loop = EventLoop(execution.max_concurrency) if is_async(capability) else None
        self.ahead = execution.max_concurrency if self._loop else 1

    def submit(self, batch: Batch) -> Answer:
        """Start the call with *batch* if it is asynchronous; else reading the answer makes it."""
        return partial(contained, self._call(batch))

    def begin(self, stop: StopSignal) -> None:
        self._admission.waits.stop = stop

    def _call(self, batch: Batch) -> Answer:
        if self._mode == "run":
            return lambda: [self._completed(batch)]
        if self._loop is None:
            return lambda: self._pieces(self._answer(batch), batch)
        later = self._loop.submit(self._answer_later(batch, self._loop.calls))
        return lambda: self._pieces(later.result(), batch)

    def _pieces(self, answer: Metered, batch: Batch) -> list[Pieces]:
        """Convert what was returned for each shard of *batch*, as if it stood alone in its batch."""
        with charging(answer.usage):  # the sink may refuse what was returned
            returned = divided(answer.answer, batch.counts)
            output = self._edges.converted(returned, batch)
            if self._one_to_one:
                check_counts([sum(p.count for p in pieces) for pieces in output], batch.counts)
        if not answer.usage:
            return output
        return with_usage(output, [self._admission.usage_in(of_shard) for of_shard in returned])

    def _completed(self, batch: Batch) -> Pieces:
        completed_runs = [self._function(row, **self._kwargs) for row in batch.rows()]
        rows, count = self._edges.ready([row for row, _ in completed_runs], InputTypes())
        return [Piece(rows, count, tuple(run for _, run in completed_runs))]

    def _answer(self, batch: Batch) -> Metered:
        argument = batch.in_format(self._format)

        def call() -> list[Any]:
            result = self._function(argument, **self._kwargs)
            return pieces_of(result)

        return self._admission.call(argument, call)

    async def _answer_later(self, batch: Batch, calls: asyncio.Semaphore) -> Metered:
        argument = batch.in_format(self._format)
        async with calls:
            return await self._admission.call_later(argument, partial(self._result, argument))

    async def _result(self, argument: Any) -> list[Any]:
        result: Awaitable[Any] | AsyncIterator[Any] = self._function(argument, **self._kwargs)
        if isinstance(result, AsyncIterator):
            return [own(piece) async for piece in result]
        return [await result]

    def close(self) -> None:
        if self._loop is not None:
            self._loop.close()


def pieces_of(result: Any) -> list[Any]:
    """Return *result*, or what it yields, piece by piece: copies, since a generator may fill one buffer again and again."""
    return [own(piece) for piece in result] if isinstance(result, Iterator) else [result]


def with_usage(output: Sequence[Pieces], usages: Sequence[Usage]) -> list[Pieces]:
    """Return the *output* for each shard, whose first piece has what it used."""
    return [
        [replace(pieces[0], usage=usage), *pieces[1:]] if pieces and usage else pieces
        for pieces, usage in zip(output, usages, strict=True)
    ]
