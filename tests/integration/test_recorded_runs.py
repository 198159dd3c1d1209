"""Mode `run`, and the batch's own record: in the analytics store before success is declared."""

from __future__ import annotations

import json
import shutil

import pytest

from batchrunner import BatchRunner
from batchrunner.analytics import open_store
from batchrunner.checkpoint import Checkpoint
from batchrunner.checkpoint.location import checkpoint_storage
from batchrunner.errors import CapabilityImportError, InvalidSpecError, StorageError
from batchrunner.views.dead_letters import read_dead_letters
from builders import a_source, a_spec, parts, rows_out, write_jsonl
from command import a_spec_file, batchrunner, start

RUNS = {
    "target": "evaluations:Accuracy",
    "mode": "run",
    "inputs": {"datasets": "evaluations:load_dataset", "models": "evaluations:load_model"},
}


def wanted(folder, *, files=3, each=4, datasets=None):
    """Each row names a dataset and a model."""
    for number in range(files):
        some = (
            [{"datasets": f"d{number}-{n}", "models": ["m"]} for n in range(each)]
            if datasets is None
            else datasets[number * each : (number + 1) * each]
        )
        write_jsonl(folder / f"in/in-{number}.jsonl", some)


def a_run_spec(folder, **changes):
    return a_spec(
        folder, **{"capability": RUNS, "analytics_store": str(folder / "store"), **changes}
    )


def recorded(folder, sql="SELECT run_uid FROM score"):
    return open_store(str(folder / "store")).query_sql(sql).to_pylist()


def test_each_row_is_a_run_that_is_recorded(tmp_path):
    """With its records, its inputs and the batch that it was part of; the part says where."""
    wanted(tmp_path)

    report = BatchRunner(a_run_spec(tmp_path)).run()

    assert (report.ok, report.rows_out) == (True, 12)
    out = rows_out(tmp_path / "out")
    assert sorted(row["run_uid"] for row in out) == sorted(
        row["run_uid"] for row in recorded(tmp_path)
    )
    store = open_store(str(tmp_path / "store"))
    run = store.read_run(out[0]["store_uri"])
    assert run.capability_id == out[0]["capability_id"] == "accuracy"
    assert store.read_report(out[0]["store_uri"]) == "# accuracy at 0.5"
    every = recorded(tmp_path, "SELECT run_uid, entity_type, entity_id, batch_uid FROM runs")
    rows = [row for row in every if row["run_uid"] == out[0]["run_uid"]]
    assert {(row["entity_type"], row["entity_id"]) for row in rows} == {
        ("dataset", "d0-0"),
        ("model", "model-m"),
    }
    assert {row["batch_uid"] for row in rows} == {report.run_uid}


def test_a_loader_is_asked_once_for_each_input_of_a_worker(tmp_path, monkeypatch):
    """A model that takes a minute to load must not take one for every row."""
    monkeypatch.setenv("LOADED", str(tmp_path / "loaded"))
    wanted(tmp_path, datasets=[{"datasets": ["a", "b"], "models": None}] * 12)

    assert BatchRunner(a_run_spec(tmp_path)).run().ok

    assert (tmp_path / "loaded").read_text().split() == ["a", "b"]


def test_a_run_that_fails_costs_its_row(tmp_path):
    """Its neighbours are not run again for it."""
    names = [f"d{n}" for n in range(12)]
    names[5] = "broken"
    wanted(tmp_path, datasets=[{"datasets": name} for name in names])
    spec = a_run_spec(tmp_path, errors={"max_row_errors": 1})

    report = BatchRunner(spec).run()

    assert (report.ok, report.rows_out, report.rows_failed) == (True, 11, 1)
    [dead_letter] = read_dead_letters(Checkpoint(checkpoint_storage(spec)))
    assert (dead_letter["error"], json.loads(dead_letter["raw"])["datasets"]) == (
        *("FileNotFoundError", "broken"),
    )
    assert len(recorded(tmp_path)) == 11


def test_records_that_do_not_fit_cost_their_row(tmp_path):
    """The store would refuse them later, with everything that is written together with them."""
    wanted(tmp_path, files=1)
    capability = {**RUNS, "target": "evaluations:ForeignRecords"}

    report = BatchRunner(
        a_run_spec(tmp_path, capability=capability, errors={"max_row_errors": 9})
    ).run()

    assert (report.rows_out, report.rows_failed) == (0, 4)


def test_what_is_no_capability_for_runs_is_named_before_anything_runs(tmp_path):
    """And a spec without a store is refused."""
    wanted(tmp_path)

    with pytest.raises(CapabilityImportError, match="no id and run"):
        BatchRunner(a_run_spec(tmp_path, capability={**RUNS, "target": "capabilities:echo"})).run()
    with pytest.raises(InvalidSpecError, match="analytics_store"):
        a_run_spec(tmp_path, analytics_store=None)


