"""Calling the user's code: functions, objects, generators and coroutines, on batches or on rows."""

from __future__ import annotations

import asyncio
import inspect
import logging
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from batchrunner.errors import CapabilityImportError, describe
from batchrunner.formats.chunk import Row
from batchrunner.spec import CapabilitySpec, ExecutionSpec
from batchrunner.spec.secrets import scrubbed
from batchrunner.user_code import CallRaisedError, contained, place_in_code
from batchrunner.worker.batch import Batch, Given

if TYPE_CHECKING:
    from batchrunner.analytics import CompletedRun

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Piece:
    """Some of what a capability made of one batch, ready for the sink.

    Attributes:
        rows: As lines or as a table.
        count: How many rows there are.
        runs: What is to be recorded before they are published.
    """

    rows: Any
    count: int
    runs: tuple[CompletedRun, ...] = ()

    @property
    def nbytes(self) -> int:
        """About how many bytes it holds."""
        return len(self.rows) if isinstance(self.rows, bytes) else int(self.rows.nbytes)


Pieces = list[Piece]
"""What a capability made of one batch."""

Answer = Callable[[], Pieces]
"""Returns what the capability made of one batch; or raises what it raised."""

Ready = Callable[[Any, Given], tuple[Any, int]]
"""Makes what a capability returned for given rows ready for the sink, and counts its rows."""


def build(capability: Any, spec: CapabilitySpec) -> Any:
    """Return *capability*, or an instance of it when it is a class: once per worker.

    Raises:
        CapabilityImportError: The constructor raised, or there is none to take the arguments.
    """
    if not isinstance(capability, type):
        if spec.fn_constructor_kwargs:
            raise CapabilityImportError(
                f"capability.fn_constructor_kwargs build a class, and {capability!r} is none; write "
                "fn_kwargs, which come with every call"
            )
        return capability
    try:
        return contained(partial(capability, **spec.fn_constructor_kwargs))
    except Exception as error:  # the user's constructor may raise anything
        name = f"{capability.__module__}.{capability.__qualname__}"
        place = f" (at {at})" if (at := place_in_code(error)) else ""
        why = scrubbed(describe(error))
        raise CapabilityImportError(f"{name} cannot be built: {why}{place}") from error


class Caller:
    """Calls one capability. `ahead` says how many batches may be submitted before an answer is read.

    What the user's code raises, the answer raises as an `Exception`; a real interrupt as it is.
    """

    def __init__(
        self,
        capability: Any,
        spec: CapabilitySpec,
        execution: ExecutionSpec,
        *,
        ready: Ready,
        given: Callable[[Batch], Given],
    ) -> None:
        self._function, self._kwargs = capability, spec.fn_kwargs
        self._ready, self._given = ready, given
        self._format = execution.batch_format
        self._mode = spec.mode
        self._loop = _Loop(execution.max_concurrency) if _is_async(capability) else None
        self.ahead = execution.max_concurrency if self._loop else 1

    def submit(self, batch: Batch) -> Answer:
        """Start the call when it is asynchronous; otherwise the answer makes it."""
        return partial(contained, self._call(batch))

    def _call(self, batch: Batch) -> Answer:
        if self._mode == "run":
            return lambda: self._completed(batch)
        if self._loop is None:
            return lambda: self._pieces(self._answer(batch), batch)
        later = self._loop.submit(self._answer_later(batch, self._loop.calls))
        return lambda: self._pieces(later.result(), batch)

    def _pieces(self, returned: list[Any], batch: Batch) -> Pieces:
        given = self._given(batch)
        return [Piece(*self._ready(piece, given)) for piece in returned]

    def _completed(self, batch: Batch) -> Pieces:
        made = [self._function(row, **self._kwargs) for row in batch.rows()]
        rows, count = self._ready([row for row, _ in made], Given())
        return [Piece(rows, count, tuple(run for _, run in made))]

    def _answer(self, batch: Batch) -> list[Any]:
        if self._mode == "row":
            results = (self._function(row, **self._kwargs) for row in batch.rows())
            return [[row for result in results for row in _fanned_out(result)]]
        result = self._function(batch.in_format(self._format), **self._kwargs)
        return list(result) if isinstance(result, Iterator) else [result]

    async def _answer_later(self, batch: Batch, calls: asyncio.Semaphore) -> list[Any]:
        if self._mode == "row":
            failed = asyncio.Event()
            rows = (self._await_row(row, calls, failed) for row in batch.rows())
            results = await asyncio.gather(*rows)
            return [[row for result in results for row in _fanned_out(result)]]
        result = await self._await(batch.in_format(self._format), calls)
        return result if isinstance(result, _Pieces) else [result]

    async def _await_row(self, row: Row, calls: asyncio.Semaphore, failed: asyncio.Event) -> Any:
        """Call for a row of a batch, unless another row has *failed* it: then nobody looks."""
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
            return _Pieces([piece async for piece in result])
        return await result

    def close(self) -> None:
        if self._loop is not None:
            self._loop.close()


class _Pieces(list[Any]):
    """What an asynchronous generator gave."""


class _Loop:
    """An event loop in a thread of its own, with a bound on the calls in flight."""

    def __init__(self, max_concurrency: int) -> None:
        self._loop = asyncio.new_event_loop()
        self._is_closing = False
        self.calls = asyncio.Semaphore(max_concurrency)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def submit(self, coroutine: Awaitable[list[Any]]) -> Future[list[Any]]:
        return asyncio.run_coroutine_threadsafe(self._contained(coroutine), self._loop)

    async def _contained(self, coroutine: Awaitable[list[Any]]) -> list[Any]:
        """As `contained`, inside the loop: a task that ends with `SystemExit` ends its loop, too."""
        try:
            return await coroutine
        except Exception:
            raise
        except BaseException as error:
            if self._is_closing:  # thrown in from outside: the call is dropped
                raise
            raise CallRaisedError.of(error) from error

    def _run(self) -> None:
        """Run until `close`, also past what a task of the user's own lets out of the loop.

        asyncio gives `SystemExit` and `KeyboardInterrupt` to whoever awaits the task, and then
        raises them here, too: with the loop at an end, that one would wait for ever.
        """
        while not self._is_closing:
            try:
                self._loop.run_forever()
            except BaseException as error:  # noqa: BLE001 - the user's code may raise anything
                _log.debug("a task of the capability raised %r", error)

    def close(self) -> None:
        self._is_closing = True  # first: the loop that stops must not start again
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


def _is_async(capability: Any) -> bool:
    call = capability if inspect.isroutine(capability) else type(capability).__call__
    return inspect.iscoroutinefunction(call) or inspect.isasyncgenfunction(call)


def _fanned_out(result: Any) -> list[Row] | tuple[Row, ...]:
    """Return the rows that one row became: none, one or many."""
    if isinstance(result, dict):
        return [result]
    if result is None:
        return []
    if isinstance(result, list | tuple | _Pieces):
        return result
    if isinstance(result, Iterator):
        return list(result)
    raise TypeError(
        f"the capability returned {type(result).__name__} for a row; it must return a dict, a list "
        "of dicts, or None"
    )
