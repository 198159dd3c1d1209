"""In mode `row` an answer that came is asked for once in a session, whatever becomes of its batch or shard."""

from __future__ import annotations

import gzip
import json
from collections import Counter

import pytest

from batchrunner import BatchRunner
from batchrunner.checkpoint import Checkpoint
from batchrunner.checkpoint.location import RunLocation
from batchrunner.errors import CapabilityImportError, InvalidSpecError
from batchrunner.storage import open_storage
from batchrunner.views.dead_letters import read_dead_letters
from batchrunner.views.garbage import Garbage, GarbageKind
from batchrunner.worker import kept_answers
from builders import a_spec, rows, rows_out, write_jsonl

HUNDRED = rows(0, 100)


def a_job(folder, how, *, sink="jsonl", **errors):
    target = {"in turn": "noted_in_turn", "at once": "noted"}[how]
    capability = {"target": f"api_capabilities:{target}", "mode": "row"}
    return a_spec(
        folder,
        capability={**capability, "fn_kwargs": {"path": f"{folder}/calls"}},
        sink={"uri": str(folder / "out"), "format": sink},
        execution={"engine": "local", "batch_size": 16},
        errors={"max_row_errors": 10, **errors},
    )


def asked(folder):
    return Counter(int(line) for line in (folder / "calls").read_text().split())


def dead_letters(folder):
    checkpoint = Checkpoint(open_storage(str(folder / "out/_checkpoint")))
    return [json.loads(one["raw"])["id"] for one in read_dead_letters(checkpoint)]


def with_some(content, ids, **fields):
    return [{**row, **fields} if row["id"] in ids else row for row in content]


@pytest.fixture(params=["in turn", "at once"])
def how(request):
    return request.param


@pytest.fixture(params=["in memory", "in a file"])
def kept(request, monkeypatch):
    """Where answers are kept; a small bound puts those of each batch into the file."""
    if request.param == "in a file":
        monkeypatch.setattr(kept_answers, "_ROW_BYTES", 1 << 40)


@pytest.mark.parametrize("sink", ["jsonl", "parquet"])
def test_bad_rows_cost_their_own_attempts(tmp_path, how, sink):
    """Each of their neighbours was asked for again with each halving."""
    write_jsonl(tmp_path / "in/a.jsonl", with_some(HUNDRED, (0, 7, 19, 20, 99), bad=True))

    report = BatchRunner(a_job(tmp_path, how, sink=sink, retry={"max_attempts": 2})).run()

    assert (report.exit_code, report.rows_out, report.rows_failed) == (0, 95, 5)
    assert sorted(dead_letters(tmp_path)) == [0, 7, 19, 20, 99]
    twice = {n for n, calls in asked(tmp_path).items() if calls == 2}
    assert twice == {0, 7, 19, 20, 99}
    assert asked(tmp_path).total() == 105
    ids = [row["id"] for row in rows_out(tmp_path / "out")]
    assert ids == [n for n in range(100) if n not in twice]


@pytest.mark.usefixtures("kept")
def test_a_conflict_of_types_costs_its_row_and_no_call(tmp_path, how):
    """The batch is halved until the row is found, among the answers that are there."""
    write_jsonl(tmp_path / "in/a.jsonl", with_some(HUNDRED, (40,), returned=7))

    report = BatchRunner(a_job(tmp_path, how, sink="parquet")).run()

    assert (report.exit_code, report.rows_out, report.rows_failed) == (0, 99, 1)
    assert dead_letters(tmp_path) == [40]
    assert asked(tmp_path) == dict.fromkeys(range(100), 1)


@pytest.mark.usefixtures("kept")
def test_a_shard_that_is_read_again_asks_for_none_of_its_answers_again(tmp_path, how):
    """Its file cannot be read to the end, which is tried three times."""
    content = with_some(HUNDRED, range(100), text="x" * (100 << 10))
    text = "".join(json.dumps(row) + "\n" for row in content).encode()
    (tmp_path / "in").mkdir()
    (tmp_path / "in/a.jsonl.gz").write_bytes(gzip.compress(text)[:-9])

    report = BatchRunner(a_job(tmp_path, how)).run()

    assert report.exit_code == 1
    assert len(report.quarantined) == 1
    assert len(asked(tmp_path)) > 16
    assert set(asked(tmp_path).values()) == {1}


