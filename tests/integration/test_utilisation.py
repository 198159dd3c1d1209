"""What the workers of a run spent their time on: measured, sent, summed over sessions, stored and shown."""

from __future__ import annotations

import json
import re
import time

import orjson
import pytest

import slow_formats
from batchrunner import BatchRunner, runner
from batchrunner.analytics import open_store
from batchrunner.checkpoint import Checkpoint
from batchrunner.driver import session
from batchrunner.execute.local import run_locally
from batchrunner.storage import open_storage
from batchrunner.views.report_data import run_report
from batchrunner.views.status import status_of
from batchrunner.worker.stage_clock import StageKind
from builders import a_source, a_spec, rows, write_jsonl
from command import a_spec_file, batchrunner, start
from patience import PATIENCE

ENGINES = pytest.mark.parametrize("engine", ["local", pytest.param("ray", marks=pytest.mark.ray)])


def checkpoint_of(folder):
    return Checkpoint(open_storage(str(folder / "out/_checkpoint")))


def until(condition):
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def spent_most_on(report):
    """What the capability did for most of its time; a share of it depends on what else the machine does."""
    [stage] = [clock for clock in report.stages if clock.kind is StageKind.STAGE]
    return max(
        ("waiting_input", "calling", "waiting_output"), key=lambda name: getattr(stage, name)
    )


@ENGINES
def test_the_clocks_of_a_run_add_up_to_the_time_of_its_workers(tmp_path, engine, request):
    """Nothing is lost between reading, calls and writing, and no moment counts twice."""
    if engine == "ray":
        request.getfixturevalue("local_ray")
    a_source(tmp_path / "in", shards=3, rows_per_shard=20)
    spec = a_spec(
        tmp_path,
        capability="capabilities:slow_by_row",
        execution={"engine": engine, "batch_size": 10},
    )
    before = time.process_time()
    report = BatchRunner(spec).run()

    read, stage, write = report.stages
    if engine == "local":
        of_process = time.process_time() - before
        assert read.cpu + stage.cpu + write.cpu < of_process + 0.05
    assert (read.kind, stage.kind, write.kind) == tuple(StageKind)
    assert (stage.name, stage.rows, stage.calls) == ("slow_by_row", 60, 6)
    assert (read.rows, write.rows) == (60, 60)
    assert stage.calling >= 60 * 0.005
    assert stage.waiting_input + stage.calling + stage.waiting_output == pytest.approx(
        stage.running
    )
    attempts = checkpoint_of(tmp_path).sentinels().good.values()
    assert stage.running >= max(one.seconds for one in attempts) * 0.9
    assert stage.seconds <= stage.workers * report.seconds
    assert stage.peak_memory > 10 << 20
    assert stage.cpu is not None
    assert read.cpu < 1.1 * read.calling + 0.01
    assert write.cpu < 1.1 * write.calling + 0.01


@ENGINES
def test_each_stage_has_its_clock_and_the_slow_one_is_busy(tmp_path, engine, request):
    """The workers of a stage are not where the shard's worker is: their clocks travel like its own."""
    if engine == "ray":
        request.getfixturevalue("local_ray")
    a_source(tmp_path / "in", shards=3, rows_per_shard=20)
    stages = [
        {"name": "prepare", "target": "capabilities:slow", "one_to_one": True},
        {"name": "classify", "target": "capabilities:echo", "one_to_one": True},
    ]
    execution = {"engine": engine, "batch_size": 5}
    report = BatchRunner(a_spec(tmp_path, capability=stages, execution=execution)).run()

    assert report.ok
    names = [(clock.kind.value, clock.name, clock.rows) for clock in report.stages]
    assert names == [
        ("read", "read", 60),
        ("stage", "prepare", 60),
        ("stage", "classify", 60),
        ("write", "write", 60),
    ]
    [_, prepare, classify, _] = report.stages
    assert (
        prepare.calling >= 12 * 0.1
    )  # so much that what a busy machine adds to a call is little beside it
    assert prepare.calling > classify.calling
    assert classify.waiting_input > 0
    assert min(prepare.peak_memory, classify.peak_memory) > 10 << 20


