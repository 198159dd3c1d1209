"""What is read of shards, regrouped: batches that are full, and each shard's end where it belongs."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from itertools import pairwise

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchrunner.formats.chunk import BadRow, Position
from batchrunner.formats.parquet_reader import TableChunk
from batchrunner.shard import Slicing
from batchrunner.worker.batch import MAX_BATCH_BYTES
from batchrunner.worker.overlap import Overlap
from batchrunner.worker.pipeline import WriteBehind
from batchrunner.worker.receipt import Cause, Failure
from batchrunner.worker.steps import MOST_SHARDS, Event, Grouping, Portion, Step, steps_of
from batchrunner.worker.stopping import until_stopped
from patience import PATIENCE
from shards import one_slice

BROKEN = Failure(Cause.INPUT, "broken")


def a_shard(number):
    return one_slice(number, f"{number}.parquet", Slicing.FILE, 0, 1, 1, "")


def a_chunk(ids, *, bad=0, kind=None):
    table = pa.table({"id": pa.array(ids, kind or pa.int64())})
    faults = tuple(BadRow(Position("row", at, b""), "bad") for at in range(bad))
    return TableChunk(table, range(len(ids)), faults)


def events(chunks_of_shards, *, ends=None):
    """Chunks of so many rows of each shard, with ids that count on; then its end, or its failure."""
    first = 0
    for number, sizes in enumerate(chunks_of_shards):
        shard = a_shard(number)
        for size in sizes:
            yield Event(shard, chunk=a_chunk(range(first, first + size)))
            first += size
        yield Event(shard, failure=(ends or {}).get(number))


def ids(step):
    return [row["id"] for row in step.batch.rows()] if step.batch else []


SIZES = st.lists(st.lists(st.integers(0, 9), max_size=3), min_size=1, max_size=8)


@given(SIZES, st.integers(1, 12), st.booleans())
def test_every_row_is_in_one_batch_and_every_shard_ends_once(sizes, size, spans):
    """In order: a shard's rows, its end, the rows of the next."""
    grouping = Grouping(size, by_shape=False, spans_shards=spans)
    steps = list(steps_of(events(sizes), grouping))

    assert [n for step in steps for n in ids(step)] == list(range(sum(map(sum, sizes))))
    portions = [portion for step in steps for portion in step.portions]
    assert [p.shard.id for p in portions if p.is_end] == list(range(len(sizes)))
    for before, after in pairwise(portions):
        assert after.shard.id == before.shard.id + before.is_end
    for step in steps:
        counts = [p.rows for p in step.portions if p.rows]
        assert counts == (step.batch.counts if step.batch else [])
        assert sum(counts) <= size
        assert spans or len(step.portions) == 1
    full = [len(ids(step)) for step in steps if step.batch]
    assert not spans or all(count == size for count in full[:-1])


def test_a_shard_that_cannot_be_read_takes_its_rows_along_and_no_others():
    """What was collected of it is not computed; its neighbours are not held up."""
    grouping = Grouping(100, by_shape=False, spans_shards=True)
    one, two, three = steps_of(events([[3], [4], [5]], ends={1: BROKEN}), grouping)

    assert ids(one) == [0, 1, 2]
    assert [p.is_end for p in one.portions] == [True]
    assert two == Step((Portion(a_shard(1), failure=BROKEN),))
    assert ids(three) == [7, 8, 9, 10, 11]


def test_a_batch_ends_with_what_the_next_one_must_not_depend_on():
    """Unreadable rows, which may fail their shard; the shard that others wait for; another type."""

    def batches(*shards, **grouping):
        read = (e for number, some in enumerate(shards) for e in some_events(number, some))
        steps = steps_of(read, Grouping(100, by_shape=False, spans_shards=True, **grouping))
        return [ids(step) for step in steps if step.batch]

    def some_events(number, chunk):
        return Event(a_shard(number), chunk=chunk), Event(a_shard(number))

    one, two, text = a_chunk([1]), a_chunk([2]), a_chunk(["3"], kind=pa.string())
    assert batches(one, two) == [[1, 2]]
    assert batches(a_chunk([1], bad=1), two) == [[1], [2]]
    assert batches(one, two, alone=0) == [[1], [2]]
    assert batches(one, text) == [[1], ["3"]]


@dataclass(frozen=True)
class LargeChunk(TableChunk):
    """Rows that are said to take a megabyte each."""

    @property
    def nbytes(self):
        return len(self) << 20


def test_large_rows_make_small_batches_over_shards_too():
    """A batch may hold a few hundred files: their bytes count together."""
    read = [
        event
        for number in range(100)
        for event in (
            Event(a_shard(number), chunk=LargeChunk(pa.table({"id": [number]}), [0])),
            Event(a_shard(number)),
        )
    ]
    steps = steps_of(read, Grouping(1000, by_shape=False, spans_shards=True))

    sizes = [len(ids(step)) for step in steps if step.batch]
    assert max(sizes) == min(MAX_BATCH_BYTES >> 20, MOST_SHARDS)


class StopAfter:
    """Stops once it has been asked so many times."""

    def __init__(self, times):
        self._times = times

    def waited(self):
        self._times -= 1
        return 0.5 if self._times < 0 else 0.0


@pytest.mark.parametrize(
    ("times", "finished"), [(0, []), (1, [0, 1]), (2, [0, 1, 2, 3]), (9, [0, 1, 2, 3, 4, 5])]
)
def test_after_a_stop_the_shard_in_flight_is_finished_and_no_other_begun(times, finished):
    """Its last rows come with the first of the next shard: only its own are computed."""
    grouping = Grouping(10, by_shape=False, spans_shards=True)
    steps = steps_of(events([[6], [6], [6], [6], [6], [6]]), grouping)

    passed = list(until_stopped(steps, StopAfter(times), drain=60))

    assert [p.shard.id for step in passed for p in step.portions if p.is_end] == finished
    begun = {p.shard.id for step in passed for p in step.portions}
    assert begun == set(finished)
    assert [n for step in passed for n in ids(step)] == list(range(6 * len(finished)))


def test_what_is_being_written_is_waited_for_as_long_as_is_said():
    """A receipt of a shard reaches the driver before a call that takes minutes."""
    may_go = threading.Event()
    with WriteBehind(depth=10, most_bytes=100, overlap=Overlap(is_on=True)) as behind:
        assert list(behind.do(lambda: may_go.wait(PATIENCE) and ["written"])) == []
        assert list(behind.within(0)) == []
        may_go.set()
        assert list(behind.within(PATIENCE)) == [["written"]]
        assert list(behind.within(PATIENCE)) == []
