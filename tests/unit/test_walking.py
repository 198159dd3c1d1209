"""Many files of a disk at once: the same ones, in the same order, as the storage lists one by one."""

import os
import subprocess
import sys

import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from batchrunner.array_buffers import int_array, text_array
from batchrunner.storage import open_storage
from batchrunner.storage.disk.walking import Walk
from batchrunner.storage.keys import is_hidden

KEYS = [
    "a-b.jsonl",
    "a/b.jsonl",
    "a/c/d.jsonl",
    "a/c.jsonl",
    "a.jsonl",
    "ab/x",
    "b/_hidden/x.jsonl",
    "b/.x.jsonl",
    "b/ü.jsonl",
    "b/x",
]


def fill(folder):
    for number, key in enumerate(KEYS):
        path = folder / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x" * number)
        os.utime(path, ns=(1, 1_700_000_000_000_000_000 + number))


def walked(walk):
    return [
        (files.prefix + name, size, str(time))
        for files in walk
        for name, size, time in zip(files.names, files.sizes, files.times, strict=True)
    ]


def test_a_walk_finds_what_the_storage_lists_but_for_hidden_names(tmp_path):
    """In the order of the keys, in which a folder sorts as what is in it."""
    fill(tmp_path)
    listed = open_storage(str(tmp_path)).list(recursive=True)

    found = walked(Walk(str(tmp_path)))

    assert found == [(e.key, e.size, e.identity) for e in listed if not is_hidden(e.key)]
    assert len(found) == len(KEYS) - 2


def test_links_and_hard_links_are_noted_on_the_way(tmp_path):
    """Only such files can be second names of others: no inode of the rest is looked at."""
    fill(tmp_path)
    (tmp_path / "to-file").symlink_to(tmp_path / "a.jsonl")
    (tmp_path / "to-folder").symlink_to(tmp_path / "a")
    (tmp_path / "to-nothing").symlink_to(tmp_path / "nothing")
    (tmp_path / "b/second").hardlink_to(tmp_path / "a.jsonl")
    walk = Walk(str(tmp_path))

    second = {files.prefix + name for files in walk for name in files.second_names}

    assert second == {"to-file", "b/second", "a.jsonl"}
    assert {(link.key, link.leads_to_file) for link in walk.links} == {
        ("to-file", True),
        ("to-folder", False),
        ("to-nothing", False),
    }


def test_a_folder_that_is_not_there_has_no_files(tmp_path):
    """As for a storage."""
    assert walked(Walk(str(tmp_path / "nothing"))) == []


@given(numbers=st.lists(st.none() | st.integers(-(2**63), 2**63 - 1)))
def test_numbers_are_the_array_that_arrow_makes_of_them(numbers):
    """Nulls included, in any number."""
    assert int_array(numbers).equals(pa.array(numbers, pa.int64()))


@given(texts=st.lists(st.text()))
def test_texts_are_the_array_that_arrow_makes_of_them(texts):
    """Also those of several bytes a character."""
    assert text_array(texts).equals(pa.array(texts, pa.large_string()))


def test_a_source_is_listed_and_compared_without_pandas(tmp_path):
    """It takes half a second of each command that finds nothing to do."""
    fill(tmp_path)
    code = f"""
import sys
from batchrunner import BatchSpec
from batchrunner.checkpoint import Generation, PlanFacts
from batchrunner.checkpoint.plan_file import plan_from_bytes, plan_to_bytes
from batchrunner.driver.plan import Slicer, first_generation, next_generation
from batchrunner.driver.source_files import list_source
from batchrunner.driver.stored_plan import StoredPlan

spec = BatchSpec(capability="a:b", source={str(tmp_path)!r}, sink="/out")
files = list_source(spec.source).read_once().files
slicer = Slicer.of(spec)
plan = plan_from_bytes(plan_to_bytes(first_generation(spec, files, slicer)), key="k")
stored = StoredPlan.of([plan])
assert next_generation(spec, stored, files[3:], slicer=slicer, accept_vanished=True)
assert "pandas" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True)
