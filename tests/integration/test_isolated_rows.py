"""Rows in a process of their own: one that ends or hangs it costs itself, and no other is asked for again."""

from __future__ import annotations

import json
from collections import Counter

import pytest

from batchrunner import BatchRunner
from batchrunner.checkpoint import Checkpoint
from batchrunner.storage import open_storage
from batchrunner.views.dead_letters import read_dead_letters
from builders import a_spec, rows, rows_out, write_jsonl


def a_job(folder, target, content, *, max_concurrency=4, **errors):
    write_jsonl(folder / "in/a.jsonl", content)
    capability = {"target": f"api_capabilities:{target}", "mode": "row"}
    return a_spec(
        folder,
        capability={**capability, "fn_kwargs": {"path": f"{folder}/calls"}},
        execution={"engine": "local", "batch_size": 16, "max_concurrency": max_concurrency},
        errors={"max_row_errors": 10, "batch_timeout": 60, **errors},
    )


def asked(folder):
    return Counter(int(line) for line in (folder / "calls").read_text().split())


def dead_letters(folder):
    checkpoint = Checkpoint(open_storage(str(folder / "out/_checkpoint")))
    return [(json.loads(one["raw"])["id"], one["error"]) for one in read_dead_letters(checkpoint)]


def with_one(content, id_, **fields):
    return [{**row, **fields} if row["id"] == id_ else row for row in content]


@pytest.mark.parametrize(
    ("target", "most"), [("dies_in_turn", 1), ("dies", 4)], ids=["in turn", "at once"]
)
@pytest.mark.parametrize(
    ("how", "error"), [("exit", "CapabilityDied"), ("hang", "CapabilityTimedOut")]
)
def test_a_deadly_row_costs_its_neighbours_at_most_the_calls_that_were_on_their_way(
    tmp_path, target, most, how, error
):
    """A call in turn is alone; of several at once, any may be the reason, and each is called alone."""
    content = with_one(rows(0, 48), 21, how=how)
    timeout = {"batch_timeout": 3} if how == "hang" else {}

    report = BatchRunner(a_job(tmp_path, target, content, **timeout)).run()

    assert (report.exit_code, report.rows_out, report.rows_failed) == (0, 47, 1)
    assert dead_letters(tmp_path) == [(21, error)]
    assert [row["id"] for row in rows_out(tmp_path / "out")] == [n for n in range(48) if n != 21]
    calls = asked(tmp_path)
    assert calls.pop(21) <= 2
    assert set(calls) == set(range(48)) - {21}
    assert calls.total() <= 47 + most - 1


@pytest.mark.parametrize("target", ["dies_in_turn", "dies"])
def test_rows_that_take_too_much_memory_cost_their_neighbours_nothing(tmp_path, target):
    """Their process is replaced, for what it may still hold: no other row is sent to the old one."""
    bad = [5, 6]
    content = [{**row, "how": "memory" if row["id"] in bad else None} for row in rows(0, 10)]
    spec = a_job(tmp_path, target, content, max_concurrency=1, retry={"max_attempts": 2})

    report = BatchRunner(spec).run()

    assert (report.rows_out, report.rows_failed) == (8, 2)
    assert dead_letters(tmp_path) == [(id_, "MemoryError") for id_ in bad]
    assert asked(tmp_path) == {n: 2 if n in bad else 1 for n in range(10)}


@pytest.mark.parametrize("target", ["noted_in_turn", "noted"])
def test_retries_are_the_same_as_without_a_process(tmp_path, target):
    """By the type of the error and those above it, which are known on the far side only."""
    content = with_one(with_one(rows(0, 32), 3, bad=True), 9, bad=True)
    for name, kinds, calls in (("a", ["LookupError"], 1), ("b", ["builtins.Exception"], 3)):
        folder = tmp_path / name
        spec = a_job(folder, target, content, retry={"retry_on": kinds})

        report = BatchRunner(spec).run()

        assert (report.rows_out, report.rows_failed) == (30, 2)
        assert dead_letters(folder) == [(3, "ValueError"), (9, "ValueError")]
        expected = {**dict.fromkeys(range(32), 1), 3: calls, 9: calls}
        assert asked(folder) == expected
