"""Hooks hear what happens to a run, and nothing that they do reaches it."""

from __future__ import annotations

import copy
import json
import logging
import pickle
import threading
import time
from dataclasses import asdict

import pytest

from batchrunner import BatchRunner
from batchrunner.checkpoint.lease import current_lease
from batchrunner.driver.session import Stop, StopReason
from batchrunner.errors import CannotStartError, CapabilityImportError, InvalidSpecError
from batchrunner.hooks import DeadLetterKept, RunEnded, RunStarted, ShardCommitted
from batchrunner.storage import open_storage
from batchrunner.worker.stopping import Grace
from builders import a_source, a_spec, rows_out, write_jsonl
from command import ENVIRONMENT, a_spec_file, batchrunner
from patience import PATIENCE

pytestmark = pytest.mark.long

CANARY = "hook-canary-7f3a"


class Ears:
    """Keeps every event."""

    def __init__(self):
        self.events = []

    def on_run_start(self, event):
        self.events.append(event)

    on_shard_committed = on_dead_letter = on_run_end = on_run_start

    def of(self, kind):
        return [event for event in self.events if isinstance(event, kind)]


def run(folder, *hooks, capability=None, **changes):
    return BatchRunner(a_spec(folder, **changes), capability=capability, hooks=hooks).run()


def warnings(caplog):
    return [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]


def no_thirteen(rows):
    if any(row["id"] == 13 for row in rows):
        raise ValueError("unlucky")
    return rows


def test_a_hook_hears_of_each_event_in_order(tmp_path):
    """Start, each shard, end; and the totals are those of the report."""
    a_source(tmp_path / "in", shards=3)
    ears = Ears()

    report = run(tmp_path, ears, tags={"team": "a"})

    start, *shards, end = ears.events
    assert isinstance(start, RunStarted)
    assert (start.shards, start.shards_committed) == (3, 0)
    assert {type(shard) for shard in shards} == {ShardCommitted}
    assert sorted(shard.shard for shard in shards) == [0, 1, 2]
    assert sum(shard.rows_out for shard in shards) == report.rows_out == 12
    assert start.run.run_uid == report.run_uid
    assert (start.run.name, start.run.sink, start.run.tags) == ("test", report.sink, {"team": "a"})
    totals = ("shards", "shards_committed", "shards_new", "rows_in", "rows_out", "rows_failed")
    assert [getattr(end, name) for name in totals] == [getattr(report, name) for name in totals]
    assert (end.state, end.error, end.bytes_out) == ("complete", "", report.bytes_out)


def test_a_hook_hears_of_shards_that_ray_made(tmp_path, local_ray):
    """It is called in the driver: what it holds needs no pickling."""
    a_source(tmp_path / "in", shards=3)
    ears = Ears()
    ears.lock = threading.Lock()  # cannot be pickled

    report = run(tmp_path, ears, execution={"engine": "ray"})

    assert sorted(shard.shard for shard in ears.of(ShardCommitted)) == [0, 1, 2]
    assert ears.events[-1].rows_out == report.rows_out == 12


def test_a_hook_needs_only_the_methods_that_it_wants(tmp_path):
    """A notification is one method."""
    a_source(tmp_path / "in")
    ends = []

    class AtTheEnd:
        def on_run_end(self, event):
            ends.append(event.state)

    assert run(tmp_path, AtTheEnd()).ok
    assert ends == ["complete"]


def test_what_a_hook_raises_does_not_reach_the_run(tmp_path, caplog):
    """Not even `SystemExit`; a warning names the hook, once for each method, with a count."""
    a_source(tmp_path / "in", shards=4)

    class Broken(Ears):
        def on_shard_committed(self, event):
            raise SystemExit(3)

        def on_run_end(self, event):
            raise ValueError(f"the password is {CANARY}")

    hook = Broken()
    report = run(
        tmp_path, hook, source={"uri": str(tmp_path / "in"), "storage_options": {"secret": CANARY}}
    )

    assert report.ok
    assert report.exit_code == 0
    assert len(rows_out(tmp_path / "out")) == 16
    assert warnings(caplog) == [
        "the hook Broken failed in on_shard_committed, and the run goes on: SystemExit: 3",
        "the hook Broken failed in on_run_end, and the run goes on: ValueError: the password is ***",
        "the hook Broken failed 4 times in on_shard_committed",
    ]


