"""What a shard that ended early left becomes shards: all of it, once, of a size that takes its time."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchrunner import BatchSpec
from batchrunner.checkpoint import Generation, PlanFacts, Sentinel
from batchrunner.driver.cutting import rest_of
from batchrunner.driver.stored_plan import StoredPlan
from batchrunner.shard import EarlyEnd, Shard, Slice, Slicing

FACTS = PlanFacts(5, "jsonl", "none", "bytes", 1 << 20)


def a_spec(seconds=60.0, batch=8):
    return BatchSpec(
        name="cut",
        capability="capabilities:echo",
        source={"uri": "in", "shard": {"seconds": seconds}},
        sink="out",
        execution={"batch_size": batch},
    )


def a_slice(name="a", *, weight=1000, **fields):
    return Slice(f"/in/{name}.jsonl", Slicing.FILE, 0, 1000, 1000, "1", weight=weight, **fields)


def a_sentinel(shard, end, *, rows, calling=1.0, reading=0.0):
    """One whose calls took *calling* seconds a row, and its reading *reading* in all."""
    return Sentinel(
        "run",
        shard,
        FACTS.part(shard),
        rows,
        rows,
        0,
        1,
        "",
        "",
        "",
        seconds=0.0,
        calling=calling * rows,
        reading=reading,
        slices=end.slices,
        slice_rows=end.rows,
        slice_total=end.total,
    )


def a_plan(*shards):
    return Generation(FACTS, shards)


def numbers(shards, totals):
    """Which rows of which files *shards* have, in order, each as often as they have it."""
    return [
        (piece.uri, row)
        for shard in shards
        for piece in shard.slices
        for row in range(totals[piece.uri])[piece.skip : _stop(piece)]
    ]


def _stop(piece):
    return None if piece.take is None else piece.skip + piece.take


@given(
    st.lists(st.integers(1, 300), min_size=1, max_size=5),
    st.data(),
    st.integers(1, 20),
    st.floats(0.01, 100),
    st.floats(0, 10),
)
def test_the_rest_and_what_was_read_are_the_shard(sizes, data, batch, calling, reading):
    """Whatever the rates: no row is left out, none is in two shards, and the order is kept."""
    pieces = [
        a_slice(str(n), rows=data.draw(st.sampled_from([size, None])))
        for n, size in enumerate(sizes)
    ]
    totals = {piece.uri: size for piece, size in zip(pieces, sizes, strict=True)}
    first = data.draw(st.integers(1, sum(sizes) - 1)) if sum(sizes) > 1 else 1
    end = _end_after(first, sizes)
    if end is None:
        return
    shard = Shard(0, tuple(pieces))
    generation = a_plan(shard, Shard(1, (a_slice("other", rows=3),)))
    spec = a_spec(batch=batch)
    sentinel = a_sentinel(0, end, rows=first, calling=calling, reading=reading)

    rest = rest_of(StoredPlan.of([generation]), {0: sentinel}, spec=spec)
    plan = StoredPlan.of([generation, rest])

    narrowed, _, *added = plan.active
    assert numbers([narrowed, *added], totals) == numbers([shard], totals)
    assert len(numbers([narrowed], totals)) == first
    assert [one.id for one in added] == list(range(2, 2 + len(added)))
    assert rest_of(plan, {0: sentinel}, spec=spec) is None
    for one in added:
        assert one.rows is None or one.rows == len(numbers([one], totals))


def _end_after(first, sizes):
    for number, size in enumerate(sizes):
        if first < size:
            return EarlyEnd(number + 1, first, size) if first else EarlyEnd(number)
        first -= size
    return None


def test_shards_have_the_rows_that_went_through_in_their_time():
    """3,000 prompts of 2 s each: 100 shards of about a minute."""
    end = EarlyEnd(1, 32, 3000)
    rest = rest_of(
        StoredPlan.of([a_plan(Shard(0, (a_slice(),)))]),
        {0: a_sentinel(0, end, rows=32, calling=2.0)},
        spec=a_spec(),
    )

    assert {shard.rows for shard in rest.shards[:-1]} == {24}
    assert 12 <= rest.shards[-1].rows <= 36
    assert rest.shards[-1].first.take is None
    assert rest.ended == {0: end}


def test_a_shard_has_at_least_a_batch():
    end = EarlyEnd(1, 8, 80)
    rest = rest_of(
        StoredPlan.of([a_plan(Shard(0, (a_slice(),)))]),
        {0: a_sentinel(0, end, rows=8, calling=500)},
        spec=a_spec(),
    )

    assert [shard.rows for shard in rest.shards] == [8] * 9


@pytest.mark.parametrize("reading", [0.1, 1.0, 10.0, 100.0, 10_000.0])
def test_skipping_costs_at_most_a_tenth_of_the_calls(reading):
    """Each window is read from the start of its slice, which has *reading* seconds in it."""
    total = 10_000
    rest = rest_of(
        StoredPlan.of([a_plan(Shard(0, (a_slice(rows=total),)))]),
        {0: a_sentinel(0, EarlyEnd(1, 64, total), rows=64, calling=1.0, reading=reading)},
        spec=a_spec(),
    )
    skipped = sum(shard.first.skip for shard in rest.shards) * reading / total

    assert len(rest.shards) == 1 or skipped <= 0.1 * (total - 64)
    assert len(rest.shards) >= min(177, 900 / reading)  # nor are shards larger than that takes


def test_small_files_are_packed_again_by_the_rate():
    """A shard of many files: the rest of them, so many to a shard as take its time."""
    files = tuple(a_slice(f"{n:03}", weight=100) for n in range(100))
    rest = rest_of(
        StoredPlan.of([a_plan(Shard(0, files))]),
        {0: a_sentinel(0, EarlyEnd(10), rows=100, calling=1.0)},
        spec=a_spec(),
    )

    # 10 rows a file, 56 rows a shard
    assert [len(shard.slices) for shard in rest.shards] == [5] * 18
    assert [piece for shard in rest.shards for piece in shard.slices] == list(files[10:])


def test_of_a_file_that_cannot_be_counted_the_rest_is_one_shard():
    """It is damaged further on: its reader says so."""
    rest = rest_of(
        StoredPlan.of([a_plan(Shard(0, (a_slice(),)))]),
        {0: a_sentinel(0, EarlyEnd(1, 8), rows=8)},
        spec=a_spec(),
    )

    assert [(s.first.skip, s.first.take, s.rows) for s in rest.shards] == [(8, None, None)]


def test_a_window_is_cut_again_within_its_bounds():
    """The rows after it are another shard's."""
    end = EarlyEnd(1, 8, 40)
    plan = StoredPlan.of([a_plan(Shard(0, (a_slice(skip=100, take=40, rows=40),)))])
    rest = rest_of(plan, {0: a_sentinel(0, end, rows=8, calling=10)}, spec=a_spec())

    windows = [(s.first.skip, s.first.take) for s in rest.shards]
    assert windows == [(108, 8), (116, 8), (124, 8), (132, 8)]
    narrowed = StoredPlan.of([a_plan(*plan.active), rest]).active[0].first
    assert (narrowed.skip, narrowed.take, narrowed.rows) == (100, 8, 8)


def test_nothing_is_left_of_shards_that_were_read_to_their_end():
    sentinel = replace(a_sentinel(0, EarlyEnd(1), rows=8), slices=0)
    plan = StoredPlan.of([a_plan(Shard(0, (a_slice(),)))])

    assert rest_of(plan, {0: sentinel}, spec=a_spec()) is None
    assert rest_of(plan, {}, spec=a_spec()) is None


def test_a_narrowed_shard_that_is_made_again_may_end_earlier_still():
    """Its part was damaged, and was taken back: its rest is new, and the first rest stays."""
    end = EarlyEnd(1, 64, 100)
    plan = [a_plan(Shard(0, (a_slice(),)))]
    plan.append(rest_of(StoredPlan.of(plan), {0: a_sentinel(0, end, rows=64)}, spec=a_spec()))
    again = EarlyEnd(1, 16, 64)
    sentinels = {0: a_sentinel(0, again, rows=16, calling=5)}
    plan.append(rest_of(StoredPlan.of(plan), sentinels, spec=a_spec()))

    shards = StoredPlan.of(plan).active
    totals = {"/in/a.jsonl": 100}
    assert sorted(numbers(shards, totals)) == [("/in/a.jsonl", row) for row in range(100)]
    assert shards[0].rows == 16
