"""One bad row costs one row: a dead letter, counted, explained, and retried."""

from __future__ import annotations

import itertools
import json
import os
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from batchrunner import BatchRunner, runner
from batchrunner.checkpoint import Checkpoint
from batchrunner.execute.local import run_locally
from batchrunner.storage import open_storage
from batchrunner.views.dead_letters import error_groups, read_dead_letters
from batchrunner.worker.receipt import Cause, Failure, Receipt
from builders import a_source, a_spec, parts, rows, rows_out, write_jsonl

BAD = 437
THOUSAND = [{**row, "bad": True} if row["id"] == BAD else row for row in rows(0, 1000)]
GOOD = [row for row in THOUSAND if row["id"] != BAD]
LOCAL = {"engine": "local"}


def a_thousand(folder, file_format="jsonl"):
    """A thousand rows in four files, one row of them bad."""
    for number in range(4):
        some = THOUSAND[number * 250 : (number + 1) * 250]
        path = folder / "in" / f"in-{number}.{file_format}"
        path.parent.mkdir(parents=True, exist_ok=True)
        if file_format == "parquet":
            some = [{"bad": False, **row} for row in some]
            pq.write_table(pa.Table.from_pylist(some, schema=SCHEMA), path)
        else:
            write_jsonl(path, some)


SCHEMA = pa.schema({"id": pa.int64(), "text": pa.string(), "bad": pa.bool_()})


def checkpoint(folder: Path) -> Checkpoint:
    return Checkpoint(open_storage(str(folder / "out/_checkpoint")))


def dead_letters(folder):
    return list(read_dead_letters(checkpoint(folder)))


def ids_out(folder):
    return [row["id"] for row in rows_out(folder / "out")]


FAILING = {
    "raises": ({"capability": "capabilities:raises_on_bad"}, "ValueError", "row 437 is bad"),
    "wrong type": (
        {"capability": {"target": "capabilities:wrong_type_on_bad", "mode": "row"}},
        "TypeError",
        "int",
    ),
    "exits": ({"capability": "capabilities:exits_on_bad"}, "CapabilityDied", "exit code 3"),
    "hangs": (
        {"capability": "capabilities:hangs_on_bad", "errors": {"batch_timeout": 5}},
        "CapabilityTimedOut",
        "more than 5 s",
    ),
}


@pytest.mark.parametrize(
    ("file_format", "how"),
    [
        *itertools.product(["jsonl", "parquet"], ["raises", "wrong type"]),
        pytest.param("jsonl", "hangs", marks=pytest.mark.long),
        pytest.param("parquet", "hangs", marks=pytest.mark.sweep),
    ],
)
def test_one_bad_row_of_a_thousand_costs_one_row(tmp_path, how, file_format):
    """999 go through; the one becomes a dead letter with what, where and why."""
    a_thousand(tmp_path, file_format)
    changes, error, message = FAILING[how]
    execution = {**LOCAL, "batch_size": 50}

    report = BatchRunner(a_spec(tmp_path, execution=execution, **changes)).run()

    assert (report.exit_code, report.rows_in, report.rows_out, report.rows_failed) == (
        *(0, 1000, 999, 1),
    )
    assert ids_out(tmp_path) == [row["id"] for row in GOOD]
    [dead_letter] = dead_letters(tmp_path)
    assert dead_letter["error"] == error
    assert message in dead_letter["message"]
    assert dead_letter["source"].endswith(f"in-1.{file_format}")
    assert json.loads(dead_letter["raw"])["id"] == BAD
    at = sum(len(json.dumps(row)) + 1 for row in THOUSAND[250:BAD])
    assert (dead_letter["unit"], dead_letter["at"]) == (
        ("row", BAD - 250) if file_format == "parquet" else ("byte", at)
    )


def test_a_row_fails_in_the_stage_that_status_shows(tmp_path):
    """With two names for one thing, a reader looks for a stage called capability."""
    a_source(tmp_path / "in", shards=1, rows_per_shard=10)
    errors = {"max_row_errors": 1}
    runner = BatchRunner(a_spec(tmp_path, capability="capabilities:fails_on_5", errors=errors))
    [stage] = [one.name for one in runner.run().stages if one.kind == "stage"]

    assert {one["stage"] for one in dead_letters(tmp_path)} == {stage} == {"fails_on_5"}


BAD_JSON = [b'{"id": ', b"[1]", b"\xff\xfe", b'{"a": 1, "a": 2}', b'{"a": "\x00"}', b"\x00"]


