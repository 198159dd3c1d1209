"""An event loop in a thread of its own, for the calls of an asynchronous capability."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections.abc import Awaitable
from concurrent.futures import Future
from typing import TypeVar

from batchrunner.user_code import CallRaisedError

T = TypeVar("T")

_log = logging.getLogger(__name__)

_CANCEL_SECONDS = 0.5


class EventLoop:
    """An event loop in its own thread, with a semaphore that bounds the calls in flight."""

    def __init__(self, max_concurrency: int) -> None:
        self._loop = asyncio.new_event_loop()
        self.is_closing = False
        self.calls = asyncio.Semaphore(max_concurrency)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def submit(self, coroutine: Awaitable[T]) -> Future[T]:
        return asyncio.run_coroutine_threadsafe(self._contained(coroutine), self._loop)

    async def _contained(self, coroutine: Awaitable[T]) -> T:
        """Await *coroutine*; raise `SystemExit`, which would end the loop, as an `Exception`."""
        try:
            return await coroutine
        except Exception:
            raise
        except BaseException as error:
            if self.is_closing:  # the end of the loop cancels the call: no answer is read
                raise
            raise CallRaisedError.of(error) from error

    def _run(self) -> None:
        """Run the loop until `close`; start it again after a `SystemExit` in the user's task.

        asyncio raises `SystemExit` and `KeyboardInterrupt` not only where the task is awaited but
        also from the loop: if the loop ended here, the code that awaits the task would wait
        forever.
        """
        while not self.is_closing:
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
        self.is_closing = True  # before the stop, or `_run` would start the loop again
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
