"""What is read ahead and what is to be written are bounded by bytes, not only by their number."""

from __future__ import annotations

import threading
import time

from batchrunner.worker.pipeline import WriteBehind, read_ahead
from patience import PATIENCE


def wait_for(happened):
    deadline = time.monotonic() + PATIENCE
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def ahead(weights, made):
    """Items that weigh so much, read ahead into a room for 25; notes those that were *made*."""

    def items():
        for weight in weights:
            made.append(weight)
            yield weight

    return read_ahead(items(), depth=100, most_bytes=25, weigh=lambda weight: weight)


def test_no_more_bytes_are_read_ahead_than_there_is_room_for():
    """A hundred rows of a megabyte ahead are a hundred megabytes, whatever the depth says."""
    made: list[int] = []
    most = 0
    with ahead([10] * 20, made) as items:
        for number, _ in enumerate(items, start=1):
            # Two in the room, and one in the hand of the thread, which waits for room for it.
            wait_for(lambda: len(made) >= min(20, number + 3))  # noqa: B023 - called at once
            most = max(most, len(made) - number)

    assert (len(made), most) == (20, 3)


def test_what_is_larger_than_the_room_passes_alone():
    """A row of any size that can be held goes through."""
    made: list[int] = []
    with ahead([5, 100, 100, 5], made) as items:
        assert list(items) == [5, 100, 100, 5]


def test_leaving_does_not_wait_for_room():
    """After a stop there is no consumer to make any."""
    made: list[int] = []
    before = set(threading.enumerate())
    with ahead([20] * 5, made):
        wait_for(lambda: len(made) == 2)

    # Leaving waits for the thread, but not for ever: one that waits for room would still be there.
    assert set(threading.enumerate()) <= before


def test_no_more_bytes_wait_to_be_written_than_may():
    """The disk is slower than the capability."""
    may_go, held = threading.Semaphore(0), []

    def write():
        may_go.acquire()
        return [1]

    with WriteBehind(depth=100, most_bytes=25) as behind:
        for _ in range(2):
            held += behind.do(write, nbytes=10)
        assert held == []  # both wait

        threading.Timer(0.05, may_go.release).start()
        held += behind.do(write, nbytes=10)  # waits for the first
        assert held == [[1]]

        may_go.release(5)
        held += behind.do(write, nbytes=1000)  # more than may, and yet it is taken
        held += behind.finish()

    assert held == [[1]] * 4
