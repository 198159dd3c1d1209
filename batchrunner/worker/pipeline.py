"""Reading ahead of the capability and writing behind it, each in one thread, in bounded memory."""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, Self, TypeVar

T = TypeVar("T")

_POLL_SECONDS = 0.1
LEAVE_SECONDS = 5.0


class _End:
    """The last item of a queue, with the error that ended it, if any."""

    def __init__(self, error: BaseException | None = None) -> None:
        self.error = error


class _ByteSemaphore:
    """A semaphore of bytes; an item larger than all of them takes it alone."""

    def __init__(self, size: int) -> None:
        self._size, self._taken = size, 0
        self._changed = threading.Condition()

    def take(self, nbytes: int, *, unless: threading.Event) -> None:
        with self._changed:
            while self._taken and self._taken + nbytes > self._size and not unless.is_set():
                self._changed.wait(_POLL_SECONDS)
            self._taken += nbytes

    def give(self, nbytes: int) -> None:
        with self._changed:
            self._taken -= nbytes
            self._changed.notify()


@contextmanager
def read_ahead(
    items: Iterable[T], *, depth: int, most_bytes: int, weigh: Callable[[T], int]
) -> Iterator[Iterator[T]]:
    """Iterate over *items* in a thread, at most *depth* of them ahead.

    These *weigh* at most *most_bytes* together; a larger one waits alone. An exception of *items* is
    raised in the consumer, after the items before it. Leaving the block ends the thread when *items*
    yields next.
    """
    semaphore, left = _ByteSemaphore(most_bytes), threading.Event()

    def fitting() -> Iterator[tuple[T, int]]:
        for item in items:
            nbytes = weigh(item)
            semaphore.take(nbytes, unless=left)
            yield item, nbytes

    def taken(weighed: Iterator[tuple[T, int]]) -> Iterator[T]:
        for item, nbytes in weighed:
            semaphore.give(nbytes)
            yield item

    with produced(fitting(), depth=depth, left=left) as fifo:
        yield taken(_consume(fifo))


@contextmanager
def read_ticking(
    items: Iterable[T], *, seconds: float, patience: Callable[[], float]
) -> Iterator[Iterator[T | None]]:
    """Iterate over *items* in a thread; yield None whenever none has come for so many *seconds*.

    Leaving the block waits for the thread, for at most *patience* seconds, which is called then.
    """
    with produced(items, depth=1000, patience=patience) as fifo:
        yield _consume(fifo, tick=seconds)


@contextmanager
def produced(
    items: Iterable[T],
    *,
    depth: int,
    patience: Callable[[], float] = lambda: LEAVE_SECONDS,
    left: threading.Event | None = None,
) -> Iterator[queue.Queue[Any]]:
    """Put *items* into a queue in a thread, and an `_End` after the last.

    Leaving the block sets *left*, and then waits for the thread for at most *patience* seconds.
    """
    fifo: queue.Queue[Any] = queue.Queue(depth)
    left = left or threading.Event()
    thread = threading.Thread(
        target=_produce, args=(items, fifo, left), daemon=True, name="read-ahead"
    )
    thread.start()
    try:
        yield fifo
    finally:
        left.set()
        thread.join(patience())


def _produce(items: Iterable[Any], fifo: queue.Queue[Any], left: threading.Event) -> None:
    end = _End()
    try:
        for item in items:
            _put(fifo, item, unless=left)
            if left.is_set():
                return
    except BaseException as error:  # noqa: BLE001 - raised again, in the consumer's thread
        end = _End(error)
    _put(fifo, end, unless=left)


def _put(fifo: queue.Queue[Any], item: Any, *, unless: threading.Event) -> None:
    # In short waits: a consumer that has left takes nothing out, and a plain put would never return.
    while not unless.is_set():
        try:
            return fifo.put(item, timeout=_POLL_SECONDS)
        except queue.Full:
            continue
    return None


def _consume(fifo: queue.Queue[Any], *, tick: float | None = None) -> Iterator[Any]:
    while True:
        try:
            item = fifo.get(timeout=tick)
        except queue.Empty:
            item = None
        if isinstance(item, _End):
            if item.error is not None:
                raise item.error
            return
        yield item


class WriteBehind:
    """Runs actions in one thread, in order, with at most *depth* of them queued.

    These hold at most *most_bytes* together; a larger one waits alone.
    """

    def __init__(self, *, depth: int, most_bytes: int) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="write-behind")
        self._depth, self._most_bytes = depth, most_bytes
        self._behind: deque[tuple[Future[list[Any]], int]] = deque()
        self._bytes = 0

    def do(
        self, action: Callable[..., list[Any]], *args: Any, nbytes: int = 0
    ) -> Iterator[list[Any]]:
        """Queue *action*, which holds *nbytes*, and yield the results of earlier ones that are not empty.

        Waits while too many are queued. Raises what an earlier action raised.
        """
        self._behind.append((self._thread.submit(action, *args), nbytes))
        self._bytes += nbytes
        while self._is_full() or (self._behind and self._behind[0][0].done()):
            if returned := self._next():
                yield returned

    def _is_full(self) -> bool:
        is_too_much = self._bytes > self._most_bytes and len(self._behind) > 1
        return is_too_much or len(self._behind) > self._depth

    def _next(self) -> list[Any]:
        """Wait for the oldest action, and return its result."""
        oldest, nbytes = self._behind.popleft()
        self._bytes -= nbytes
        return oldest.result()

    def finish(self) -> Iterator[list[Any]]:
        """Wait for all queued actions, and yield their results that are not empty."""
        while self._behind:
            if returned := self._next():
                yield returned

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Drop the actions that have not begun, and wait for the one that has."""
        self._thread.shutdown(cancel_futures=True)