def test_a_stage_with_calls_at_the_same_time_has_the_time_of_one_worker(tmp_path):
    """Else its wait for a rate limit, which is that of the worker, would be lost among the times of its calls."""
    a_source(tmp_path / "in", shards=3, rows_per_shard=20)
    service = {"target": "capabilities:answers_after_a_while", "mode": "row", "rate_limit": "60/s"}
    report = BatchRunner(a_spec(tmp_path, capability=[service, "capabilities:echo"])).run()

    [_, stage, _, _] = report.stages
    assert stage.rows == 60
    assert stage.seconds <= report.seconds
    assert 0.5 * stage.calling < stage.limited
    assert stage.cpu is not None


def test_a_slow_source_shows_as_waiting_for_rows(tmp_path):
    """The reader is at work, and the calls wait for it."""
    a_source(tmp_path / "in", shards=12)
    source = {
        "uri": f"{tmp_path / 'in'}/*",
        "format": "slow_formats:SlowReading",
        "shard": {"files": 1},
    }
    report = BatchRunner(a_spec(tmp_path, source=source)).run()

    assert report.ok
    assert spent_most_on(report) == "waiting_input"
    assert report.stages[0].calling > 12 * slow_formats.SECONDS
    assert report.stages[0].cpu < 0.5 * report.stages[0].calling  # it waits for the storage


def test_a_slow_sink_shows_as_waiting_for_room(tmp_path):
    """Some batches may be queued; then the calls wait for the writer."""
    a_source(tmp_path / "in", shards=1, rows_per_shard=200)
    sink = {"uri": str(tmp_path / "out"), "format": "slow_formats:SlowWriting"}
    spec = a_spec(tmp_path, sink=sink, execution={"engine": "local", "batch_size": 10})
    report = BatchRunner(spec).run()

    assert report.ok
    assert spent_most_on(report) == "waiting_output"
    assert report.stages[-1].calling > 20 * slow_formats.SECONDS


def test_a_status_during_the_run_and_the_report_after_it_have_the_same_figures(
    tmp_path, monkeypatch
):
    """What is stored is what the workers sent, while they run, and at the end."""
    monkeypatch.setattr(session, "RENEW_SECONDS", 0.05)
    a_source(tmp_path / "in", shards=30)
    spec = a_spec(tmp_path, capability="capabilities:slow", execution={"engine": "local"})
    during = []

    class Looking:
        def show(self, progress):
            if progress.committed < progress.shards and progress.stages and not during:
                found = status_of(checkpoint_of(tmp_path))
                during.extend([found.stages] if found.stages else [])

        def close(self):
            pass

    report = BatchRunner(spec).run(progress=Looking())

    after = status_of(checkpoint_of(tmp_path))
    [read, stage, write] = during[0]
    assert (read["kind"], stage["name"], write["kind"]) == ("read", "slow", "write")
    assert 0 < stage["rows"] <= 120
    assert after.stages == tuple(clock.to_dict() for clock in report.stages)
    assert after.stages[1]["rows"] == 120
    assert orjson.loads(orjson.dumps(report.to_dict()))["stages"] == list(after.stages)


def test_the_figures_of_all_rows_arrive_although_each_heartbeat_is_lost(tmp_path, monkeypatch):
    """On Ray, the last second of an actor is in none; its last receipt has it."""

    def unheard(work, shards, *, stop, hear):
        assert hear is not None
        yield from run_locally(work, shards, stop=stop, hear=lambda _: None)

    monkeypatch.setattr(runner, "run_locally", unheard)
    a_source(tmp_path / "in", shards=40)
    report = BatchRunner(a_spec(tmp_path)).run()

    assert [clock.rows for clock in report.stages] == [160, 160, 160]


