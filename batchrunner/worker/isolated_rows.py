"""A capability of mode `row` in a process of its own, as a function that `RowCalls` calls."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from itertools import count
from typing import Any

from batchrunner.formats.chunk import Row
from batchrunner.user_code import is_out_of_memory
from batchrunner.worker.isolated_process import IsolatedProcess
from batchrunner.worker.lost_calls import (
    CallLostBesideError,
    CallLostError,
    CallTimedOutError,
    RemoteCallError,
)

_LEAVE_SECONDS = 5.0


class IsolatedFunction:
    """Sends each row to the process, and replaces that if it died.

    If it dies with one call in flight, that call is the reason; with several, any of them may be.
    """

    def __init__(self, process: IsolatedProcess, *, timeout: float | None) -> None:
        """Send rows to *process*; a call that takes longer than *timeout* seconds is ended with it."""
        self._process, self._timeout = process, timeout
        self._numbers, self._pending = count(), dict[int, asyncio.Future[Any]]()
        self._starting = asyncio.Lock()
        self._in_turn: asyncio.Lock | None = None
        self._is_ended = False  # by us, for another call that took too long
        self._reader: threading.Thread | None = None

    async def __call__(self, row: Row) -> Any:
        """Return the rows that the capability gives for *row*.

        Raises:
            RemoteCallError: The call raised an error.
            CallLostError: It ended its process.
            CallLostBesideError: It or another call ended their process.
            CallTimedOutError: It took too long.
            CapabilityImportError: The capability cannot be built in the process.
        """
        async with self._starting:
            if not self._process.is_started:
                await asyncio.to_thread(self._start, asyncio.get_running_loop())
        async with self._in_turn or contextlib.nullcontext():
            return await self._answer(row)

    async def _answer(self, row: Row) -> Any:
        number, reply = next(self._numbers), asyncio.get_running_loop().create_future()
        self._pending[number] = reply
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
        try:
            async with asyncio.timeout(self._timeout) as limit:
                self._send(number, row)
                return await reply
        except TimeoutError as error:
            if not limit.expired():
                raise
            self._is_ended = True
            self._process.kill()
            raise CallTimedOutError(
                f"the call took more than {self._timeout:g} s, see errors.batch_timeout"
            ) from error

    def _send(self, number: int, row: Row | None) -> None:
        with contextlib.suppress(BrokenPipeError, OSError):  # it died: the reader says so
            self._process.to.send((number, row))

    def _start(self, loop: asyncio.AbstractEventLoop) -> None:
        self._process.start()
        self._is_ended = False
        is_async = self._process.answers.recv()
        self._in_turn = None if is_async else asyncio.Lock()
        self._reader = threading.Thread(target=self._read, args=(loop,), daemon=True)
        self._reader.start()

    def _read(self, loop: asyncio.AbstractEventLoop) -> None:
        try:
            while True:
                number, content = self._process.answers.recv()
                loop.call_soon_threadsafe(self._settle, number, content)
        except Exception:  # noqa: BLE001 - the end of the pipe, or an answer that cannot be unpickled
            self._process.kill()
            why = self._process.reap()
        with contextlib.suppress(RuntimeError):  # the loop is closed
            loop.call_soon_threadsafe(self._lose, why)

    def _settle(self, number: int, content: Any) -> None:
        reply = self._pending.get(number)
        if reply is not None and not reply.done():
            reply.set_result(content)
        is_alone = len(self._pending) == 1
        if is_alone and isinstance(content, RemoteCallError) and is_out_of_memory(content):
            self._process.kill()  # memory still held would fail other rows

    def _lose(self, why: str) -> None:
        lost = [reply for reply in self._pending.values() if not reply.done()]
        is_alone = len(lost) == 1 and not self._is_ended
        kind = CallLostError if is_alone else CallLostBesideError
        for reply in lost:
            reply.set_exception(kind(why))

    def close(self) -> None:
        """End the process and all that it started."""
        self._process.kill()
        if self._reader is not None:
            self._reader.join(_LEAVE_SECONDS)
        self._process.close()
