"""Files of another time are looked into once, and only as far as something vouches for them."""

import io

import pytest

from batchrunner.checkpoint import Generation, PlanFacts, Sentinel
from batchrunner.driver.file_table import SourceFile
from batchrunner.driver.same_bytes import Comparer
from batchrunner.driver.stored_plan import StoredPlan
from batchrunner.errors import ObjectChangedError
from batchrunner.formats.registry import FileKind, format_named
from batchrunner.shard import Slicing
from shards import one_slice

FACTS = PlanFacts(5, "jsonl", "none", "bytes", 4096)
DATA = b'{"a":1}\n{"a":2}\n'
HALVES = [
    one_slice(0, "/in/a", Slicing.BYTES, 0, 8, 16, "old"),
    one_slice(1, "/in/a", Slicing.BYTES, 8, 16, 16, "old"),
]


def a_sentinel(shard, source_hash):
    return Sentinel("r", shard, "p", 1, 1, 0, 1, "s", "w", "s", 0.1, source_hash=source_hash)


def hash_of(piece, data=DATA):
    hashed = format_named("jsonl").source_hash(piece, columns=None)
    file = hashed.over(io.BytesIO(data))
    file.seek(max(piece.start - 1, 0))
    file.read()
    hashed.finish(file)
    return hashed.text


class Asked:
    """A comparer over one file, which counts how often that is opened."""

    def __init__(self, data=DATA):
        self.opened = 0
        self.data = data
        self.comparer = Comparer(self.open, columns=None)

    def open(self, _):
        self.opened += 1
        if isinstance(self.data, Exception):
            raise self.data
        return io.BytesIO(self.data)

    def compare(self, hashes, *, identity="new", size=16):
        plan = StoredPlan.of([Generation(FACTS, tuple(HALVES))])
        committed = {number: a_sentinel(number, text) for number, text in hashes.items()}
        files = [SourceFile("/in/a", size, identity, FileKind("jsonl"))]
        return self.comparer.compare(plan, files, committed)


ALL = {shard.id: hash_of(shard.first) for shard in HALVES}


def test_two_surveys_read_a_file_once():
    """The second is made with the right to run, a moment after the first."""
    asked = Asked()

    assert [asked.compare(ALL).same for _ in range(2)] == [{"/in/a": "new"}] * 2
    assert asked.opened == 1
    asked.compare(ALL, identity="newer")
    assert asked.opened == 2


@pytest.mark.parametrize("hashes", [{0: ALL[0]}, {1: ALL[1]}, ALL])
def test_every_committed_shard_must_be_what_it_was(hashes):
    """And one is enough: what is not committed is read as it is now."""
    assert Asked().compare(hashes).same == {"/in/a": "new"}
    assert Asked().compare({**hashes, 1: ALL[0]}).changed == ("/in/a",)


@pytest.mark.parametrize("hashes", [{}, {0: ""}, {0: ALL[0], 1: ""}])
def test_without_a_hash_of_each_committed_shard_nothing_is_read(hashes):
    """It could not be believed whatever the others say."""
    asked = Asked()

    found = asked.compare(hashes)

    assert (found.same, found.changed, asked.opened) == ({}, (), 0)


@pytest.mark.parametrize("file", [{"identity": "old"}, {"size": 17}])
def test_a_file_that_is_as_listed_or_of_another_size_is_not_read(file):
    """Listings decide."""
    asked = Asked()

    assert asked.compare(ALL, **file).same == {}
    assert asked.opened == 0


def test_a_file_that_changes_while_it_is_looked_into_is_not_the_same():
    """The bytes that were read may be of two files."""
    assert Asked(ObjectChangedError("it changed")).compare(ALL).changed == ("/in/a",)
