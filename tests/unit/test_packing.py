"""Small files share a shard: in the order of the source, as many as fit, and never with a large one."""

from itertools import groupby, pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchrunner import BatchSpec
from batchrunner.checkpoint import PlanFacts
from batchrunner.driver.file_table import SourceFile
from batchrunner.driver.packing import MOST_SLICES, default_pack, default_packs, packed, size_of
from batchrunner.driver.source_files import slice_of
from batchrunner.formats.contract import Cut
from batchrunner.formats.registry import FileKind
from batchrunner.shard import Slicing

SOURCES = st.lists(st.lists(st.integers(0, 30), min_size=1, max_size=3), max_size=12)
"""The weights of the slices of each file."""


def a_file(number):
    return SourceFile(f"/in/{number}", 100, "1", FileKind("jsonl"))


def cuts_of(source):
    return [
        (
            a_file(number),
            [Cut(Slicing.BYTES, at, weight, None, weight) for at, weight in enumerate(weights)],
        )
        for number, weights in enumerate(source)
    ]


def number_of(piece):
    return int(piece.uri.removeprefix("/in/"))


def shards_of(cuts, *, pack, unit="bytes"):
    return list(packed(cuts, PlanFacts(5, "jsonl", "none", unit, 50, pack)))


@given(source=SOURCES, pack=st.integers(0, 60))
def test_every_slice_is_in_one_shard_in_the_order_of_the_source(source, pack):
    """A row that is in no shard is lost, and one in two comes out twice."""
    cuts = cuts_of(source)

    found = [piece for slices in shards_of(cuts, pack=pack) for piece in slices]

    assert found == [slice_of(file, piece) for file, pieces in cuts for piece in pieces]


@given(source=SOURCES, pack=st.integers(0, 60))
def test_a_pack_has_whole_files_and_no_more_than_asked_for(source, pack):
    """If it had a slice of a large file, a small one that changes would cost the large one, too."""
    for slices in shards_of(cuts_of(source), pack=pack):
        files = [len(source[number_of(piece)]) for piece in slices]
        assert slices
        assert len(slices) == 1 or set(files) == {1}
        assert len(slices) == 1 or sum(piece.weight for piece in slices) <= pack


@given(source=SOURCES, pack=st.integers(1, 60))
def test_neighbours_that_fit_into_one_shard_are_not_two(source, pack):
    """Else a folder of small files makes as many parts as before."""
    shards = shards_of(cuts_of(source), pack=pack)
    for one, other in pairwise(shards):
        whole = all(len(source[number_of(piece)]) == 1 for piece in (one[-1], other[0]))
        if whole:
            weights = [piece.weight for piece in (*one, other[0])]
            assert sum(weights) > pack


@pytest.mark.parametrize(
    ("files", "least", "most"), [(1, 1, 1), (20, 20, 20), (64, 64, 64), (65, 8, 9), (5_000, 8, 8)]
)
def test_by_default_few_files_keep_a_shard_each_and_many_do_not(files, least, most):
    """As many workers find work as there are files; but a part a file is too many for thousands."""
    cuts = cuts_of([[1_000]] * files)

    shards = shards_of(cuts, pack=default_pack(size_of(cuts), files=files, shard=1 << 20))

    assert least <= len(shards) <= most


@pytest.mark.parametrize(
    ("capability", "concurrency", "packs"),
    [
        ({"target": "a:b"}, None, 8),
        ({"target": "a:b"}, 2, 32),
        ({"target": "a:b"}, (1, 100), 64),
        ({"target": "a:b", "one_to_one": True}, None, 64),
        ([{"target": "a:b", "one_to_one": True}, {"target": "a:c", "mode": "row"}], None, 64),
        ([{"target": "a:b", "one_to_one": True}, "a:c"], None, 8),
    ],
)
def test_workers_that_are_known_have_several_shards_each(capability, concurrency, packs):
    """Of 9 shards one of two workers had 5 or 6, and the other one waited. Batches that go over shards cost none."""
    execution = {} if concurrency is None else {"concurrency": concurrency}
    spec = BatchSpec(capability=capability, source="in", sink="out", execution=execution)

    assert default_packs(spec) == packs


def test_by_default_a_pack_is_no_larger_than_a_shard():
    """A crash costs a shard: of a source of many gigabytes, packs are as large as other shards."""
    cuts = cuts_of([[1 << 20]] * 1_000)

    shards = shards_of(cuts, pack=default_pack(size_of(cuts), files=1_000, shard=8 << 20))

    assert {len(slices) for slices in shards} == {8}


def test_a_shard_of_empty_rows_has_a_bound():
    """Its sentinel has a hash for each file."""
    cuts = cuts_of([[0]] * (2 * MOST_SLICES + 1))

    assert [len(slices) for slices in shards_of(cuts, pack=1)] == [MOST_SLICES, MOST_SLICES, 1]


@pytest.mark.parametrize(("unit", "counts"), [("files", [2, 2, 1]), ("rows", [1, 1, 1, 2])])
def test_files_and_rows_are_counted_where_the_spec_says_so(unit, counts):
    """A file whose rows were not counted has a shard of its own."""
    rows = [3, 2, None, 1, 1]
    cuts = [(a_file(n), [Cut(Slicing.FILE, 0, 9, count, 9)]) for n, count in enumerate(rows)]

    shards = shards_of(cuts, pack={"files": 2, "rows": 4}[unit], unit=unit)

    assert [len(slices) for slices in shards] == counts


def test_row_groups_are_counted_where_the_spec_says_so():
    """A file with all of them in one slice is packed like any other."""
    cuts = [
        (a_file(n), [Cut(Slicing.ROW_GROUPS, 0, groups, 9, 9)])
        for n, groups in enumerate([1, 2, 3])
    ]

    shards = shards_of(cuts, pack=3, unit="row_groups")

    assert [len(slices) for slices in shards] == [2, 1]


def test_a_plan_of_an_earlier_version_goes_on_with_a_file_a_shard():
    """Its later parts are like the ones before."""
    shards = shards_of(cuts_of([[1], [1]]), pack=PlanFacts(5, "jsonl", "none", "bytes", 50).pack)

    assert [len(list(some)) for _, some in groupby(shards, key=len)] == [2]
