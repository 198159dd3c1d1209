"""Runs that earlier versions left behind are read, and gone on with, for ever."""

from __future__ import annotations

import json

import pytest

import golden
from batchrunner import BatchRunner
from batchrunner.checkpoint import Checkpoint
from batchrunner.errors import DamagedOutputError
from batchrunner.storage import open_storage
from batchrunner.views.status import status_of
from builders import rows

VERSION_1 = [*rows(0, 12), *rows(20, 2)]


@pytest.fixture
def spec():
    """The run of version 1, in memory, as on the day it ended."""
    golden.load("golden")
    yield golden.a_spec("golden")
    store = open_storage("memory://golden")
    store.delete([entry.key for entry in store.list(recursive=True)])


def test_a_run_of_version_1_is_done(spec):
    """Nothing of it is computed again, nothing is touched."""
    store = open_storage("memory://golden")
    before = {entry.key: store.get(entry.key) for entry in store.list(recursive=True)}

    report = BatchRunner(spec).run()

    assert (report.ok, report.shards_new, report.rows_out) == (True, 0, 14)
    assert before == {entry.key: store.get(entry.key) for entry in store.list(recursive=True)}


def test_the_status_of_a_run_of_version_1_is_read(spec):
    """From its checkpoint alone."""
    checkpoint = Checkpoint(open_storage("memory://golden/out/_checkpoint"))

    status = status_of(checkpoint)

    assert (status.state, status.shards, status.rows_out) == ("complete", 4, 14)


def test_a_run_of_version_1_goes_on(spec):
    """A new file, and a shard that was lost."""
    store = open_storage("memory://golden")
    store.put("in/new.jsonl", golden.lines(rows(30, 1)))
    store.delete(["out/part-00001.jsonl", "out/_checkpoint/sentinels/part-00001.json"])

    report = BatchRunner(spec).run()

    assert (report.ok, report.shards_new, report.shards) == (True, 2, 5)
    parts = [entry.key for entry in store.list("out") if "part-" in entry.key]
    found = [json.loads(line)["id"] for key in parts for line in store.get(key).splitlines()]
    assert sorted(found) == sorted(2 * row["id"] for row in [*VERSION_1, *rows(30, 1)])


def test_a_run_of_a_later_version_is_refused_by_name(spec):
    """Whatever it says, this version would only guess."""
    store = open_storage("memory://golden")
    record = store.get("out/_checkpoint/run.json")
    store.put(
        "out/_checkpoint/run.json", record.replace(b'"version":1,"check', b'"version":2,"check')
    )

    with pytest.raises(DamagedOutputError, match=r"run\.json has format version 2"):
        BatchRunner(spec).run()
