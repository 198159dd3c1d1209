"""Shards that are slow end early, between two batches; each row lies before the end or after it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchrunner.shard import EarlyEnd, Shard, Slice, Slicing
from batchrunner.spec import SourceSpec
from batchrunner.worker.pulse import Pulse
from batchrunner.worker.reading import read_shards
from batchrunner.worker.receipt import Cause, Failure
from batchrunner.worker.slow_shards import SlowShards
from batchrunner.worker.steps import Event, Grouping, steps_of


class Clock:
    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


class Attempt:
    """Reads shards as a worker does, and takes *each* seconds of a clock for a row."""

    def __init__(self, seconds, *, each=1.0, size=4, spans=False, by_shape=False):
        self.clock, self.pulse, self.each = Clock(), Pulse(), each
        self.slow = SlowShards(seconds, self.pulse, clock=self.clock)
        self.grouping = Grouping(size, by_shape=by_shape, spans_shards=spans)

    def over(self, shards, source):
        def begun():
            for shard in shards:
                self.pulse.begin(shard.id)
                yield shard

        return self.of(
            read_shards(
                begun(),
                source,
                to_retry=lambda shard, origin: {0: frozenset([0])},
                by_columns=self.grouping.by_shape,
                is_ended=self.slow.is_ended,
            )
        )

    def of(self, events):
        """The rows of each shard as they went through, each by its place, and how it ended."""
        rows, ends = {}, {}
        for step in self.slow.ending(steps_of(events, self.grouping)):
            for piece in step.batch.pieces if step.batch else ():
                places = list(piece.chunk.positions())[piece.start : piece.stop]
                rows.setdefault(piece.shard.id, []).extend((piece.number, at) for at in places)
            for portion in step.portions:
                bad = [(number, row.position.at) for number, row in portion.bad]
                rows.setdefault(portion.shard.id, []).extend(bad)
                attempt = self.pulse.attempt(portion.shard.id)
                attempt.rows += portion.rows_in
                attempt.bytes += portion.nbytes
                self.clock.now += self.each * portion.rows_in
                if portion.is_end or portion.failure:
                    assert portion.shard.id not in ends
                    ends[portion.shard.id] = portion
        return {shard: sorted(some) for shard, some in rows.items()}, ends


def files(folder, kinds_of_files):
    """JSON lines whose rows are readable or not; the slices of one shard."""
    slices = []
    for number, kinds in enumerate(kinds_of_files):
        path = folder / f"{number}.jsonl"
        path.write_text("".join('{"id": 1}\n' if kind else "bad\n" for kind in kinds))
        stat = path.stat()
        size, identity = stat.st_size, str(stat.st_mtime_ns)
        slices.append(
            Slice(str(path), Slicing.BYTES, 0, size, size, identity, rows=None, weight=size)
        )
    return tuple(slices)


def places(slices):
    """All rows of a shard: the number of the slice, and where it begins."""
    found = []
    for number, piece in enumerate(slices):
        with open(piece.uri, "rb") as file:
            at = 0
            for line in file:
                found.append((number, at))
                at += len(line)
    return found


def the_source(folder):
    return SourceSpec(uri=str(folder))


KINDS = st.lists(st.lists(st.booleans(), min_size=1, max_size=12), min_size=1, max_size=4)


@given(KINDS, st.integers(1, 6), st.integers(1, 30), st.booleans())
def test_what_comes_before_the_end_and_after_it_is_the_shard(
    tmp_path_factory, kinds, size, seconds, by_shape
):
    """Unreadable rows in the middle of a chunk included: none is lost, none comes twice."""
    folder = tmp_path_factory.mktemp("in")
    slices = files(folder, kinds)
    rows, ends = Attempt(seconds, size=size, by_shape=by_shape).over(
        [Shard(0, slices)], the_source(folder)
    )
    whole = places(slices)

    assert rows[0] == whole[: len(rows[0])]
    end = ends[0].early_end
    if end is None:
        assert rows[0] == whole
        return
    until = Shard(0, slices).until(end)
    assert Shard(0, slices).until(end).until(end) == until
    again, _ = Attempt(None, size=size).over([until], the_source(folder))
    assert again[0] == rows[0] != whole
    if end.rows:
        last = end.slices - 1
        assert end.total == len([one for one in whole if one[0] == last])
        assert until.slices[-1].rows == end.rows == len([r for r in rows[0] if r[0] == last])
        assert until.slices[-1].take == end.rows
    else:
        assert (end.slices, 0) == whole[len(rows[0])]


def test_a_shard_ends_once_it_took_its_time_and_the_rest_would_take_it_again(tmp_path):
    """3,000 prompts to a slow model were one shard, whatever they cost."""
    slices = files(tmp_path, [[True] * 300])
    rows, ends = Attempt(60, size=8).over([Shard(0, slices)], the_source(tmp_path))

    assert ends[0].early_end == EarlyEnd(1, 64, 300)
    assert len(rows[0]) == 64


@pytest.mark.parametrize(("count", "is_cut"), [(119, False), (130, True)])
def test_a_shard_that_is_nearly_done_goes_on(tmp_path, count, is_cut):
    """Else its last few rows would make a part of their own."""
    slices = files(tmp_path, [[True] * count])
    _, ends = Attempt(60, size=8).over([Shard(0, slices)], the_source(tmp_path))

    assert (ends[0].early_end is not None) is is_cut


def test_a_batch_that_takes_longer_than_a_shard_may_makes_a_shard_of_its_own(tmp_path):
    slices = files(tmp_path, [[True] * 40])
    rows, _ = Attempt(60, size=8, each=100).over([Shard(0, slices)], the_source(tmp_path))

    assert len(rows[0]) == 8


def test_of_a_compressed_file_the_rest_is_not_known_and_it_ends_after_twice_the_time(tmp_path):
    """Its rows have more bytes than the file: they seem to be all there are."""
    (piece,) = files(tmp_path, [[True] * 300])
    rows, ends = Attempt(60, size=8).over(
        [Shard(0, (Slice(**{**_fields(piece), "weight": 10}),))], the_source(tmp_path)
    )

    assert ends[0].early_end == EarlyEnd(1, 120, 300)
    assert len(rows[0]) == 120


def _fields(piece):
    return {name: getattr(piece, name) for name in Slice.__slots__}


def test_no_other_row_is_parsed_where_planning_counted_the_rows(tmp_path):
    """They would only be counted again."""
    (piece,) = files(tmp_path, [[True] * 300])
    shard = Shard(0, (Slice(**{**_fields(piece), "rows": 301}),))
    _, ends = Attempt(60, size=8).over([shard], the_source(tmp_path))

    assert ends[0].early_end == EarlyEnd(1, 64, 301)


def test_the_end_at_a_file_of_a_pack_leaves_that_file_whole(tmp_path):
    slices = files(tmp_path, [[True] * 16] * 20)
    rows, ends = Attempt(60, size=16).over([Shard(0, slices)], the_source(tmp_path))

    assert ends[0].early_end == EarlyEnd(4)
    assert len(rows[0]) == 64


def test_the_hashes_are_of_the_slices_before_the_end(tmp_path):
    """A file that is touched later is compared with them, slice by slice."""
    slices = files(tmp_path, [[True] * 16] * 20)
    _, ends = Attempt(60, size=16).over([Shard(0, slices)], the_source(tmp_path))
    _, whole = Attempt(None).over([Shard(0, slices)], the_source(tmp_path))

    assert ends[0].source_hash.split(" ") == whole[0].source_hash.split(" ")[:4]


def test_with_batches_over_shards_only_the_slow_shard_ends(tmp_path):
    """The next shard has rows in the batch that the slow one is cut out of."""
    slow, quick = files(tmp_path, [[True] * 66, [True] * 6])
    shards = [Shard(0, (slow,)), Shard(1, (quick,))]
    rows, ends = Attempt(30, size=8, spans=True).over(shards, the_source(tmp_path))

    assert ends[0].early_end == EarlyEnd(1, 32, 66)
    assert (len(rows[0]), len(rows[1])) == (32, 6)
    assert ends[1].early_end is None


def test_a_shard_that_breaks_after_its_end_keeps_what_came_before(tmp_path):
    """What is left meets the damage, and fails with it."""
    shard = Shard(0, files(tmp_path, [[True] * 64]))
    attempt = Attempt(10, size=8)

    def events():
        attempt.pulse.begin(0)
        for event in read_shards([shard], the_source(tmp_path), to_retry=lambda *_: {}):
            if event.chunk is not None:
                yield event
        yield Event(shard, failure=Failure(Cause.INPUT, "broken"))

    rows, ends = attempt.of(events())

    assert ends[0].failure is None
    assert ends[0].early_end == EarlyEnd(1, 16)
    assert len(rows[0]) == 16


def test_dead_letters_are_tried_again_to_the_last(tmp_path):
    """They are few, and what is left of them could not be said in rows of a slice."""
    (piece,) = files(tmp_path, [[True] * 64])
    retry = Slice(**{**_fields(piece), "slicing": Slicing.DEAD_LETTERS, "stop": 1})
    _, ends = Attempt(1, size=1, each=100).over([Shard(1, (retry,))], the_source(tmp_path))

    assert ends[1].early_end is None


def test_without_a_time_nothing_ends_early(tmp_path):
    """The user asked for shards of rows, bytes or files."""
    slices = files(tmp_path, [[True] * 300])
    rows, ends = Attempt(None, each=1000).over([Shard(0, slices)], the_source(tmp_path))

    assert ends[0].early_end is None
    assert len(rows[0]) == 300


class Stopped:
    """A stop for the cost, or another one."""

    def __init__(self, *, ends_shards, after):
        self.ends_shards, self._after, self._asked = ends_shards, after, 0

    def waited(self):
        self._asked += 1
        return 1.0 if self._asked > self._after else 0.0


@pytest.mark.parametrize(
    ("ends_shards", "seconds", "expected"), [(True, 1e9, 8), (False, 1e9, 40), (True, None, 40)]
)
def test_a_stop_for_the_cost_ends_a_shard_before_its_next_batch(
    tmp_path, ends_shards, seconds, expected
):
    """What is paid for is kept, and little more is paid; but not where the spec asks for whole shards."""
    attempt = Attempt(seconds)
    attempt.slow.stop = Stopped(ends_shards=ends_shards, after=1)
    shard = Shard(0, files(tmp_path, [[True] * 40]))

    rows, ends = attempt.over([shard], the_source(tmp_path))

    assert len(rows[0]) == expected
    assert (ends[0].early_end is not None) == (expected < 40)