def test_a_run_of_two_sessions_has_the_sums_of_both_in_its_report_and_its_record(tmp_path):
    """Neither is the whole truth about where the time went."""
    a_source(tmp_path / "in", shards=3)
    store = str(tmp_path / "store")
    spec = a_spec(tmp_path, capability="capabilities:slow", analytics_store=store)
    first = BatchRunner(spec).run()
    write_jsonl(tmp_path / "in/in-003.jsonl", rows(12, 20))
    second = BatchRunner(spec).run(accept_changes=True)

    assert [report.stages[1].rows for report in (first, second)] == [12, 20]
    told = run_report(checkpoint_of(tmp_path)).to_dict()
    [_, stage, _] = told["stages"]
    assert stage["rows"] == 32
    calling = first.stages[1].calling + second.stages[1].calling
    assert stage["calling"] == pytest.approx(calling, abs=0.002)
    records = open_store(second.ref).read_run(second.ref).records["batch_stages"]
    assert [(one["kind"], one["stage"]) for one in records] == [
        ("read", "read"),
        ("stage", "slow"),
        ("write", "write"),
    ]
    assert records[1]["calling"] == pytest.approx(stage["calling"], abs=0.002)
    assert records[1]["rows"] == 32
    page = run_report(checkpoint_of(tmp_path)).to_html()
    assert page.count('class="fill second"') == 3


def test_a_driver_that_is_killed_leaves_the_figures_of_its_last_renewal(tmp_path):
    """Where the time went is asked most of all of a run that was too slow for its job."""
    a_source(tmp_path / "in", shards=1, rows_per_shard=1000)
    path = a_spec_file(
        tmp_path,
        capability={
            "target": "capabilities:waits_in_its_second_batch",
            "fn_kwargs": {"path": "never"},
        },
        execution={"engine": "local", "batch_size": 10},
    )
    sessions = tmp_path / "out/_checkpoint/sessions"
    in_second = re.compile(rb'"kind":"stage"[^}]*"rows":20,').search
    with start("run", path.name, cwd=tmp_path) as process:
        until(lambda: any(in_second(log.read_bytes()) for log in sessions.glob("*.jsonl")))
        process.kill()
        process.communicate()

    status = status_of(checkpoint_of(tmp_path))
    assert status.state == "interrupted"
    [_, stage, _] = status.stages
    assert stage["name"] == "waits_in_its_second_batch"
    assert stage["rows"] == 20
    assert stage["calling"] > 0
    assert run_report(checkpoint_of(tmp_path)).to_dict()["stages"][1]["calling"] == stage["calling"]


def test_a_status_has_a_line_of_words_for_each_stage_where_it_has_no_values(tmp_path):
    """In a table for people, and in a cell of a CSV file."""
    a_source(tmp_path / "in", shards=1)
    assert BatchRunner(a_spec(tmp_path, capability="capabilities:slow")).run().ok
    found = {
        output: batchrunner("status", "out/_checkpoint", "-o", output, cwd=tmp_path).stdout
        for output in ("table", "csv", "json")
    }

    for output in ("table", "csv"):
        assert re.search(r"slow: \d+ % busy.*; 1 worker, up to \d+ MB in each", found[output])
        assert "'kind'" not in found[output]
    assert [one["kind"] for one in json.loads(found["json"])["stages"]] == [
        "read",
        "stage",
        "write",
    ]


def test_figures_that_are_damaged_or_from_a_later_version_cost_no_status(tmp_path):
    """They are for people: what else a log says still counts."""
    a_source(tmp_path / "in", shards=1)
    report = BatchRunner(a_spec(tmp_path)).run()
    storage = open_storage(str(tmp_path / "out/_checkpoint"))
    [log] = storage.list("sessions/")
    lines = storage.get(log.key).splitlines()
    measured = orjson.loads(next(line for line in lines if b"stages_measured" in line))
    for stages in [
        "x",
        [1],
        [{"kind": "later"}],
        {"a": 1},
        None,
        [{**measured["stages"][0], "rows": []}],
    ]:
        changed = orjson.dumps({**measured, "stages": stages, "advice": None})
        written = [changed if b"stages_measured" in line else line for line in lines]
        storage.put(log.key, b"\n".join(written) + b"\n")

        assert status_of(checkpoint_of(tmp_path)).stages == ()
        assert status_of(checkpoint_of(tmp_path)).advice == ""
        assert run_report(checkpoint_of(tmp_path)).to_dict()["verdict"]["state"] == "complete"
    assert report.ok