@pytest.mark.parametrize("line", BAD_JSON)
def test_a_line_that_is_no_row_costs_that_line(tmp_path, line):
    """It is kept as it stood, byte for byte."""
    a_source(tmp_path / "in", shards=4, rows_per_shard=250)
    file = tmp_path / "in/in-002.jsonl"
    lines = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(b"".join([*lines[:100], line + b"\n", *lines[101:]]))

    report = BatchRunner(a_spec(tmp_path, capability="capabilities:echo")).run()

    assert (report.exit_code, report.rows_in, report.rows_out, report.rows_failed) == (
        *(0, 1000, 999, 1),
    )
    [dead_letter] = dead_letters(tmp_path)
    assert dead_letter["stage"] == "read"
    assert dead_letter["at"] == len(b"".join(lines[:100]))
    if "raw" in dead_letter:
        assert dead_letter["raw"].encode() == line


@pytest.mark.parametrize(("budget", "code"), [(1, 0), (0, 1), (0.001, 0), (0.0009, 1)])
def test_the_budget_decides_between_success_and_failure(tmp_path, budget, code):
    """A count or a share; the good shards are kept either way, and a larger budget mends it."""
    a_thousand(tmp_path)
    spec = a_spec(tmp_path, capability="capabilities:raises_on_bad")
    errors = {"max_row_errors": budget}

    report = BatchRunner(spec.model_copy(update={"errors": a_spec(tmp_path, errors=errors).errors}))
    report = report.run()

    assert report.exit_code == code
    assert (tmp_path / "out/_SUCCESS").exists() == (code == 0)
    if code:
        assert BatchRunner(a_spec(tmp_path, capability="capabilities:raises_on_bad")).run().ok
        assert (tmp_path / "out/_SUCCESS").exists()


def test_a_capability_that_fails_everything_is_stopped_early(tmp_path):
    """A misspelt key must not cost three tries of each of a million rows."""
    a_source(tmp_path / "in", shards=20, rows_per_shard=500)
    calls = tmp_path / "calls"
    spec = a_spec(
        tmp_path,
        capability={"target": "capabilities:counts_calls", "fn_kwargs": {"path": str(calls)}},
        execution={**LOCAL, "batch_size": 50},
    )
    for path in (tmp_path / "in").iterdir():
        write_jsonl(
            path, [{**json.loads(line), "bad": True} for line in path.read_text().splitlines()]
        )

    report = BatchRunner(spec).run()

    assert report.exit_code == 1
    assert report.stopped == "max_row_errors"
    assert len(calls.read_text().split()) < 2000


