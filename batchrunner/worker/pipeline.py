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
    """The last item of a queue; with the error that ended it, if one did."""

    def __init__(self, error: BaseException | None = None) -> None:
        self.error = error


@contextmanager
def read_ahead(items: Iterable[T], *, depth: int) -> Iterator[Iterator[T]]:
    """Iterate over *items* in a thread, at most *depth* of them ahead.

    What iterating raises is raised to the consumer, in its place. Leaving the block ends the
    thread when *items* yields next.
    """
    with produced(items, depth=depth) as fifo:
        yield _consume(fifo)


@contextmanager
def read_ticking(
    items: Iterable[T], *, seconds: float, patience: Callable[[], float]
) -> Iterator[Iterator[T | None]]:
    """As `read_ahead`, with None whenever no item came for so many *seconds*.

    Leaving the block waits for the thread, for as long as *patience* says at that moment.
    """
    with produced(items, depth=1000, patience=patience) as fifo:
        yield _consume(fifo, tick=seconds)


@contextmanager
def produced(
    items: Iterable[T], *, depth: int, patience: Callable[[], float] = lambda: LEAVE_SECONDS
) -> Iterator[queue.Queue[Any]]:
    """Let a thread put *items* into a queue, and an `_End` after the last."""
    fifo: queue.Queue[Any] = queue.Queue(depth)
    left = threading.Event()
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
    """Does things in one thread, in the order they come in, at most *depth* of them behind."""

    def __init__(self, *, depth: int) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="write-behind")
        self._depth = depth
        self._behind: deque[Future[list[Any]]] = deque()

    def do(self, action: Callable[..., list[Any]], *args: Any) -> Iterator[list[Any]]:
        """Queue *action* and yield what earlier ones returned; wait when too many are queued."""
        self._behind.append(self._thread.submit(action, *args))
        while len(self._behind) > self._depth or (self._behind and self._behind[0].done()):
            if returned := self._behind.popleft().result():
                yield returned

    def finish(self) -> Iterator[list[Any]]:
        """Wait for what is queued and yield what it returns."""
        while self._behind:
            if returned := self._behind.popleft().result():
                yield returned

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Drop what has not begun and end the thread."""
        self._thread.shutdown(cancel_futures=True)
