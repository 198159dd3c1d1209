"""Calls the user's code with batches or rows: functions, objects, generators and coroutines."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import logging
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any

from batchrunner.formats.chunk import Row
from batchrunner.spec import CapabilitySpec, ExecutionSpec
from batchrunner.user_code import CallRaisedError, contained
from batchrunner.worker.batch import Batch, InputTypes
from batchrunner.worker.dividing import check_counts, divided
from batchrunner.worker.room import Room

if TYPE_CHECKING:
    from batchrunner.analytics import CompletedRun

_log = logging.getLogger(__name__)

_CANCEL_SECONDS = 0.5


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


class Caller:
    """Calls one capability in this process.

    An answer raises what the user's code raised as an `Exception`, whatever its type; a real
    interrupt (Ctrl-C, SIGTERM) is raised unchanged.

    Attributes:
        ahead: How many batches may be submitted before an answer is read.
        room: How many rows memory holds in a call.
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
        self._loop = _Loop(execution.max_concurrency) if _is_async(capability) else None
        self.ahead = execution.max_concurrency if self._loop else 1
        self.room = Room()

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
        types, output = self._input_types(batch), list[Pieces]()
        for of_shard in returned:
            output.append([Piece(*self._ready(piece, types)) for piece in of_shard])
            if len(returned) > 1:
                types = types.after([piece.rows for piece in output[-1]])
        if self._one_to_one:
            check_counts([sum(p.count for p in pieces) for pieces in output], batch.counts)
        return output

    def _completed(self, batch: Batch) -> Pieces:
        completed_runs = [self._function(row, **self._kwargs) for row in batch.rows()]
        rows, count = self._ready([row for row, _ in completed_runs], InputTypes())
        return [Piece(rows, count, tuple(run for _, run in completed_runs))]

    def _answer(self, batch: Batch) -> list[list[Any]]:
        if self._mode == "row":
            results = (self._function(row, **self._kwargs) for row in batch.rows())
            return self._of_rows(map(_fanned_out, results), batch)
        result = self._function(batch.in_format(self._format), **self._kwargs)
        return divided(list(result) if isinstance(result, Iterator) else [result], batch.counts)

    def _of_rows(self, results: Iterator[Sequence[Row]], batch: Batch) -> list[list[Any]]:
        """Return the *results* for each row, joined for each shard of *batch*."""
        return [
            [[row for result in islice(results, count) for row in self._checked(result)]]
            for count in batch.counts
        ]

    def _checked(self, rows: Sequence[Row]) -> Sequence[Row]:
        if self._one_to_one:
            check_counts([len(rows)], [1])
        return rows

    async def _answer_later(self, batch: Batch, calls: asyncio.Semaphore) -> list[list[Any]]:
        if self._mode == "row":
            failed = asyncio.Event()
            rows = (self._await_row(row, calls, failed) for row in batch.rows())
            results = await asyncio.gather(*rows)
            return self._of_rows(map(_fanned_out, results), batch)
        result = await self._await(batch.in_format(self._format), calls)
        return divided(result if isinstance(result, _Streamed) else [result], batch.counts)

    async def _await_row(self, row: Row, calls: asyncio.Semaphore, failed: asyncio.Event) -> Any:
        """Call with one row; return None if *failed* is set: another row has failed the batch."""
        async with calls:
            if failed.is_set():
                return None
            try:
                return await self._result(row)
            except BaseException:
                failed.set()
                raise

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


class _Loop:
    """An event loop in its own thread, with a semaphore that bounds the calls in flight."""

    def __init__(self, max_concurrency: int) -> None:
        self._loop = asyncio.new_event_loop()
        self._is_closing = False
        self.calls = asyncio.Semaphore(max_concurrency)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def submit(self, coroutine: Awaitable[list[list[Any]]]) -> Future[list[list[Any]]]:
        return asyncio.run_coroutine_threadsafe(self._contained(coroutine), self._loop)

    async def _contained(self, coroutine: Awaitable[list[list[Any]]]) -> list[list[Any]]:
        """Await *coroutine*; raise `SystemExit`, which would end the loop, as an `Exception`."""
        try:
            return await coroutine
        except Exception:
            raise
        except BaseException as error:
            if self._is_closing:  # the end of the loop cancels the call: no answer is read
                raise
            raise CallRaisedError.of(error) from error

    def _run(self) -> None:
        """Run the loop until `close`; start it again after a `SystemExit` in the user's task.

        asyncio raises `SystemExit` and `KeyboardInterrupt` not only where the task is awaited but
        also from the loop: if the loop ended here, the code that awaits the task would wait
        forever.
        """
        while not self._is_closing:
            try:
                self._loop.run_forever()
            except BaseException as error:  # noqa: BLE001 - the user's code may raise anything
                _log.debug("a task of the capability raised %r", error)
        with contextlib.suppress(BaseException):  # the user's code may raise anything
            self._cancel_calls()

    def _cancel_calls(self) -> None:
        """End the calls whose answers are not read: asyncio would report each as destroyed."""
        tasks = asyncio.all_tasks(self._loop)
        for task in tasks:
            task.cancel()
        if tasks:  # with a limit: a call may refuse to be cancelled
            self._loop.run_until_complete(asyncio.wait(tasks, timeout=_CANCEL_SECONDS))

    def close(self) -> None:
        self._is_closing = True  # before the stop, or `_run` would start the loop again
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


def _is_async(capability: Any) -> bool:
    call = capability if inspect.isroutine(capability) else type(capability).__call__
    return inspect.iscoroutinefunction(call) or inspect.isasyncgenfunction(call)


def _fanned_out(result: Any) -> list[Row] | tuple[Row, ...]:
    """Return *result*, the answer for one row, as a list of rows: none, one or many."""
    if isinstance(result, dict):
        return [result]
    if result is None:
        return []
    if isinstance(result, list | tuple | _Streamed):
        return result
    if isinstance(result, Iterator):
        return list(result)
    raise TypeError(
        f"the capability returned {type(result).__name__} for a row; it must return a dict, a list "
        "of dicts, or None"
    )
