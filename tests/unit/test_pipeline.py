"""What is read ahead and what is to be written: bounded by bytes, and in threads only where they help."""

from __future__ import annotations

import threading
import time

import pytest

from batchrunner.worker import cpu_time
from batchrunner.worker.overlap import Overlap, busy_seconds
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

    on = Overlap(is_on=True)
    return read_ahead(items(), depth=100, most_bytes=25, weigh=lambda weight: weight, overlap=on)


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

    with WriteBehind(depth=100, most_bytes=25, overlap=Overlap(is_on=True)) as behind:
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


class Thread:
    """The clocks of a thread that computes, or waits, for so many seconds."""

    def __init__(self):
        self.seconds = self.cpu = 0.0

    def overlap(self):
        return Overlap(is_on=False, clock=lambda: self.seconds, cpu=lambda: self.cpu)

    def computes(self, seconds):
        self.seconds += seconds
        self.cpu += seconds

    def waits(self, seconds):
        self.seconds += seconds


def test_a_worker_that_waits_reads_and_writes_in_threads():
    """While it waits for a model or a bucket, the next batch can be read."""
    thread = Thread()
    overlap = thread.overlap()
    for _ in range(2):
        thread.computes(0.6)
        thread.waits(0.4)
        overlap.look()
    assert overlap.is_on


def test_a_worker_that_computes_stays_in_one_thread():
    """With one CPU, two threads take turns at it, and each finds the cache of the other."""
    thread = Thread()
    overlap = thread.overlap()
    for seconds in (0.1, 0.9, 5.0):  # a commit, now and then, waits for the disk
        thread.computes(seconds)
        thread.waits(0.2 * seconds)
        assert not overlap.look()


def test_one_wait_turns_nothing_on():
    """The first call imports what it needs, from a disk that may be slow."""
    thread = Thread()
    overlap = thread.overlap()
    for seconds in (3.0, 0.0, 3.0, 0.0):
        thread.computes(1.0)
        thread.waits(seconds)
        assert not overlap.look()


def test_a_worker_that_is_ready_without_a_cpu_does_not_wait(tmp_path, monkeypatch):
    """On a full machine, threads would only wait for that CPU, too."""
    statistics = tmp_path / "schedstat"
    statistics.write_text("7000000 3500000000 12\n")
    monkeypatch.setattr(cpu_time, "_OWN", tmp_path)
    with_delay = busy_seconds()
    statistics.unlink()

    assert 3.5 <= with_delay < busy_seconds() + 3.5


def test_no_item_is_lost_or_moved_when_reading_goes_on_in_a_thread():
    """The same generator is read on, in another thread, in the middle of a shard."""
    thread, readers = Thread(), []

    def items():
        for number in range(20):
            readers.append(threading.current_thread())
            yield number

    overlap = thread.overlap()
    ahead = read_ahead(items(), depth=2, most_bytes=99, weigh=lambda _: 1, overlap=overlap)
    with ahead as numbers:
        taken = []
        for number in numbers:
            taken.append(number)
            thread.waits(0.2 if number >= 10 else 0.0)

    here = threading.current_thread()
    assert taken == list(range(20))
    assert readers[:10] == [here] * 10
    assert here not in readers[-3:]


def test_without_overlap_each_action_runs_at_once():
    """Nothing waits in memory for a thread that is not there."""
    done: list[int] = []
    thread = Thread()
    overlap = thread.overlap()
    with WriteBehind(depth=100, most_bytes=25, overlap=overlap) as behind:
        assert list(behind.do(lambda: [done.append(1)], nbytes=9)) == [[None]]
        overlap.is_on = True
        list(behind.do(lambda: done.append(2) or [], nbytes=9))
        assert list(behind.finish()) == []

    assert done == [1, 2]


def test_an_error_of_reading_comes_after_the_items_before_it():
    """A shard that cannot be read on does not cost the batches that were."""

    def items():
        yield 1
        raise ValueError("torn")

    for is_on in (False, True):
        overlap = Overlap(is_on=is_on)
        with read_ahead(items(), depth=9, most_bytes=9, weigh=int, overlap=overlap) as numbers:
            assert next(numbers) == 1
            with pytest.raises(ValueError, match="torn"):
                next(numbers)
