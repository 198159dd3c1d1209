"""What has to wait for what."""

from __future__ import annotations

from batchrunner.driver.waves import waves
from batchrunner.shard import Slicing
from shards import one_slice


def a_shard(number, *, origin=None):
    slicing = Slicing.FILE if origin is None else Slicing.DEAD_LETTERS
    return one_slice(number, "/in.jsonl", slicing, origin or 0, 1, 1, "x")


def ids(found):
    return [[shard.id for shard in wave] for wave in found]


def test_rows_are_tried_again_after_the_shard_that_sets_them_aside():
    """Before that, no record says which rows they are."""
    shards = [a_shard(4, origin=3), a_shard(3, origin=1), a_shard(0), a_shard(1)]

    assert ids(waves(shards)) == [[0, 1], [3], [4]]


def test_rows_that_are_set_aside_already_wait_for_nothing():
    """As after `retry --rows`: the shard that set them aside is committed."""
    assert ids(waves([a_shard(3, origin=1), a_shard(2)])) == [[2, 3]]
    assert waves([]) == [[]]
