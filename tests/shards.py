"""Shards of one slice, for tests that are not about the slices."""

from batchrunner.shard import Shard, Slice


def one_slice(number, *of_slice, **also_of_slice):
    return Shard(number, (Slice(*of_slice, **also_of_slice),))
