"""Threads that read ahead of the calls and write behind them, in bounded memory."""

from __future__ import annotations

import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import ExitStack, contextmanager
from typing import Any, Self, TypeVar

from batchrunner.worker.overlap import Overlap

T = TypeVar("T")

_POLL_SECONDS = 0.1
LEAVE_SECONDS = 5.0


class _End:
    """The last item in a queue; `error` is the exception of the producer, if it raised one."""

    def __init__(self, error: BaseException | None = None) -> None:
        self.error = error


class _ByteSemaphore:
    """A semaphore that counts bytes; an item larger than its size takes all of it, alone."""

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
    items: Iterable[T],
    *,
    depth: int,
    most_bytes: int,
    weigh: Callable[[T], int],
    overlap: Overlap,
) -> Iterator[Iterator[T]]:
    """Iterate over *items*; from when *overlap* is on, in a thread, at most *depth* items ahead.

    By *weigh*, the items ahead have at most *most_bytes* together; a larger one is alone in the
    queue. The consumer gets an exception of *items* after the items before it. Leaving the block
    ends the thread when *items* yields the next time.
    """
    rest = iter(items)
    with ExitStack() as stack:

        def in_thread() -> Iterator[T]:
            ahead = _read_in_thread(rest, depth=depth, most_bytes=most_bytes, weigh=weigh)
            return stack.enter_context(ahead)

        yield in_thread() if overlap.is_on else _alone_until_on(rest, overlap, in_thread)


def _alone_until_on(
    items: Iterator[T], overlap: Overlap, go_on: Callable[[], Iterator[T]]
) -> Iterator[T]:
    for item in items:
        yield item
        if overlap.look():
            yield from go_on()
            return


@contextmanager
def _read_in_thread(
    items: Iterable[T], *, depth: int, most_bytes: int, weigh: Callable[[T], int]
) -> Iterator[Iterator[T]]:
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
    """Iterate over *items* in a thread; yield None whenever no item has come for *seconds*.

    Leaving the block calls *patience*, and waits at most as many seconds for the thread to end.
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
    """Put *items* into a queue of size *depth* in a thread, and an `_End` after the last item.

    Leaving the block sets *left*, then waits for the thread to end for as many seconds as
    *patience* returns.
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
    # With a timeout: once the consumer has left, no item is taken out, and a plain put would block.
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


def _is_done(future: Future[Any], seconds: float) -> bool:
    return bool(wait([future], timeout=max(seconds, 0)).done)


class WriteBehind:
    """Runs actions in one thread, in order, with at most *depth* of them queued.

    The queued actions hold at most *most_bytes* together; a larger one is queued alone. As long as
    *overlap* is off, none is queued: each runs at once.
    """

    def __init__(self, *, depth: int, most_bytes: int, overlap: Overlap) -> None:
        self._overlap = overlap
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="write-behind")
        self._depth, self._most_bytes = depth, most_bytes
        self._behind: deque[tuple[Future[list[Any]], int]] = deque()
        self._bytes = 0

    def do(
        self, action: Callable[..., list[Any]], *args: Any, nbytes: int = 0
    ) -> Iterator[list[Any]]:
        """Queue *action*, which holds *nbytes*; yield the results of finished actions unless empty.

        Waits while too many actions are queued. Raises the exception of an action that failed.
        """
        if not self._overlap.is_on:
            if returned := action(*args):
                yield returned
            return
        self._behind.append((self._thread.submit(action, *args), nbytes))
        self._bytes += nbytes
        while self._is_full() or (self._behind and self._behind[0][0].done()):
            if returned := self._next():
                yield returned

    def _is_full(self) -> bool:
        is_too_much = self._bytes > self._most_bytes and len(self._behind) > 1
        return is_too_much or len(self._behind) > self._depth

    def within(self, seconds: float) -> Iterator[list[Any]]:
        """Wait at most *seconds* for the queued actions; yield results of finished ones unless empty."""
        deadline = time.monotonic() + seconds
        while self._behind and _is_done(self._behind[0][0], deadline - time.monotonic()):
            if returned := self._next():
                yield returned

    def _next(self) -> list[Any]:
        """Wait for the oldest action, and return its result."""
        oldest, nbytes = self._behind.popleft()
        self._bytes -= nbytes
        return oldest.result()

    def finish(self) -> Iterator[list[Any]]:
        """Wait for all queued actions; yield their results unless empty."""
        while self._behind:
            if returned := self._next():
                yield returned

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Drop the actions that have not begun, and wait for the running one."""
        self._thread.shutdown(cancel_futures=True)