def test_a_hook_that_failed_is_in_the_event_log(tmp_path, caplog):
    """The terminal of that night is gone; the checkpoint is not."""
    a_source(tmp_path / "in")

    class Broken:
        def on_run_start(self, event):
            raise ValueError("no such channel")

    def waits(rows):
        deadline = time.monotonic() + PATIENCE
        while not warnings(caplog) and time.monotonic() < deadline:
            time.sleep(0.01)
        return rows

    run(tmp_path, Broken(), capability=waits)

    (log,) = (tmp_path / "out/_checkpoint/sessions").glob("*.jsonl")
    events = [json.loads(line) for line in log.read_text().splitlines()]
    (failed,) = [event for event in events if event["action"] == "hook_failed"]
    assert (failed["hook"], failed["method"]) == ("Broken", "on_run_start")
    assert failed["why"] == "ValueError: no such channel"


def test_a_hook_that_hangs_does_not_hold_the_lease(tmp_path, caplog):
    """The next driver starts at once, on any machine, and other hooks hear what they wait for."""
    a_source(tmp_path / "in")
    checkpoint, released = open_storage(str(tmp_path / "out/_checkpoint")), threading.Event()

    class Hangs:
        def on_run_start(self, event):
            released.wait()

    class Looks(Ears):
        def on_run_end(self, event):
            while not current_lease(checkpoint).released:
                time.sleep(0.01)
            released.set()

    looks, execution = Looks(), {"engine": "local", "grace_period": 30}
    try:
        report = run(tmp_path, Hangs(), looks, execution=execution)
    finally:
        released.set()

    assert report.ok
    assert len(looks.of(ShardCommitted)) == 3
    assert warnings(caplog) == []  # no hook was left behind: the lease was released before


def test_a_hook_that_hangs_is_left_behind(tmp_path, caplog):
    """The process ends within its grace period after the run."""
    a_source(tmp_path / "in")
    over = threading.Event()

    class Hangs:
        def on_run_start(self, event):
            over.wait()

    try:
        report = run(tmp_path, Hangs(), execution={"engine": "local", "grace_period": 1})
        assert not over.is_set()  # `run` returned while the hook hung
    finally:
        over.set()

    assert report.ok
    (warning,) = warnings(caplog)
    assert warning.startswith("the hook Hangs did not return from on_run_start in time")


def test_a_stop_leaves_hooks_that_hang_within_its_grace_period(tmp_path, caplog):
    """A supervisor kills what does not end in time."""
    a_source(tmp_path / "in")
    over = threading.Event()
    stop = Stop(max_runtime=None, grace=Grace(2.0))

    class Hangs:
        def on_run_start(self, event):
            over.wait()

    def stops(rows):
        stop.request(StopReason.TERMINATED)
        return rows

    try:
        spec = a_spec(tmp_path, capability=None)
        report = BatchRunner(spec, capability=stops, hooks=[Hangs()]).run(stop=stop)
        assert stop.waited() < PATIENCE
        assert not over.is_set()
    finally:
        over.set()

    assert report.stopped == "SIGTERM"
    assert "the hook Hangs did not return from on_run_start in time" in warnings(caplog)[-1]


def test_a_hook_that_is_too_slow_loses_events_but_not_the_end(tmp_path, caplog, monkeypatch):
    """What waits for it must not fill the memory of the driver."""
    monkeypatch.setattr("batchrunner.driver.hook_thread._MOST_WAITING", 2)
    a_source(tmp_path / "in", shards=8)
    ended = threading.Event()

    class Slow(Ears):
        def on_run_start(self, event):
            ended.wait(PATIENCE)

        def on_shard_committed(self, event):
            self.events.append(event)

        def on_run_end(self, event):
            self.events.append(event)

    class Releases:
        def on_run_end(self, event):
            ended.set()

    assert run(tmp_path, slow := Slow(), Releases()).ok

    assert [event.shard for event in slow.of(ShardCommitted)] == [0, 1]
    assert slow.of(RunEnded)[0].shards_new == 8
    assert warnings(caplog)[-1] == "the hook Slow was too slow for 6 events"


def test_a_hook_hears_of_dead_letters_after_their_shard(tmp_path):
    """Place, error and row; at most a hundred of a shard, whose event has the count."""
    write_jsonl(tmp_path / "in/a.jsonl", [{"id": 13}] * 120 + [{"id": 1}])
    errors = {"max_row_errors": 1000, "retry": {"max_attempts": 1}}
    ears = Ears()

    report = run(tmp_path, ears, capability=no_thirteen, errors=errors)

    letters = ears.of(DeadLetterKept)
    assert len(letters) == 100
    assert [type(event) for event in ears.events[:3]] == [
        RunStarted,
        ShardCommitted,
        DeadLetterKept,
    ]
    assert ears.events[1].rows_failed == ears.events[-1].rows_failed == report.rows_failed == 120
    assert (letters[1].position, letters[1].error, letters[1].message) == (
        "byte 11",
        "ValueError",
        "unlucky",
    )
    assert json.loads(letters[1].row) == {"id": 13}