@pytest.mark.usefixtures("kept")
def test_a_row_that_fails_its_shard_is_tried_anew_with_it_and_its_neighbours_are_not(tmp_path, how):
    """`on_row_error: fail`: three attempts at the shard, of three at the row each."""
    write_jsonl(tmp_path / "in/a.jsonl", with_some(HUNDRED, (70,), bad=True))

    report = BatchRunner(a_job(tmp_path, how, on_row_error="fail")).run()

    assert (report.exit_code, report.rows_out) == (1, 0)
    calls = asked(tmp_path)
    assert calls.pop(70) == 9
    assert set(calls.values()) == {1}


def test_rows_of_shards_that_share_a_batch_cost_their_shards_alone(tmp_path, how):
    """Mode row with `one_to_one`: sixteen rows are of four files."""
    content = with_some(HUNDRED, (6, 50, 51), bad=True)
    for first in range(0, 100, 5):
        write_jsonl(tmp_path / f"in/{first:02}.jsonl", content[first : first + 5])
    spec = a_job(tmp_path, how, retry={"max_attempts": 1})
    capability = spec.capability.model_copy(update={"one_to_one": True})
    source = {"uri": str(tmp_path / "in"), "shard": {"files": 1}}
    spec = a_spec(
        tmp_path,
        capability=capability,
        source=source,
        execution=spec.execution,
        errors=spec.errors,
    )

    report = BatchRunner(spec).run()

    assert (report.exit_code, report.rows_out, report.rows_failed) == (0, 97, 3)
    assert asked(tmp_path) == dict.fromkeys(range(100), 1)
    assert sorted(dead_letters(tmp_path)) == [6, 50, 51]
    ids = [row["id"] for row in rows_out(tmp_path / "out")]
    assert ids == [n for n in range(100) if n not in (6, 50, 51)]


def test_a_time_limit_that_cannot_be_kept_is_refused(tmp_path):
    """A function that is not asynchronous cannot be cancelled: the limit would be a wish."""
    write_jsonl(tmp_path / "in/a.jsonl", HUNDRED)

    with pytest.raises(CapabilityImportError, match="row_timeout: only a call of an"):
        BatchRunner(a_job(tmp_path, "in turn", row_timeout=5)).run()
    with pytest.raises(InvalidSpecError, match="row_timeout, which goes with"):
        a_spec(tmp_path, errors={"row_timeout": 5})
    with pytest.raises(InvalidSpecError, match="journal_answers, which goes with"):
        a_spec(tmp_path, execution={"journal_answers": True})


def test_clean_removes_the_journal_of_committed_shards_only(tmp_path):
    """A worker of a driver that was displaced may write into it after the commit."""
    write_jsonl(tmp_path / "in/a.jsonl", HUNDRED)
    write_jsonl(tmp_path / "in/b.jsonl", [{"id": 100, "text": "x", "bad": True}])
    spec = a_job(tmp_path, "at once", on_row_error="fail", retry={"max_attempts": 1})
    source = {"uri": str(tmp_path / "in"), "shard": {"files": 1}}
    spec = spec.model_copy(update={"source": source})
    assert BatchRunner(spec).run().exit_code == 1
    answers = tmp_path / "out/_checkpoint/answers"
    answers.mkdir(exist_ok=True)
    for shard in (0, 1):
        (answers / f"part-{shard:05}.1-late.000000.jsonl").write_text("{}\n")
    garbage = Garbage(RunLocation.of(spec).checkpoint, sink=None)

    removed = [item for item in garbage.remove() if item.kind is GarbageKind.ANSWERS]

    assert [item.key for item in removed] == ["answers/part-00000.1-late.000000.jsonl"]
    assert [path.name for path in answers.iterdir()] == ["part-00001.1-late.000000.jsonl"]
