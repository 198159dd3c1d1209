"""A row that kills its worker costs that row, after few deaths, in one session or over many."""

from __future__ import annotations

import json
import os
from collections import Counter

import pytest

from batchrunner import BatchRunner
from batchrunner.checkpoint import Checkpoint
from batchrunner.storage import open_storage
from batchrunner.views.dead_letters import read_dead_letters
from builders import a_spec, rows, rows_out, write_jsonl
from command import a_spec_file, batchrunner

BAD = 437
ROWS = [{**row, "bad": True} if row["id"] == BAD else row for row in rows(0, 1000)]
GOOD = [row for row in ROWS if row["id"] != BAD]


@pytest.fixture
def folder(tmp_path):
    """A thousand rows in four files, one of them deadly."""
    for number in range(4):
        write_jsonl(tmp_path / f"in/in-{number}.jsonl", ROWS[number * 250 : (number + 1) * 250])
    return tmp_path


def the_dead_letter(folder):
    checkpoint = Checkpoint(open_storage(str(folder / "out/_checkpoint")))
    [dead_letter] = read_dead_letters(checkpoint)
    return dead_letter


@pytest.mark.ray
@pytest.mark.usefixtures("local_ray")
@pytest.mark.parametrize("as_actor", [False, True])
def test_a_row_that_kills_its_worker_is_set_aside(folder, as_actor, capfd, caplog):
    """Tasks and actors: Ray starts them again, and here it ends after few deaths."""
    built = folder / "built"
    target = {"target": "capabilities:exits_on_bad"}
    if as_actor:
        target = {
            "target": "capabilities:ModelThatExits",
            "fn_constructor_kwargs": {"path": str(built)},
        }

    report = BatchRunner(
        a_spec(
            folder, capability=target, execution={"engine": "ray", "batch_size": 50, "num_cpus": 1}
        )
    ).run()

    assert (report.exit_code, report.rows_in, report.rows_out, report.rows_failed) == (
        *(0, 1000, 999, 1),
    )
    assert rows_out(folder / "out") == GOOD
    dead_letter = the_dead_letter(folder)
    assert (dead_letter["error"], json.loads(dead_letter["raw"])["id"]) == ("CapabilityDied", BAD)
    assert "exit code 3" in dead_letter["message"]
    said = capfd.readouterr()
    assert "(raylet)" not in said.out + said.err
    assert "a worker died" in caplog.text
    events = "".join(p.read_text() for p in (folder / "out/_checkpoint/sessions").glob("*.jsonl"))
    assert '"worker_died"' in events
    if as_actor:  # 2 actors, 2 deaths, and a process for each death in isolation
        assert len(built.read_text().split()) <= 8
    assert not list((folder / "out/_checkpoint").glob("attempts/*"))


@pytest.mark.long
def test_a_row_that_kills_its_driver_stops_doing_so_over_restarts(folder):
    """On the local engine the capability runs in the driver: the next driver gets through."""
    a_spec_file(folder, capability="capabilities:crashes_on_bad")

    codes = [batchrunner("run", "spec.yaml", cwd=folder).returncode for _ in range(3)]

    assert codes == [-9, -9, 0]  # of the whole group, of the shard alone, in isolation
    assert rows_out(folder / "out") == GOOD
    assert the_dead_letter(folder)["error"] == "CapabilityDied"


def test_stages_know_their_rows_in_a_process_of_their_own(tmp_path):
    """After two kills over their shard: rows have the same calls, errors and usage as in the worker."""
    fails = {5: "second", 27: "pays", 28: "pays"}
    content = [{**row, "fails": fails.get(row["id"], "")} for row in rows(0, 60)]
    found = {}
    for name in ("usual", "apart"):
        folder = tmp_path / name
        write_jsonl(folder / "in/a.jsonl", content)
        calls = {"fn_kwargs": {"path": f"{folder}/calls"}}
        stages = [
            {"target": "staged:second", "one_to_one": True, "batch_size": 30},
            {"target": "staged:pays", "mode": "row", **calls},
        ]
        if name == "apart":
            for session in ("killed", "killed again"):
                mark = {"version": 1, "session": session, "node": "", "shards": [0]}
                storage = open_storage(str(folder / "out/_checkpoint"))
                storage.put(f"attempts/{session}.json", json.dumps(mark).encode())
        errors = {"max_row_errors": 5, "retry": {"max_attempts": 2}}

        report = BatchRunner(
            a_spec(folder, capability=stages, execution={"engine": "local"}, errors=errors)
        ).run()

        output = rows_out(folder / "out")
        assert ({row.pop("pid") for row in output} == {os.getpid()}) == (name == "usual")
        letters = read_dead_letters(Checkpoint(open_storage(str(folder / "out/_checkpoint"))))
        found[name] = {
            "output": output,
            "dead letters": [(one["raw"], one["stage"], one["error"]) for one in letters],
            "calls": Counter(int(line) for line in (folder / "calls").read_text().split()),
            "usage": (report.usage, report.spent),
        }
    assert found["apart"] == found["usual"]
    assert found["apart"]["calls"] == {n: 2 if n in {27, 28} else 1 for n in range(60) if n != 5}
    assert found["apart"]["usage"] == ({"tokens": 61}, {"tokens": 61})


def test_a_row_that_kills_its_trial_does_so_once(folder):
    """A trial starts over, so it would die of that row each time; the second one names it."""
    a_spec_file(folder, capability="capabilities:crashes_on_bad")

    done = [batchrunner("run", "spec.yaml", "--sample", "100%", cwd=folder) for _ in range(2)]

    assert [one.returncode for one in done] == [-9, 0]
    assert rows_out(folder / "_trial-out") == GOOD
    assert "1 failed" in done[1].stderr


def test_a_row_that_exits_from_the_driver_costs_one_row(folder):
    """With status 0, `run && upload` would have uploaded nothing."""
    a_spec_file(folder, capability="capabilities:exits_with_0_on_bad")

    done = batchrunner("run", "spec.yaml", cwd=folder)

    assert done.returncode == 0, done.stderr
    assert rows_out(folder / "out") == GOOD
    assert the_dead_letter(folder)["error"] == "SystemExit"


def test_a_clean_stop_does_not_count_as_a_death(folder):
    """A run that is stopped every night must not be held for a deadly one."""
    a_spec_file(
        folder,
        capability="capabilities:slow",
        execution={"engine": "local", "batch_size": 25, "max_runtime": 0.3},
    )

    done = batchrunner("run", "spec.yaml", cwd=folder)

    assert done.returncode == 75, done.stderr
    assert not list((folder / "out/_checkpoint").glob("attempts/*"))
