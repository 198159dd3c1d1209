"""Shards in groups: all of them once, in few calls, with small ones at the end to even things out."""

import heapq
import math
import random
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchrunner.execute.workers import make_groups
from batchrunner.shard import Slicing
from shards import one_slice

WORKERS = st.integers(1, 64)
WEIGHTS = st.lists(
    st.integers(0, 5) | st.integers(0, 2**62) | st.sampled_from([0, 1, 2**40]), max_size=200
)


def shards_of(weights):
    return [
        one_slice(n, f"/in/{n}.jsonl", Slicing.FILE, 0, weight, weight, "", weight=weight)
        for n, weight in enumerate(weights)
    ]


def weight_of(group):
    return sum(shard.weight for shard in group)


@given(weights=WEIGHTS, workers=WORKERS)
def test_every_shard_is_in_one_group(weights, workers):
    """A shard that is in none is lost, one that is in two is computed twice."""
    shards = shards_of(weights)

    groups = make_groups(shards, workers=workers)

    assert sorted(shard.id for group in groups for shard in group) == list(range(len(shards)))
    assert all(groups)


@given(weights=WEIGHTS, workers=WORKERS)
def test_large_shards_go_first(weights, workers):
    """The largest shard, begun last, would be waited for alone."""
    groups = make_groups(shards_of(weights), workers=workers)

    order = [shard.weight for group in groups for shard in group]
    assert order == sorted(order, reverse=True)


@given(weights=WEIGHTS, workers=WORKERS, first=st.integers(0, 199))
def test_one_shard_may_go_before_all_others(weights, workers, first):
    """The schema of a sink is that of its part."""
    groups = make_groups(shards_of(weights), workers=workers, first=first)

    order = [shard.id for group in groups for shard in group]
    assert sorted(order) == list(range(len(weights)))
    assert first >= len(weights) or order[0] == first


@given(weights=WEIGHTS, workers=WORKERS)
def test_no_group_is_more_than_a_fair_share_of_what_is_left(weights, workers):
    """A worker may be handed two before the others have started. A single shard may be more: it cannot be cut."""
    groups = make_groups(shards_of(weights), workers=workers)

    left = sum(weights)
    for first in range(0, len(groups), workers):
        turn = groups[first : first + workers]
        assert all(len(g) == 1 or weight_of(g) <= left / (3 * workers) for g in turn)
        left -= sum(map(weight_of, turn))


@given(count=st.integers(1, 2000), workers=WORKERS)
def test_of_equal_shards_the_last_groups_are_single(count, workers):
    """Each worker ends at most a shard after the others."""
    groups = make_groups(shards_of([7] * count), workers=workers)

    assert [len(group) for group in groups] == sorted(map(len, groups), reverse=True)
    assert all(len(group) == 1 for group in groups[-min(count, workers) :])


@given(count=st.integers(1, 2000), workers=WORKERS)
def test_equal_shards_make_few_groups(count, workers):
    """Each costs a call on Ray: about as many rounds as a third can be taken off the count."""
    groups = make_groups(shards_of([7] * count), workers=workers)

    assert len(groups) <= workers * (2 + math.log2(max(count / workers, 1)) * 2)


@given(weights=st.lists(st.integers(1, 2**40), min_size=1, max_size=2000), workers=WORKERS)
def test_shards_of_any_size_make_few_groups(weights, workers):
    """A sixth of what is left, at least, goes out in each round."""
    groups = make_groups(shards_of(weights), workers=workers)

    rounds = math.log(sum(weights)) / math.log(6 / 5) + 2
    assert len(groups) <= workers * rounds


@pytest.mark.parametrize(("workers", "count"), [(2, 34), (8, 400), (32, 3_200)])
@pytest.mark.parametrize("late", [0.1, 0.5, 5.0])
def test_workers_that_start_late_and_hold_two_groups_end_together(workers, count, late):
    """The first of two was handed half of all shards before the second had started, and then more."""
    queue = [len(group) for group in make_groups(shards_of([7] * count), workers=workers)]

    ends = ends_of(queue, starts=[late * n for n in range(workers)])

    assert max(ends) - min(ends) <= max(3, late)


def ends_of(queue, *, starts):
    """Return when each worker is done, a shard taking 1, if a group waits while another one runs."""
    free = dict.fromkeys(range(len(starts)), 0.0)
    takes = [(at, n) for n, at in enumerate(starts) for _ in range(2)]
    heapq.heapify(takes)
    for size in queue:
        at, worker = heapq.heappop(takes)
        free[worker] = max(free[worker], at) + size
        heapq.heappush(takes, (free[worker], worker))
    return list(free.values())


def test_a_giant_goes_alone_and_the_rest_is_shared():
    """One file of a terabyte among thousands of small ones."""
    groups = make_groups(shards_of([1] * 100 + [10**6]), workers=4)

    assert [shard.id for shard in groups[0]] == [100]
    assert max(map(len, groups)) > 1


def test_no_shards_are_no_groups():
    """The engine need not be asked."""
    assert make_groups([], workers=3) == []


@pytest.mark.parametrize("kind", ["equal", "mixed", "steep", "zero"])
def test_a_hundred_thousand_shards_are_grouped_at_once(kind):
    """The driver does it before the first worker can begin."""
    dice = random.Random(1)
    weights = {
        "equal": [32 << 20] * 100_000,
        "mixed": [dice.randrange(1, 1 << 30) for _ in range(100_000)],
        "steep": [max(1, (1 << 60) >> (n // 10)) for n in range(100_000)],
        "zero": [0] * 100_000,
    }[kind]
    shards = shards_of(weights)

    began = time.process_time()
    groups = make_groups(shards, workers=16)

    assert time.process_time() - began < 10
    assert sum(map(len, groups)) == 100_000
