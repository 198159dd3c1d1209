"""A capability of mode `row` in a process of its own, as a function that `RowCalls` calls."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import count
from typing import Any

from batchrunner.formats.chunk import Row
from batchrunner.spec import ErrorsSpec
from batchrunner.user_code import is_out_of_memory
from batchrunner.worker.isolated_process import IsolatedProcess
from batchrunner.worker.lost_calls import (
    CallLostBesideError,
    CallLostError,
    CallTimedOutError,
    RemoteCallError,
    timed_out,
)

_LEAVE_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class _Sent:
    """A call on its way: the number of the start of the process that has it, and where its answer comes."""

    start: int
    reply: asyncio.Future[Any]


class IsolatedFunction:
    """Sends each row to the process, and replaces that if it died.

    If it dies with one call in flight, that call is the reason; with several, any of them may be.
    """

    def __init__(self, process: IsolatedProcess, limits: ErrorsSpec) -> None:
        """Send rows to *process*, whose start takes no time of a call.

        By the *limits*, a call is cancelled after `row_timeout`, and ended with its process after
        `batch_timeout`.
        """
        self._process, self._limits = process, limits
        self._numbers, self._pending = count(), dict[int, _Sent]()
        self._starting, self._in_turn = asyncio.Lock(), asyncio.Lock()
        self._is_async = False
        self._starts = 0
        self._is_ended = False  # by us: it gets no other call
        self._reader: threading.Thread | None = None

    async def __call__(self, row: Row) -> Any:
        """Return the rows that the capability gives for *row*.

        Raises:
            RemoteCallError: The call raised an error.
            CallLostError: It ended its process.
            CallLostBesideError: It or another call ended their process.
            CallTimedOutError: It took too long, and was ended with its process.
            RowTimedOutError: It took too long, and was cancelled.
            CapabilityImportError: The capability cannot be built in the process.
        """
        await self.be_ready()  # it may have ended since the gate admitted the call
        return await self._answer(row)

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Wait for the turn of one call, and take it: in the process, a function that is not asynchronous has one at a time."""
        await self.be_ready()
        async with contextlib.nullcontext() if self._is_async else self._in_turn:
            yield

    async def be_ready(self) -> None:
        """Wait until there is a process that has built the capability. If there is one, nothing else runs meanwhile.

        Raises:
            CapabilityImportError: The capability cannot be built in the process.
        """
        async with self._starting:
            if self._is_ended or not self._process.is_started:
                start = asyncio.to_thread(self._start, asyncio.get_running_loop())
                await asyncio.shield(start)  # it would go on beside the next one

    async def _answer(self, row: Row) -> Any:
        number, reply = next(self._numbers), asyncio.get_running_loop().create_future()
        # Nothing is awaited between the look at the process and this: what it ends with has this call.
        self._pending[number] = _Sent(self._starts, reply)
        try:
            content = await self._reply(number, row, reply)
        except asyncio.CancelledError:
            self._send(number, None)
            raise
        finally:
            self._pending.pop(number, None)
        if isinstance(content, Exception):
            raise content
        return content

    async def _reply(self, number: int, row: Row, reply: asyncio.Future[Any]) -> Any:
        """Send *row*, and wait for its answer as long as a call may take; a call that is cancelled goes on without it."""
        try:
            async with asyncio.timeout(self._limits.row_timeout) as limit:
                return await self._in_time(number, row, reply)
        except TimeoutError as error:
            if not limit.expired():
                raise
            self._send(number, None)
            raise timed_out(self._limits.row_timeout) from error

    async def _in_time(self, number: int, row: Row, reply: asyncio.Future[Any]) -> Any:
        try:
            async with asyncio.timeout(self._limits.batch_timeout) as limit:
                self._send(number, row)
                return await reply
        except TimeoutError as error:
            if not limit.expired():
                raise
            # With others in flight, one of these may hold up all of them.
            is_alone = len(self._pending) == 1 and not self._is_ended
            self._end()
            why = f"the call took more than {self._limits.batch_timeout:g} s, see errors.batch_timeout"
            raise (CallTimedOutError if is_alone else CallLostBesideError)(why) from error

    def _send(self, number: int, row: Row | None) -> None:
        with contextlib.suppress(BrokenPipeError, OSError):  # it died: the reader says so
            self._process.to.send((number, row))

    def _end(self) -> None:
        self._is_ended = True
        self._process.kill()

    def _start(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._reader is not None:
            self._reader.join()  # it reaps the process before
        self._process.start()
        self._is_async = self._process.answers.recv()
        self._starts, self._is_ended = self._starts + 1, False
        self._reader = threading.Thread(target=self._read, args=(loop, self._starts), daemon=True)
        self._reader.start()

    def _read(self, loop: asyncio.AbstractEventLoop, start: int) -> None:
        try:
            while True:
                number, content = self._process.answers.recv()
                loop.call_soon_threadsafe(self._settle, number, content)
        except Exception:  # noqa: BLE001 - the end of the pipe, or an answer that cannot be unpickled
            self._process.kill()
            is_ended, why = self._is_ended, self._process.reap()
        with contextlib.suppress(RuntimeError):  # the loop is closed
            loop.call_soon_threadsafe(self._lose, start, why, is_ended)

    def _settle(self, number: int, content: Any) -> None:
        sent = self._pending.get(number)
        if sent is not None and not sent.reply.done():
            sent.reply.set_result(content)
        is_alone = len(self._pending) == 1
        if is_alone and isinstance(content, RemoteCallError) and is_out_of_memory(content):
            self._end()  # memory still held would fail other rows

    def _lose(self, start: int, why: str, is_ended: bool) -> None:
        replies = [sent.reply for sent in self._pending.values() if sent.start == start]
        lost = [reply for reply in replies if not reply.done()]
        kind = CallLostError if len(lost) == 1 and not is_ended else CallLostBesideError
        for reply in lost:
            reply.set_exception(kind(why))

    def close(self) -> None:
        """End the process and all that it started."""
        self._process.kill()
        if self._reader is not None:
            self._reader.join(_LEAVE_SECONDS)
        self._process.close()
