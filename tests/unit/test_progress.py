"""How far a run is, by the shards that are committed."""

from dataclasses import replace

from batchrunner.checkpoint import Sentinel
from batchrunner.driver.progress import Progress
from batchrunner.shard import Slicing
from batchrunner.spec import ErrorsSpec
from shards import one_slice


def a_shard(number, *, weight=10, dead_letters_of=None, rows=1):
    if dead_letters_of is None:
        return one_slice(number, "/in", Slicing.BYTES, 0, 10, 10, "x", weight=weight)
    kind = Slicing.DEAD_LETTERS
    return one_slice(number, "/in", kind, dead_letters_of, rows, 10, "x", rows=rows, weight=weight)


def a_sentinel(number, *, rows_in=10, rows_failed=0):
    rows_out = rows_in - rows_failed
    return Sentinel("r", number, "p", rows_in, rows_out, rows_failed, 1, "s", "w", "s", 0.1)


def test_retried_rows_count_as_failed_only_once_they_fail_again():
    """Counted twice, a retry would end for the very rows that it was started for."""
    shards = [a_shard(0), a_shard(1, dead_letters_of=0, rows=4)]
    first = {0: a_sentinel(0, rows_failed=4)}

    begun = Progress.of(shards, first, pending=shards[1:])
    done = begun.committing(shards[1], a_sentinel(1, rows_in=4, rows_failed=1))

    assert (begun.totals.rows_in, begun.totals.rows_failed) == (10, 0)
    assert (done.totals.rows_in, done.totals.rows_out, done.totals.rows_failed) == (10, 9, 1)
    assert (done.committed, done.share) == (2, 1.0)
    assert (begun.is_retry, begun.rows_to_retry, begun.rows_retried) == (True, 4, 0)
    assert (done.rows_to_retry, done.rows_retried) == (4, 4)


def test_failed_rows_are_held_against_the_rows_that_the_whole_run_will_have():
    """A share of all rows, of which only the committed ones are counted so far."""
    shards = [a_shard(0, weight=10), a_shard(1, weight=90)]
    progress = Progress.of(shards, {}, pending=shards).committing(
        shards[0], a_sentinel(0, rows_failed=5)
    )

    assert not progress.exceeds(ErrorsSpec(max_row_errors=0.05))
    assert progress.exceeds(ErrorsSpec(max_row_errors=0.04))
    assert progress.exceeds(ErrorsSpec(max_row_errors=4))


def test_the_time_left_follows_the_speed_of_this_session():
    """What earlier sessions committed took none of its time."""
    shards = [a_shard(number) for number in range(4)]
    new = Progress.of(shards, {0: a_sentinel(0)}, pending=shards[1:])
    begun = replace(new, began=new.began - 100)

    assert begun.seconds_left() is None
    later = begun.committing(shards[1], a_sentinel(1))
    before, left, after = later.seconds, later.seconds_left(), later.seconds
    assert left is not None
    assert 2 * before <= left <= 2 * after
