"""Answers rows in a process of their own: the far side of `isolated_rows`, run by `call_process`."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Mapping
from concurrent.futures import Future
from functools import partial
from multiprocessing.connection import Connection
from typing import Any

from batchrunner.formats.chunk import Row
from batchrunner.user_code import contained, presentable, traceback_of
from batchrunner.worker.event_loop import EventLoop
from batchrunner.worker.lost_calls import ErrorFacts, RemoteCallError
from batchrunner.worker.retrying import kinds_of, trouble_of
from batchrunner.worker.row_results import fanned_out, is_async, own_answer
from batchrunner.worker.usage import usage_of_error

Message = Callable[[Exception], str]
"""Returns the message of an error, as it is to be shown."""


class RowService:
    """Calls one capability with the rows that the owner sends: in turn, or many at a time if it is asynchronous."""

    def __init__(self, function: Any, kwargs: Mapping[str, Any], *, message: Message) -> None:
        self._function, self._kwargs, self._message = function, kwargs, message
        # The owner decides how many calls are in flight.
        self._loop = EventLoop(1) if is_async(function) else None
        self._begun: dict[int, Future[None]] = {}
        self._lock = threading.Lock()

    def serve(self, inbox: Connection[Any, Any], outbox: Connection[Any, Any]) -> None:
        """Answer until the owner closes the pipe. An order is a number and a row; without one, a cancellation."""
        self._outbox = outbox
        outbox.send(self._loop is not None)
        while True:
            try:
                number, row = inbox.recv()
            except EOFError:
                return
            if self._loop is None:
                self._answer(number, row)
            elif row is not None:
                self._begun[number] = self._loop.submit(self._answer_later(number, row))
            elif (call := self._begun.pop(number, None)) is not None:
                call.cancel()

    def _answer(self, number: int, row: Row) -> None:
        try:
            self._send(number, contained(partial(self._rows, row)))
        except BrokenPipeError:
            raise
        except Exception as error:  # noqa: BLE001 - the user's code may raise anything
            self._send(number, sent_error(error, self._message))

    def _rows(self, row: Row) -> list[Row]:
        return list(fanned_out(self._function(row, **self._kwargs)))

    async def _answer_later(self, number: int, row: Row) -> None:
        try:
            self._send(number, list(fanned_out(await self._result(row))))
        except BrokenPipeError:
            raise
        except BaseException as error:  # noqa: BLE001 - the user's code may raise anything
            if isinstance(error, asyncio.CancelledError) and number not in self._begun:
                return  # the owner cancelled it, and waits for no answer
            self._send(number, sent_error(error, self._message))
        finally:
            self._begun.pop(number, None)

    async def _result(self, row: Row) -> Any:
        result = self._function(row, **self._kwargs)
        if isinstance(result, AsyncIterator):
            return [own_answer(piece) async for piece in result]
        return await result

    def _send(self, number: int, content: Any) -> None:
        with self._lock:
            self._outbox.send((number, content))


def sent_error(raised: BaseException, message: Message) -> RemoteCallError:
    """Return what stands for what a call has *raised* in the process of the owner."""
    error = presentable(raised)
    name = getattr(error, "type_name", type(error).__name__)
    try:
        trouble = trouble_of(raised)
        facts = (trouble.status, trouble.retry_after), usage_of_error(raised)
    except Exception:  # noqa: BLE001 - attributes of an error are the user's code, too
        facts = (None, None), {}
    of_type = ErrorFacts(kinds_of(raised), *facts)
    return RemoteCallError(name, message(error), traceback_of(error), of_type)