def test_a_run_that_failed_says_why_and_its_retry_reports_the_rest(tmp_path):
    """Shards of earlier sessions are in the totals, and are not reported again."""
    a_source(tmp_path / "in", shards=4)
    errors = {"on_row_error": "fail", "retry": {"max_attempts": 1}}
    first, second = Ears(), Ears()

    run(tmp_path, first, capability=no_thirteen, errors=errors)
    spec = a_spec(tmp_path, errors=errors)
    again = BatchRunner(spec, capability=lambda rows: rows, hooks=[second]).retry()

    end = first.events[-1]
    assert (end.state, end.shards_committed) == ("failed", 3)
    assert "unlucky" in end.error
    assert again.ok
    assert second.events[0].shards_committed == 3
    assert [event.shard for event in second.of(ShardCommitted)] == [3]
    assert (second.events[-1].rows_out, second.events[-1].shards_new) == (16, 1)


def test_a_session_that_ends_with_an_error_is_reported_too(tmp_path):
    """At 3 a.m. the message that counts is the one about what broke."""
    a_source(tmp_path / "in")
    ears = Ears()

    class NoWeights:
        def __init__(self):
            raise OSError("no weights here")

        def __call__(self, rows):
            return rows

    with pytest.raises(CapabilityImportError):
        run(tmp_path, ears, capability=NoWeights)

    _, end = ears.events
    assert (end.state, end.shards, end.shards_committed) == ("failed", 3, 0)
    assert "no weights here" in end.error


def test_a_run_that_is_complete_calls_no_hook(tmp_path):
    """Schedulers start it again and again; a message each time would hide the one that counts."""
    a_source(tmp_path / "in")
    run(tmp_path)
    ears = Ears()

    assert run(tmp_path, ears).ok
    assert ears.events == []


def test_a_driver_that_is_killed_in_a_hook_repeats_no_event(tmp_path):
    """Each shard at most once over both sessions; the totals at the end have all of them."""
    a_source(tmp_path / "in", shards=8)
    a_spec_file(
        tmp_path,
        # The run must not be complete before the hook has been called.
        capability={"target": "capabilities:waits_once_committed", "fn_kwargs": {"path": "killed"}},
        hooks={"hook_examples:Deadly": {"path": "diary.jsonl"}},
    )

    killed = batchrunner("run", "spec.yaml", cwd=tmp_path)
    again = batchrunner("run", "spec.yaml", cwd=tmp_path)

    lines = [json.loads(line) for line in (tmp_path / "diary.jsonl").read_text().splitlines()]
    heard = [event["shard"] for name, event in lines if name == "on_shard_committed"]
    assert (killed.returncode, again.returncode) == (-9, 0), again.stderr
    assert len(heard) == len(set(heard))
    assert [name for name, _ in lines].count("on_run_start") == 2
    name, end = lines[-1]
    assert (name, end["state"], end["shards_committed"], end["rows_out"]) == (
        "on_run_end",
        "complete",
        8,
        32,
    )


def test_what_a_hook_prints_is_not_in_the_report(tmp_path):
    """A program reads it from stdout."""
    a_source(tmp_path / "in")
    a_spec_file(tmp_path, hooks={"hook_examples:Chatty": None})

    done = batchrunner("run", "spec.yaml", "-o", "json", cwd=tmp_path)

    assert json.loads(done.stdout)["ok"] is True
    assert done.returncode == 0
    assert "the hook hook_examples:Chatty failed in on_run_start" in done.stderr


def test_a_process_that_is_terminated_ends_in_time_with_its_report(tmp_path):
    """The hook that hangs is left behind before the process would be ended by force."""
    a_source(tmp_path / "in", shards=400, rows_per_shard=1)
    a_spec_file(
        tmp_path,
        source={"uri": "in", "shard": {"files": 1}},
        capability="capabilities:terminates_its_driver",
        hooks={"hook_examples:Hangs": None},
        execution={"engine": "local", "grace_period": "10s"},
    )

    done = batchrunner("run", "spec.yaml", cwd=tmp_path)

    assert done.returncode == 143
    assert "the hook hook_examples:Hangs did not return from on_run_start in time" in done.stderr
    assert "stopped (SIGTERM): " in done.stdout + done.stderr


