"""Marks that only a death leaves: whom they make a suspect, and whom not."""

from __future__ import annotations

import uuid

import pytest

from batchrunner.checkpoint.marks import (
    Witness,
    marked,
    marks_left,
    record_deaths,
    remove_marks,
    suspicion,
)
from batchrunner.testing.memory import MemoryStorage

SOMEONE = Witness("a later session")


@pytest.fixture
def storage():
    return MemoryStorage(uuid.uuid4().hex)


def die_over(storage, *shards, session="one", node=""):
    """Leave what a worker leaves that is killed over *shards*."""
    block = marked(storage, shards, session=session, node=node)
    block.__enter__()
    return block


def suspects(storage, todo, *, in_flight=100, witness=SOMEONE):
    return suspicion(marks_left(storage), set(todo), in_flight=in_flight, witness=witness)


def test_a_worker_that_ends_alive_leaves_nothing(storage):
    """Also when it raises: only a death is a death."""
    with marked(storage, [1, 2], session="one"):
        assert suspects(storage, [1, 2]).suspects == {1, 2}
    with pytest.raises(KeyboardInterrupt), marked(storage, [1, 2], session="one"):
        raise KeyboardInterrupt

    assert not list(storage.list("attempts"))


def test_the_shards_that_a_dead_worker_can_have_been_at_are_suspects(storage):
    """It took them in order, so that most of a large group had not begun."""
    kept = [die_over(storage, *range(1000))]

    seen = suspects(storage, range(200, 1000), in_flight=3)

    assert (seen.suspects, dict(seen.deaths)) == ({200, 201, 202}, {})
    assert kept


def test_a_death_over_a_shard_alone_counts_against_it(storage):
    """Then, and only then, no other shard can have killed it; and its driver outlived it."""
    kept = [die_over(storage, *shards, node="a") for shards in ([7], [7], [7, 8])]

    seen = suspects(storage, [7, 8], witness=Witness("one", "b"))

    assert (seen.suspects, dict(seen.deaths), dict(seen.outside)) == ({7, 8}, {7: 2}, {})
    assert kept


def test_deaths_that_the_driver_did_not_outlive_count_against_no_shard(storage):
    """Ten preemptions of driver and workers: only that the shard is tried by itself comes of it."""
    kept = [die_over(storage, 7, session=f"{n}", node="a") for n in range(10)]

    for witness in (Witness("later", "a"), Witness("later")):
        seen = suspects(storage, [7], witness=witness)
        assert (seen.suspects, dict(seen.deaths), dict(seen.outside)) == ({7}, {}, {7: 10})
    assert kept


def test_a_death_that_the_next_worker_of_the_session_saw_counts_for_ever(storage):
    """Else a driver that is killed often would hide a row that kills its workers."""
    kept = [die_over(storage, 7, node="a"), die_over(storage, 8, node="a")]
    kept += [die_over(storage, 7, session="two", node="a")]

    record_deaths(storage, {7}, session="one")
    remove_marks(storage, session="one")

    for witness in (Witness("later", "a"), Witness("later")):
        seen = suspects(storage, [7, 8], witness=witness)
        assert (dict(seen.deaths), dict(seen.outside)) == ({7: 1}, {7: 1})
    assert kept


def test_a_worker_that_went_down_with_its_node_counts_against_no_shard(storage):
    """Also when the driver, on another node, outlived it, and took it for a death at first."""
    kept = [die_over(storage, 7, node="gone"), die_over(storage, 7, node="up")]
    record_deaths(storage, {7}, session="one")

    witness = Witness("one", "up", is_lost=lambda node: node == "gone")

    assert dict(suspects(storage, [7], witness=witness).deaths) == {7: 1}
    assert kept


def test_a_worker_in_the_drivers_process_does_not_take_its_own_marks_for_deaths(storage):
    """A mark of its session is its own, and it is alive."""
    kept = [die_over(storage, 7)]

    assert suspects(storage, [7], witness=Witness("one")).suspects == frozenset()
    assert kept


def test_what_is_no_mark_accuses_no_shard(storage):
    """A torn one, and an object of another program."""
    storage.put("attempts/torn.json", b'{"version": 1, "shar')
    storage.put("attempts/other.json", b"[]")

    remove_marks(storage, session="one")

    assert suspects(storage, [1]).suspects == frozenset()


def test_a_session_that_was_told_to_end_takes_its_marks_along(storage):
    """Not those of others."""
    kept = [die_over(storage, 1, session="one"), die_over(storage, 2, session="two")]

    remove_marks(storage, session="one")

    assert suspects(storage, [1, 2]).suspects == {2}
    assert kept
