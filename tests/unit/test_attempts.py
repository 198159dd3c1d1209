"""Marks that only a death leaves: whom they make a suspect, and whom not."""

from __future__ import annotations

import uuid

import pytest

from batchrunner.testing.memory import MemoryStorage
from batchrunner.worker.attempts import forget_attempts, marked, marks_left, suspicion


@pytest.fixture
def storage():
    return MemoryStorage(uuid.uuid4().hex)


def die_over(storage, *shards, session="one"):
    """Leave what a worker leaves that is killed over *shards*."""
    block = marked(storage, shards, session=session)
    block.__enter__()
    return block


def suspects(storage, todo, *, in_flight=100):
    return suspicion(marks_left(storage), set(todo), in_flight=in_flight)


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
    """Then, and only then, nobody else can have done it."""
    kept = [die_over(storage, 7), die_over(storage, 7), die_over(storage, 7, 8)]

    seen = suspects(storage, [7, 8])

    assert (seen.suspects, dict(seen.deaths)) == ({7, 8}, {7: 2})
    assert kept


def test_what_is_no_mark_accuses_nobody(storage):
    """A torn one, and one of somebody else's."""
    storage.put("attempts/torn.json", b'{"version": 1, "shar')
    storage.put("attempts/other.json", b"[]")

    forget_attempts(storage, session="one")

    assert suspects(storage, [1]).suspects == frozenset()


def test_a_session_that_was_told_to_end_takes_its_marks_along(storage):
    """Not those of others."""
    kept = [die_over(storage, 1, session="one"), die_over(storage, 2, session="two")]

    forget_attempts(storage, session="one")

    assert suspects(storage, [1, 2]).suspects == {2}
    assert kept