def test_a_hook_of_an_installed_package_runs_only_if_the_spec_names_it(tmp_path):
    """An install must not send anything anywhere."""
    a_source(tmp_path / "in")
    installed = tmp_path / "packages/diary-1.0.dist-info"
    installed.mkdir(parents=True)
    (installed / "METADATA").write_text("Metadata-Version: 2.1\nName: diary\nVersion: 1.0\n")
    (installed / "entry_points.txt").write_text(
        "[batchrunner.hooks]\ndiary = hook_examples:Diary\n"
    )
    path = f"{ENVIRONMENT['PYTHONPATH']}:{installed.parent}"
    a_spec_file(tmp_path)
    unnamed = batchrunner("run", "spec.yaml", cwd=tmp_path, PYTHONPATH=path)
    assert unnamed.returncode == 0
    assert not (tmp_path / "diary.jsonl").exists()

    a_spec_file(tmp_path, hooks={"diary": None}, sink="out2")
    named = batchrunner("run", "spec.yaml", cwd=tmp_path, PYTHONPATH=path)
    assert named.returncode == 0, named.stderr
    assert len((tmp_path / "diary.jsonl").read_text().splitlines()) == 5


def test_a_hook_that_cannot_be_made_stops_the_run_before_it_starts(tmp_path):
    """Better than a run without the notification that its user waits for."""
    a_source(tmp_path / "in")

    with pytest.raises(CannotStartError, match="the hook 'hook_examples:Nothing' cannot be made"):
        run(tmp_path, hooks={"hook_examples:Nothing": {}})
    with pytest.raises(InvalidSpecError, match='unknown option "pth"; did you mean "path"'):
        run(tmp_path, hooks={"hook_examples:Diary": {"pth": "x"}})
    assert not (tmp_path / "out/_checkpoint/run.json").exists()


def test_an_object_without_a_method_of_a_hook_is_refused(tmp_path):
    """A typo in the name of the only method would be a hook that never hears anything."""

    class Typo:
        def on_run_ended(self, event):
            pass

    with pytest.raises(InvalidSpecError, match=r'Typo is no hook.*did you mean "on_run_end"'):
        BatchRunner(a_spec(tmp_path), hooks=[Typo()])


def test_a_hook_that_forks_is_called_once_for_each_event(tmp_path):
    """The child would work off its copy of what waits, and fork at each event again."""
    a_source(tmp_path / "in", shards=5)
    a_spec_file(tmp_path, hooks={"hook_examples:Forks": None})

    done = batchrunner("run", "spec.yaml", cwd=tmp_path)

    lines = [json.loads(line) for line in (tmp_path / "diary.jsonl").read_text().splitlines()]
    heard = [event["shard"] for name, event in lines if name == "on_shard_committed"]
    assert done.returncode == 0, done.stderr
    assert sorted(heard) == [0, 1, 2, 3, 4]
    assert [name for name, _ in lines].count("on_run_end") == 1


def test_a_hook_whose_constructor_forks_starts_no_second_driver(tmp_path):
    """It would find the lease of the first one, and say that the run was refused."""
    a_source(tmp_path / "in")
    a_spec_file(tmp_path, hooks={"hook_examples:ForksAtFirst": None})

    done = batchrunner("run", "spec.yaml", cwd=tmp_path)

    assert done.returncode == 0, done.stderr
    assert done.stderr.count("done: 3 of 3 shards") == 1
    assert (tmp_path / "diary.jsonl").read_text().count("on_run_end") == 1


def test_a_hook_that_is_not_made_in_time_is_named(tmp_path):
    """A run that waits for it forever, in silence, looks like one that is starting."""
    a_source(tmp_path / "in")
    execution = {"engine": "local", "grace_period": 1}

    with pytest.raises(
        CannotStartError, match="'hook_examples:HangsAtFirst' was not made within 1 s"
    ):
        run(tmp_path, hooks={"hook_examples:HangsAtFirst": {}}, execution=execution)
    assert not (tmp_path / "out/_checkpoint/run.json").exists()


def test_a_method_that_cannot_be_read_is_an_error_of_the_hook(tmp_path, caplog):
    """A property is the user's code: what it raises stops no run."""
    a_source(tmp_path / "in")

    class Property(Ears):
        @property
        def on_shard_committed(self):
            raise SystemExit("no such channel")

    report = run(tmp_path, hook := Property())

    assert report.ok
    assert [type(event) for event in hook.events] == [RunStarted, RunEnded]
    assert warnings(caplog)[0] == (
        "the hook Property failed in on_shard_committed, and the run goes on: SystemExit: no such channel"
    )


def test_an_event_cannot_be_changed_but_copied(tmp_path):
    """All hooks get the same one: a tag that one changes would be another's, too."""
    a_source(tmp_path / "in")
    ears = Ears()
    run(tmp_path, ears, tags={"team": "a"})
    end = ears.of(RunEnded)[0]

    for changes in (end.run.tags, end.columns):
        with pytest.raises(TypeError, match="cannot be changed"):
            changes["team"] = "b"
        with pytest.raises(TypeError, match="cannot be changed"):
            changes.update(team="b")
    assert pickle.loads(pickle.dumps(end)) == copy.deepcopy(end) == end
    assert json.loads(json.dumps(asdict(end)))["run"]["tags"] == {"team": "a"}
