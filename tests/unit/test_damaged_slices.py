"""Which files of a shard cannot be read, and how the plan divides the shard."""

from __future__ import annotations

import pytest

from batchrunner.checkpoint import Generation, PlanFacts
from batchrunner.driver import damaged_files
from batchrunner.driver.damaged_files import divided
from batchrunner.driver.stored_plan import StoredPlan
from batchrunner.errors import (
    ObjectChangedError,
    ObjectNotFoundError,
    StorageAccessError,
    StorageError,
)
from batchrunner.shard import Shard, Slice, SliceTable, Slicing
from batchrunner.worker.receipt import Cause, Failure
from batchrunner.worker.unreadable import unreadable_slices

FACTS = PlanFacts(5, "jsonl", "", "bytes", 100, 100)


def a_slice(number, slicing=Slicing.FILE, *, origin=0):
    return Slice(f"/in/{number}", slicing, origin, 1, 1, "x", weight=1)


def a_shard(id_, count=6, *, first=0):
    return Shard(id_, tuple(a_slice(number) for number in range(first, first + count)))


def found(errors, *, shard=None):
    """What is unreadable in a shard of six if reading a slice raises what *errors* has for it."""
    read = []

    def reading(piece):
        number = int(piece.uri.removeprefix("/in/"))
        read.append(number)
        if number in errors:
            raise errors[number]

    first = min(errors)
    unreadable = unreadable_slices(shard or a_shard(7), first, errors[first], read=reading)
    return unreadable, read


def test_the_slices_after_the_first_unreadable_one_are_read():
    """Those before it were read already."""
    assert found({1: ValueError(), 4: OSError()}) == ((1, 4), [2, 3, 4, 5])


@pytest.mark.parametrize("error", [ObjectNotFoundError, ObjectChangedError, StorageAccessError])
def test_what_storage_says_of_an_object_is_of_that_object(error):
    """However many there are: a folder may have lost its readers."""
    assert found({n: error("no") for n in range(2, 6)})[0] == (2, 3, 4, 5)


def test_a_storage_that_is_out_of_reach_says_nothing_of_the_files():
    """And they are not all tried: each may take minutes to fail."""
    assert found({n: StorageError("down") for n in range(6)}) == ((), [1, 2])


def test_a_bad_sector_here_and_there_is_of_its_file():
    """Storage answers for the files between."""
    assert found({n: StorageError("I/O error") for n in (0, 1, 3, 4)})[0] == (0, 1, 3, 4)


@pytest.mark.parametrize(
    "shard",
    [a_shard(0, 1), Shard(0, tuple(a_slice(n, Slicing.DEAD_LETTERS, origin=3) for n in range(6)))],
)
def test_what_cannot_be_divided_is_not_read_again(shard):
    """Dead letters say their slice by its number in the shard that they are of."""
    assert found({0: ValueError()}, shard=shard) == ((), [])


def a_plan(*shards):
    return StoredPlan.of([Generation(FACTS, shards)])


def a_failure(*unreadable, cause=Cause.INPUT):
    return Failure(cause, "damaged", unreadable=unreadable)


def uris(generation):
    return {shard.id: [piece.uri for piece in shard.slices] for shard in generation.shards}


def test_readable_slices_stay_together_and_each_other_one_is_alone():
    """Also of several shards, in one generation."""
    plan = a_plan(a_shard(0, 3), a_shard(1, 2, first=3), a_shard(2, 2, first=5))

    addition = divided(plan, {0: a_failure(1), 2: a_failure(0, 1)})

    assert addition.retired == (0, 2)
    assert uris(addition) == {3: ["/in/0", "/in/2"], 4: ["/in/1"], 5: ["/in/5"], 6: ["/in/6"]}


def test_the_plan_grows_to_what_the_next_session_reads():
    """Else this session and the next one would know other shards."""
    first = Generation(FACTS, (a_shard(0, 3), a_shard(1, 2, first=3)))
    stored = StoredPlan.of([first])

    addition = divided(stored, {0: a_failure(2)})

    assert stored.grown(addition) == StoredPlan.of([first, addition])
    assert divided(stored.grown(addition), {}) is None


def test_shards_of_the_dead_letters_of_a_divided_one_are_retired_with_it():
    """And those of their dead letters: they name their rows by shard and slice."""
    letters = [Shard(n, (a_slice(0, Slicing.DEAD_LETTERS, origin=n - 1),)) for n in (1, 2)]

    assert divided(a_plan(a_shard(0), *letters), {0: a_failure(2)}).retired == (0, 1, 2)


def test_a_failure_that_names_no_slice_divides_nothing():
    """Such as one of the capability."""
    assert divided(a_plan(a_shard(0)), {0: a_failure(cause=Cause.CAPABILITY)}) is None


def test_files_that_storage_refuses_altogether_are_no_damaged_ones():
    """Credentials run out; with new ones, the shard is read as it is."""
    refused = a_failure(*range(6), cause=Cause.STORAGE)

    assert divided(a_plan(a_shard(0)), {0: refused}) is None
    assert divided(a_plan(a_shard(0)), {0: a_failure(3, cause=Cause.STORAGE)}) is not None


def test_with_very_many_damaged_files_those_of_a_shard_stay_together(monkeypatch):
    """Files in another format than the spec says: a shard each would be a million."""
    monkeypatch.setattr(damaged_files, "MOST_ALONE", 4)
    plan = a_plan(a_shard(0, 3), a_shard(1, 3, first=3))
    failures = {0: a_failure(0, 1, 2), 1: a_failure(0, 2)}

    addition = divided(plan, failures)

    assert uris(addition) == {2: ["/in/4"], 3: ["/in/3", "/in/5"]}
    assert divided(a_plan(a_shard(0, 5)), {0: a_failure(*range(5))}) is None


def test_many_slices_stay_columns():
    """Eight thousand objects for each damaged file would be too many."""
    shard = Shard(0, SliceTable.of([a_slice(number) for number in range(200)]))

    whole, _ = divided(a_plan(shard), {0: a_failure(150)}).shards

    assert isinstance(whole.slices, SliceTable)
    assert [piece.uri for piece in whole.slices] == [f"/in/{n}" for n in range(200) if n != 150]
