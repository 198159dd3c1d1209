"""What a display is shown of a run while it runs, on both engines."""

from __future__ import annotations

import time
from datetime import UTC, datetime

import pytest

from batchrunner import BatchRunner
from batchrunner.checkpoint import Checkpoint
from batchrunner.driver import session
from batchrunner.driver.progress import Phase
from batchrunner.execute import ray_heartbeats
from batchrunner.storage import open_storage
from batchrunner.views.status import status_of
from batchrunner.worker.pulse import worker_name
from builders import a_source, a_spec

ENGINES = pytest.mark.parametrize("engine", ["local", pytest.param("ray", marks=pytest.mark.ray)])


class Releasing:
    """Keeps all that it is shown; lets a call that waits for a file go on once *enough* is seen."""

    def __init__(self, file, *, enough):
        self.shown, self.held = [], 0.0
        self._file, self._enough = file, enough

    def show(self, progress):
        self.shown.append(progress)
        if not self._file.exists() and self._enough(progress):
            self.held = progress.slowest[1]
            self._file.touch()

    def close(self):
        pass


def a_run_whose_second_call_waits(folder, engine, *, enough, target="waits_in_its_second_batch"):
    """One shard of eight rows in two batches, of which the second waits until *enough* is seen."""
    a_source(folder / "in", shards=1, rows_per_shard=8)
    file = folder / "go"
    spec = a_spec(
        folder,
        capability={"target": f"capabilities:{target}", "fn_kwargs": {"path": str(file)}},
        execution={"engine": engine, "batch_size": 4},
    )
    display = Releasing(file, enough=enough)
    return BatchRunner(spec).run(progress=display), display


def sentinel_of(folder):
    return Checkpoint(open_storage(str(folder / "out/_checkpoint"))).sentinels().good[0]


@ENGINES
def test_progress_moves_within_a_shard_and_its_time_grows_during_a_call_that_hangs(
    tmp_path, engine, request
):
    """A person sees which shard hangs, although nothing is committed and nothing returns."""
    if engine == "ray":
        request.getfixturevalue("local_ray")
    report, display = a_run_whose_second_call_waits(
        tmp_path, engine, enough=lambda p: p.rows_in_flight == 4 and p.slowest[1] > 1.5
    )

    assert report.ok
    within = [p for p in display.shown if p.rows_in_flight == 4]
    assert {(p.states, p.workers, p.workers_busy, p.committed) for p in within} == {(b"~", 1, 1, 0)}
    assert all(0 < p.share < 1 for p in within)
    times = [p.slowest[1] for p in within]
    assert times == sorted(times)
    assert times[-1] > times[0]
    phases = list(dict.fromkeys(p.phase for p in display.shown))
    assert phases == [phase for phase in Phase if phase in phases]
    assert {Phase.SURVEYING, Phase.RUNNING, Phase.FINISHING} <= {*phases}
    last = display.shown[-1]
    assert (last.phase, last.states, last.rows_in_flight) == (Phase.FINISHING, b"#", 0)


@ENGINES
def test_a_sentinel_says_who_made_its_part_when_and_what_took_the_time(tmp_path, engine, request):
    """From it a report shows which worker did what, and whether reading or calling is slow."""
    if engine == "ray":
        request.getfixturevalue("local_ray")
    before = time.time()
    _, display = a_run_whose_second_call_waits(
        tmp_path, engine, enough=lambda p: p.slowest and p.slowest[1] > 1
    )
    after = time.time()
    sentinel = sentinel_of(tmp_path)

    host = worker_name().rpartition("-")[0]
    assert sentinel.worker.startswith(f"{host}-")
    assert (sentinel.worker == worker_name()) == (engine == "local")
    assert before - 0.001 <= sentinel.began <= after
    assert sentinel.calling > 0.5
    assert display.held - 1 < sentinel.seconds <= after - before
    assert max(sentinel.reading, sentinel.calling, sentinel.writing) <= sentinel.seconds


def test_the_status_of_a_run_shows_what_is_in_flight_and_nothing_of_it_afterwards(
    tmp_path, monkeypatch
):
    """On any machine, from the checkpoint alone."""
    monkeypatch.setattr(session, "RENEW_SECONDS", 0.1)
    seen = []

    def shows_the_rows_in_flight(_):
        if (tmp_path / "out/_checkpoint/sessions").exists():
            checkpoint = Checkpoint.current(open_storage(str(tmp_path / "out/_checkpoint")))
            seen.append(status_of(checkpoint, place="spec.yaml", spec="spec.yaml"))
        return bool(seen) and seen[-1].rows_in_flight == 4

    a_run_whose_second_call_waits(tmp_path, "local", enough=shows_the_rows_in_flight)
    running, checkpoint = seen[-1], Checkpoint(open_storage(str(tmp_path / "out/_checkpoint")))
    done = status_of(checkpoint, spec="spec.yaml")

    assert (running.state, running.phase) == ("running", "running")
    assert (running.workers, running.workers_busy, running.slowest_shard) == (1, 1, 0)
    assert running.next == "batchrunner status --watch spec.yaml"
    assert datetime.fromisoformat(running.last_renewal) <= datetime.now(UTC)
    assert (done.state, done.phase, done.rows_in_flight) == ("complete", "", 0)
    assert (done.last_renewal, done.next) == ("", "batchrunner verify spec.yaml")


@pytest.mark.ray
def test_heartbeats_leave_nothing_in_the_cluster(tmp_path, local_ray):
    """A cluster that runs for months has thousands of sessions."""
    from ray.experimental import internal_kv

    a_source(tmp_path / "in")
    # Of other tests in the same cluster, whose drivers or workers were killed, some may be left.
    before = set(internal_kv._internal_kv_list(b"heartbeats/", namespace=b"batchrunner"))
    BatchRunner(a_spec(tmp_path, execution={"engine": "ray"})).run()

    after = set(internal_kv._internal_kv_list(b"heartbeats/", namespace=b"batchrunner"))
    assert after <= before


@pytest.mark.ray
def test_a_release_of_ray_that_moved_its_store_costs_the_display_only(
    tmp_path,
    local_ray,
    monkeypatch,
):
    """The functions are private: the run goes on without heartbeats."""
    monkeypatch.setattr(ray_heartbeats._Store, "items", None)
    a_source(tmp_path / "in")

    report = BatchRunner(a_spec(tmp_path, execution={"engine": "ray"})).run()

    assert (report.ok, report.shards_new) == (True, 3)