def test_running_a_shard_again_records_nothing_twice(tmp_path):
    """Part and sentinel are gone, as after a power cut: the runs are there, and stay the same."""
    wanted(tmp_path)
    BatchRunner(a_run_spec(tmp_path)).run()
    before = recorded(tmp_path)
    (tmp_path / "out/part-00001.jsonl").unlink()
    (tmp_path / "out/_checkpoint/sentinels/part-00001.json").unlink()

    report = BatchRunner(a_run_spec(tmp_path)).run()

    assert (report.ok, report.shards_new) == (True, 1)
    assert sorted(map(str, before)) == sorted(map(str, recorded(tmp_path)))


@pytest.mark.sweep
def test_two_thousand_runs_killed_again_and_again_are_recorded_once_each(tmp_path):
    """SIGKILL of the driver while shards are recorded and committed."""
    wanted(tmp_path, files=40, each=50)
    a_spec_file(tmp_path, capability=RUNS, analytics_store="store")
    for count in (3, 12, 25):
        with start("run", "spec.yaml", cwd=tmp_path) as process:
            while len(parts(tmp_path / "out")) < count and process.poll() is None:
                pass
            process.kill()

    done = batchrunner("run", "spec.yaml", cwd=tmp_path)

    assert done.returncode == 0, done.stderr
    assert len(rows_out(tmp_path / "out")) == 2000
    [counts] = recorded(
        tmp_path,
        "SELECT count(*) AS rows, count(DISTINCT run_uid) AS runs FROM score",
    )
    assert counts == {"rows": 2000, "runs": 2000}


def test_a_batch_records_itself(tmp_path):
    """One run, one row of batch_runs, one of batch_shards for each shard; the ref leads there."""
    a_source(tmp_path / "in", shards=3)
    spec = a_spec(tmp_path, analytics_store=str(tmp_path / "store"), tags={"team": "x"})

    report = BatchRunner(spec).run()
    again = BatchRunner(spec).run()

    assert report.ref == again.ref
    run = open_store(report.ref).read_run(report.ref)
    [batch] = run.records["batch_runs"]
    assert (batch["name"], batch["rows_in"], batch["rows_out"]) == ("test", 12, 12)
    assert json.loads(batch["tags"]) == {"team": "x"}
    assert [shard["shard"] for shard in run.records["batch_shards"]] == [0, 1, 2]
    assert len(recorded(tmp_path, "SELECT DISTINCT run_uid FROM runs")) == 1


def test_a_batch_that_grows_is_recorded_anew(tmp_path):
    """The record of what was there before stays true."""
    a_source(tmp_path / "in", shards=2)
    spec = a_spec(tmp_path, analytics_store=str(tmp_path / "store"))
    first = BatchRunner(spec).run()
    write_jsonl(tmp_path / "in/later.jsonl", [{"id": 99, "text": "x"}])

    second = BatchRunner(spec).run()

    assert first.ref.run_uid != second.ref.run_uid
    assert [
        r["rows_out"] for r in recorded(tmp_path, "SELECT rows_out FROM batch_runs ORDER BY 1")
    ] == [
        *(8, 9),
    ]
    uids = recorded(tmp_path, "SELECT DISTINCT batch_uid FROM batch_runs")
    assert [row["batch_uid"] for row in uids] == [first.run_uid]


def test_a_store_that_cannot_be_written_fails_the_run_and_keeps_its_shards(tmp_path):
    """No success is declared; running again does only what is missing."""
    a_source(tmp_path / "in", shards=3)
    spec = a_spec(tmp_path, analytics_store=str(tmp_path / "store"))
    (tmp_path / "store").write_text("a file where the folder should be")

    with pytest.raises(StorageError, match="store"):
        BatchRunner(spec).run()
    inodes = {path.name: path.stat().st_ino for path in parts(tmp_path / "out")}
    assert len(inodes) == 3
    assert not (tmp_path / "out/_SUCCESS").exists()
    (tmp_path / "store").unlink()
    report = BatchRunner(spec).run()

    assert (report.ok, report.shards_new) == (True, 0)
    assert inodes == {path.name: path.stat().st_ino for path in parts(tmp_path / "out")}
    assert open_store(report.ref).read_run(report.ref)


def test_a_store_that_is_named_later_gets_the_record_of_a_finished_run(tmp_path):
    """Or a ref would lead nowhere."""
    a_source(tmp_path / "in", shards=2)
    BatchRunner(a_spec(tmp_path)).run()

    report = BatchRunner(a_spec(tmp_path, analytics_store=str(tmp_path / "store"))).run()

    assert (report.ok, report.shards_new) == (True, 0)
    assert open_store(report.ref).read_run(report.ref).records["batch_runs"]
    assert (tmp_path / "out/_SUCCESS").exists()
    shutil.rmtree(tmp_path / "store")
