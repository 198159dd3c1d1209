"""Calls an asynchronous capability with many rows at a time, of all batches that are on their way."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import Future
from contextlib import AbstractAsyncContextManager, nullcontext
from functools import partial
from types import CoroutineType
from typing import Any, Protocol

from batchrunner.errors import CapabilityImportError
from batchrunner.formats.chunk import Row
from batchrunner.user_code import presentable
from batchrunner.worker.event_loop import EventLoop
from batchrunner.worker.gate import CallOutcome
from batchrunner.worker.lost_calls import timed_out
from batchrunner.worker.row_attempts import Came, RowAttempts, RowRules
from batchrunner.worker.row_call import Outcomes, RowCall, outcomes_of
from batchrunner.worker.row_results import own_answer
from batchrunner.worker.waiting import Waits


class Round:
    """Waits for calls, some of which may have begun before. Only in the event loop."""

    def __init__(self) -> None:
        self._left, self._done = 0, asyncio.get_running_loop().create_future()

    def join(self, rounds: list[Round]) -> None:
        """Wait for the call whose end ends one of each of *rounds*."""
        rounds.append(self)
        self._left += 1

    def end_one(self, raised: BaseException | None) -> None:
        """Note that one of the calls has ended, perhaps with an error that ends the whole round."""
        self._left -= 1
        if self._done.done():
            return
        if isinstance(raised, Exception):
            self._done.set_exception(raised)
        elif raised is not None:
            self._done.cancel()
        elif not self._left:
            self._done.set_result(None)

    async def ended(self) -> None:
        """Wait until all have ended. Raises the first error that one of them ended with."""
        if self._left:
            await self._done


class CallPlace(Protocol):
    """Where asynchronous calls are made, such as a process that may have to be started first."""

    def turn(self) -> AbstractAsyncContextManager[None]:
        """Return a block for one call, once it is its turn."""

    async def be_ready(self) -> None:
        """Wait until a call can be made at once."""


class _Here:
    """This process, where a call can always be made."""

    def turn(self) -> AbstractAsyncContextManager[None]:
        """Return a block that nothing has to wait for."""
        return nullcontext()

    async def be_ready(self) -> None:
        """Do nothing."""


class RowsAtOnce:
    """Calls with as many rows at a time as the rules allow, in an event loop in a thread of its own.

    A row has a task only while it has one of the places of calls in flight: the others wait in a queue.

    Attributes:
        place: Where the calls are made.
    """

    def __init__(self, attempts: RowAttempts, rules: RowRules, waits: Waits) -> None:
        self.place: CallPlace = _Here()
        self._attempts, self._waits = attempts, waits
        self._timeout = rules.errors.row_timeout
        self._loop = EventLoop(rules.max_concurrency)
        self._places = self._free = rules.max_concurrency
        self._queue: deque[tuple[RowCall, bool]] = deque()

    def start(self, calls: Sequence[RowCall]) -> partial[Outcomes]:
        """Begin the *calls* that are not settled or on their way; the result waits for all of them."""
        return partial(self._read, calls, self._loop.submit(self._round(calls)))

    def _read(self, calls: Sequence[RowCall], begun: Future[None]) -> Outcomes:
        begun.result()
        while not all(call.is_settled for call in calls):
            if len(calls) > 1 and self._attempts.probe.is_decided_against():
                break
            self._loop.submit(self._round(calls)).result()
        return outcomes_of(calls)

    async def _round(self, calls: Sequence[RowCall]) -> None:
        """Settle *calls*; as long as no call has succeeded, perhaps not all."""
        round_, is_alone = Round(), len(calls) == 1
        for call in calls:
            if call.rounds is not None:
                round_.join(call.rounds)
            elif not call.is_settled:
                call.rounds = []
                round_.join(call.rounds)
                self._queue.append((call, is_alone))
        self._begin()
        await round_.ended()

    def _begin(self) -> None:
        """Begin the calls that there are places for, in the order in which they came."""
        while self._queue:
            call, is_alone = self._queue[0]
            places = self._places if call.is_suspect else 1
            if self._free < places:
                return
            self._queue.popleft()
            self._free -= places
            call.task = asyncio.ensure_future(self._flight(call, places, is_alone=is_alone))

    async def _flight(self, call: RowCall, places: int, *, is_alone: bool) -> None:
        """Settle *call*, which has so many *places*, and give these back."""
        raised: BaseException | None = None
        try:
            await self._settle(call, is_alone=is_alone)
        except BaseException as error:  # noqa: BLE001 - raised where the rounds are waited for
            raised = error
        rounds, call.rounds, call.task = call.rounds or (), None, None
        self._attempts.probe.end(call)
        for round_ in rounds:
            round_.end_one(raised)
        self._free += places
        if not self._loop.is_closing:
            self._begin()

    async def _settle(self, call: RowCall, *, is_alone: bool) -> None:
        attempts, wait = self._attempts, 0.0
        while is_alone or not attempts.probe.parks(call):
            if wait:
                await self._waits.sleep_later(wait)
            async with self.place.turn():
                await self._enter()
                then = attempts.note(call, await self._attempt(call))
            if not is_alone:
                attempts.probe.take(call)
            if then is None:
                return
            wait = then

    async def _enter(self) -> None:
        """Wait for the gate; a place that is ready comes first, or calls that waited for it would go out together."""
        await self.place.be_ready()
        while seconds := self._attempts.meter.enter():
            await self._waits.sleep_later(seconds)
            await self.place.be_ready()

    async def _attempt(self, call: RowCall) -> Came:
        try:
            row = self._attempts.taken(call)
            result = await (self._result(row) if self._timeout is None else self._in_time(row))
            return self._attempts.checked(result)
        except BaseException as error:
            # Of the end of its process, no call can be made; of ours, no answer is read.
            if isinstance(error, CapabilityImportError) or self._loop.is_closing:
                self._attempts.meter.leave(CallOutcome())
                raise
            failure = presentable(error)
            if failure is not error:
                failure.__cause__ = error
            return failure

    async def _in_time(self, row: Row) -> Any:
        try:
            async with asyncio.timeout(self._timeout) as limit:
                return await self._result(row)
        except TimeoutError as error:
            if not limit.expired():  # the user's own
                raise
            raise timed_out(self._timeout) from error

    async def _result(self, row: Row) -> Any:
        result = self._attempts.function(row, **self._attempts.kwargs)
        if isinstance(result, CoroutineType) or not isinstance(result, AsyncIterator):
            return await result
        return [own_answer(piece) async for piece in result]

    def close(self) -> None:
        """End the calls that are in flight, and the thread of their loop."""
        self._attempts.probe.close()
        self._loop.close()