@pytest.mark.parametrize("size", [64, 1000])
def test_a_bad_row_is_found_with_few_calls(tmp_path, size):
    """About two for each halving, and the retries of the row alone."""
    write_jsonl(tmp_path / "in/a.jsonl", THOUSAND)
    calls = tmp_path / "calls"
    spec = a_spec(
        tmp_path,
        capability={"target": "capabilities:counts_calls", "fn_kwargs": {"path": str(calls)}},
        execution={**LOCAL, "batch_size": size},
    )

    assert BatchRunner(spec).run().ok

    made = len(calls.read_text().split())
    assert made <= -(-1000 // size) + 2 * size.bit_length() + 2


def test_out_of_memory_halves_the_batch_and_costs_no_row(tmp_path):
    """And the batches that follow are not tried at full size again."""
    a_source(tmp_path / "in", shards=1, rows_per_shard=400)
    target = {"target": "capabilities:runs_out_of_memory_above", "fn_kwargs": {"most": 30}}

    report = BatchRunner(
        a_spec(tmp_path, capability=target, execution={**LOCAL, "batch_size": 100})
    ).run()

    assert (report.ok, report.rows_out, report.rows_failed) == (True, 400, 0)


def test_a_bad_row_can_be_made_to_fail_its_shard(tmp_path):
    """`on_row_error: fail`: nothing of the shard is published, the others are."""
    a_thousand(tmp_path)

    report = BatchRunner(
        a_spec(tmp_path, capability="capabilities:raises_on_bad", errors={"on_row_error": "fail"})
    ).run()

    assert report.exit_code == 1
    assert (report.shards_committed, report.rows_out) == (3, 750)
    assert "ValueError: row 437 is bad" in report.quarantined[1]


def test_a_shard_without_good_rows_keeps_its_dead_letters(tmp_path):
    """Also in Parquet, where no schema is agreed on yet when its turn comes."""
    write_jsonl(tmp_path / "in/a.jsonl", [{**row, "bad": True} for row in rows(0, 3)])
    write_jsonl(tmp_path / "in/b.jsonl", rows(3, 5))
    spec = a_spec(
        tmp_path,
        capability="capabilities:raises_on_bad",
        sink={"uri": str(tmp_path / "out"), "format": "parquet"},
        errors={"max_row_errors": 5},
    )

    report = BatchRunner(spec).run()

    assert (report.ok, report.rows_in, report.rows_out, report.rows_failed) == (True, 8, 5, 3)
    assert [dead_letter["shard"] for dead_letter in dead_letters(tmp_path)] == [0, 0, 0]


def test_a_drifting_type_costs_its_rows_and_names_column_and_types(tmp_path):
    """A part with another schema would break a reader of both."""
    a_source(tmp_path / "in", shards=3, rows_per_shard=4)
    spec = a_spec(
        tmp_path,
        capability="capabilities:changes_type",
        sink={"uri": str(tmp_path / "out"), "format": "parquet"},
        errors={"max_row_errors": 100},
    )

    report = BatchRunner(spec).run()

    assert (report.rows_out, report.rows_failed) == (4, 8)
    [group] = error_groups(checkpoint(tmp_path))
    assert "id" in group.message
    assert "int64" in group.message
    assert "string" in group.message


def test_a_shard_that_fails_is_set_apart_and_retried_after_the_fix(tmp_path):
    """499 committed, one quarantined with its reason; `retry` touches nothing else."""
    a_source(tmp_path / "in", shards=500, rows_per_shard=2)
    poison = tmp_path / "in/in-250.jsonl.gz"
    (tmp_path / "in/in-250.jsonl").unlink()
    poison.write_bytes(b"this is no gzip")
    spec = a_spec(
        tmp_path,
        capability="capabilities:echo",
        source={"uri": str(tmp_path / "in"), "shard": {"files": 1}},
    )

    report = BatchRunner(spec).run()
    before = {path.name: path.stat().st_ino for path in parts(tmp_path / "out")}
    again = BatchRunner(spec).run()

    assert (report.exit_code, report.shards_committed) == (1, 499)
    assert again.shards_new == 0
    [reason] = again.quarantined.values()
    assert "in-250.jsonl.gz" in reason
    assert checkpoint(tmp_path).quarantined()[250].attempts == 3

    import gzip

    stamp = poison.stat().st_mtime_ns
    poison.write_bytes(gzip.compress(b'{"id": 500}\n{"id": 501}\n'))
    os.utime(poison, ns=(stamp, stamp))
    mended = BatchRunner(spec).retry()

    assert mended.ok
    assert {p.name: p.stat().st_ino for p in parts(tmp_path / "out")}.items() >= before.items()
    assert mended.shards_new == 1
    assert len(ids_out(tmp_path)) == 1000


def test_retry_takes_changed_code_for_mended_code(tmp_path, monkeypatch):
    """Otherwise every fix would be refused as a change; what else changed still is."""
    a_source(tmp_path / "in", shards=3)
    module = tmp_path / "fixable.py"
    module.write_text("def f(rows):\n    return [{'x': 1 / (r['id'] - 5)} for r in rows]\n")
    monkeypatch.syspath_prepend(tmp_path)
    spec = a_spec(tmp_path, capability="fixable:f", errors={"on_row_error": "fail"})
    assert BatchRunner(spec).run().shards_committed == 2
    import sys

    module.write_text("def f(rows):\n    return [{'x': 0} for r in rows]\n")
    del sys.modules["fixable"]

    report = BatchRunner(spec).retry()

    assert (report.ok, report.shards_new) == (True, 1)
    assert len(list((tmp_path / "out/_checkpoint/changes").iterdir())) == 1


@pytest.mark.parametrize("file_format", ["jsonl", "parquet"])
def test_rows_set_aside_are_tried_again_as_new_shards(tmp_path, file_format):
    """Published parts stay; the rows that go through now count once, in and out."""
    a_thousand(tmp_path, file_format)
    flag = tmp_path / "mended"
    target = {"target": "capabilities:fails_while_bad", "fn_kwargs": {"path": str(flag)}}
    spec = a_spec(tmp_path, capability=target)
    first = BatchRunner(spec).run()
    before = {path.name: path.stat().st_ino for path in parts(tmp_path / "out")}

    still = BatchRunner(spec).retry(rows=True)
    flag.touch()
    mended = BatchRunner(spec).retry(rows=True)
    idle = BatchRunner(spec).retry(rows=True)

    totals = [(r.ok, r.rows_in, r.rows_out, r.rows_failed) for r in (first, still, mended, idle)]
    assert totals == [(True, 1000, 999, 1)] * 2 + [(True, 1000, 1000, 0)] * 2
    assert [r.shards_new for r in (still, mended, idle)] == [1, 1, 0]
    assert sorted(ids_out(tmp_path)) == list(range(1000))
    assert {p.name: p.stat().st_ino for p in parts(tmp_path / "out")}.items() >= before.items()
    assert dead_letters(tmp_path) == []
    manifest = json.loads((tmp_path / "out/_manifest.json").read_text())
    assert (manifest["rows_in"], manifest["rows_out"], manifest["rows_failed"]) == (1000, 1000, 0)


def test_unreadable_lines_are_read_again_from_where_they_stand(tmp_path):
    """Of a compressed file with a BOM, too, and they stay dead letters as long as they are bad."""
    import gzip

    text = b'\xef\xbb\xbf{"id": \n{"id": 1}\n\nnope\n{"id": 2}\n'
    (tmp_path / "in").mkdir()
    (tmp_path / "in/a.jsonl").write_bytes(text)
    (tmp_path / "in/b.jsonl.gz").write_bytes(gzip.compress(text))
    spec = a_spec(tmp_path, capability="capabilities:echo", errors={"max_row_errors": 4})
    BatchRunner(spec).run()
    first = dead_letters(tmp_path)

    report = BatchRunner(spec).retry(rows=True)

    assert (report.rows_in, report.rows_out, report.rows_failed) == (8, 4, 4)
    keys = ("source", "at", "raw", "message")
    assert [[one[k] for k in keys] for one in dead_letters(tmp_path)] == [
        [one[k] for k in keys] for one in first
    ]


@given(
    text=st.lists(
        st.one_of(
            st.binary(max_size=20),
            st.sampled_from(
                [b'{"a": 1}', b"{}", b"  ", b"\r", b'{"a": "\xe2\x80\xa8"}', b"nul\x00"]
            ),
        ),
        max_size=12,
    ).map(b"\n".join),
    rows_per_shard=st.sampled_from([None, 4096]),
)
@settings(
    max_examples=60,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
def test_rows_out_and_rows_set_aside_are_the_lines_that_are_not_blank(
    tmp_path, text, rows_per_shard
):
    """For any bytes whatever: nothing is lost, nothing counts twice."""
    folder = tmp_path / str(time.monotonic_ns())
    (folder / "in").mkdir(parents=True)
    (folder / "in/a.jsonl").write_bytes(text)
    spec = a_spec(folder, capability="capabilities:echo", errors={"max_row_errors": 100})

    report = BatchRunner(spec).run()

    body = text.removeprefix(b"\xef\xbb\xbf")
    lines = [line for line in body.split(b"\n") if line.strip(b" \t\r\n\x0b\x0c")]
    assert report.ok
    assert report.rows_out + report.rows_failed == report.rows_in == len(lines)


def test_receipts_that_are_lost_are_looked_up_or_made_again(tmp_path, monkeypatch):
    """Ray drops what a task yields that it runs again; neither commits nor failures vanish so."""
    rounds = []

    def forgetful(work, shards, *, stop, hear):
        rounds.append([shard.id for shard in shards])
        for number, receipt in enumerate(
            filter(None, run_locally(work, shards, stop=stop, hear=hear))
        ):
            if number % 3 == 1 or len(rounds) > 1:
                yield receipt

    monkeypatch.setattr(runner, "run_locally", forgetful)
    a_source(tmp_path / "in", shards=7)
    errors = {"on_row_error": "fail"}

    report = BatchRunner(
        a_spec(tmp_path, capability="capabilities:fails_on_5", errors=errors)
    ).run()

    assert (report.shards_committed, report.shards_new) == (6, 6)
    assert set(report.failures) == set(report.quarantined) == {1}
    assert rounds == [[0, 1, 2, 3, 4, 5, 6], [1]]


def test_a_commit_that_storage_denies_is_looked_up_not_made_again(tmp_path, monkeypatch):
    """Its answer was lost, and so was that of the look after it."""
    rounds = []

    def denied(work, shards, *, stop, hear):
        rounds.append([shard.id for shard in shards])
        for receipt in filter(None, run_locally(work, shards, stop=stop, hear=hear)):
            yield Receipt(receipt.shard, failure=Failure(Cause.STORAGE, "no answer"))

    monkeypatch.setattr(runner, "run_locally", denied)
    a_source(tmp_path / "in", shards=4)

    report = BatchRunner(a_spec(tmp_path)).run()

    assert report.ok
    assert (report.shards_new, report.failures, rounds) == (4, {}, [[0, 1, 2, 3]])
