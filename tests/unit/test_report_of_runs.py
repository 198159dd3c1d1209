"""What the report of recorded runs says of batches, whose totals are what readers compare."""

from __future__ import annotations

import pytest

from batchrunner.analytics import CompletedRun, open_store
from batchrunner.analytics.batch_records import BatchRunRecord, BatchShardRecord
from batchrunner.analytics.comparison import compare
from batchrunner.errors import InvalidSpecError
from batchrunner.views.report_runs import runs_report
from evaluations import Score


@pytest.fixture
def store(tmp_path):
    return open_store(str(tmp_path / "store"))


def record_batch(store, uid, *, shards, rows=10, code="f00d", more=()):
    """Record a batch of *shards* shards of *rows* rows each, made by *code*; return it, read again."""
    whole = BatchRunRecord(
        run_uid=uid,
        name="nightly",
        fingerprint=code * 16,
        source_uri="in",
        sink_uri=f"out-{uid}",
        shards=shards,
        sessions=1,
        rows_in=shards * rows,
        rows_out=shards * rows,
        rows_failed=0,
        bytes_out=640,
        batch_uid=f"{uid}-state",
    )
    each = [shard_of(uid, number, rows) for number in range(shards)]
    store.write([CompletedRun(uid, "nightly", records=[whole, *each, *more])])
    return store.read_run(uid)


def shard_of(uid, number, rows):
    return BatchShardRecord(
        run_uid=uid,
        shard=number,
        part=f"part-{number:05d}.jsonl",
        source_uri="in",
        slicing="bytes",
        rows_in=rows,
        rows_out=rows,
        rows_failed=0,
        bytes_out=64,
        sha256=f"hash of {uid} {number}",
        session=f"session of {uid}",
    )


def heading(report):
    return report.to_html().partition("<h1>")[2].partition("</h1>")[0]


def test_the_headline_of_batches_says_in_which_totals_they_differ(store):
    """A count of 0 above a table of different numbers would not be believed twice."""
    record_batch(store, "a", shards=7)
    record_batch(store, "b", shards=6, code="beef")

    report = runs_report(store, ["a", "b"])

    said = "2 batches of nightly; they differ in shards, rows in, rows out and spec or code."
    assert heading(report) == said
    html = report.to_html()
    assert "shards are not compared one by one" in html
    assert "batch_runs: the totals above show it" in html
    assert "Too many rows" not in html


def test_batches_with_the_same_totals_are_said_to_have_them(store):
    """And what else they recorded is counted beside."""
    for uid, value in (("a", 0.5), ("b", 0.75)):
        record_batch(store, uid, shards=2, more=[Score(run_uid=uid, value=value)])

    assert heading(runs_report(store, ["a", "b"])) == (
        "2 batches of nightly; as many shards and rows, and the same spec and code; "
        "1 value of their records differs."
    )


def test_the_shards_of_batches_are_compared_by_a_column_that_is_asked_for(store):
    """A wrong column is refused with all that there are, not with an empty list."""
    record_batch(store, "a", shards=2)
    record_batch(store, "b", shards=2)

    report = runs_report(store, ["a", "b"], on=["part"])

    assert [(one.where, one.column) for one in report.differences] == [
        ("part=part-00000.jsonl", "sha256"),
        ("part=part-00001.jsonl", "sha256"),
    ]
    assert report.summed_up == ()
    with pytest.raises(InvalidSpecError, match=r"they have: .*part, .*sha256"):
        runs_report(store, ["a", "b"], on=["parts"])


def test_batches_are_compared_shard_by_shard_though_their_hashes_and_sessions_differ(store):
    """Hashes that match nothing would list each value of each record twice."""
    first = record_batch(store, "a", shards=3)
    second = record_batch(store, "b", shards=2, code="beef")

    found = compare(first, second)

    of_batch = {one.column: one.change for one in found if one.table == "batch_runs"}
    assert of_batch == {
        "fingerprint": None,
        "sink_uri": None,
        "shards": -1,
        "rows_in": -10,
        "rows_out": -10,
    }
    shards = [one for one in found if one.table == "batch_shards"]
    of_both = [one for one in shards if one.where != "part=part-00002.jsonl"]
    assert {one.column for one in of_both} == {"sha256"}
    assert {one.second for one in shards if one not in of_both} == {None}
