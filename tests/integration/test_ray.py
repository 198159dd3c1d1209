"""A batch on Ray: the same output as on the local engine, whatever dies on the way."""

from __future__ import annotations

import os
import threading
import time

import pytest

from batchrunner import BatchRunner
from batchrunner.errors import CapabilityImportError, RayUnavailableError
from batchrunner.execute import bare_ray_data
from builders import a_source, a_spec, rows, rows_out
from patience import PATIENCE

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("local_ray")]

HELPERS = (
    "ActorLocationTracker",
    "AutoscalingCoordinator",
    "DataUsageCollectionActor",
    "datasets_stats_actor",
)


def on_ray(folder, **changes):
    execution = {"engine": "ray", **changes.pop("execution", {})}
    return a_spec(folder, execution=execution, **changes)


def crashing(folder, kind):
    """A capability that kills its process the first two times it is asked to."""
    return {
        "target": f"capabilities:{kind}",
        "fn_constructor_kwargs" if kind == "KillsItsActor" else "fn_kwargs": {
            "folder": str(folder),
            "times": 2,
        },
    }


def deaths(folder):
    return len(list(folder.glob("death-*")))


@pytest.mark.parametrize("target", ["double", "Doubled", "later"])
def test_functions_run_as_tasks_and_classes_as_actors(tmp_path, target):
    """The same rows as anywhere else, in the same order."""
    a_source(tmp_path / "in", shards=7)

    report = BatchRunner(on_ray(tmp_path, capability=f"capabilities:{target}")).run()

    assert report.ok
    assert [{**row, "id": 2 * row["id"]} for row in rows(0, 28)] == rows_out(tmp_path / "out")


@pytest.mark.parametrize("kind", ["kills_its_task", "KillsItsActor"])
def test_a_worker_that_dies_in_the_middle_of_a_shard_costs_nothing(tmp_path, kind):
    """Ray runs the group again; what was committed before the death is kept."""
    a_source(tmp_path / "in", shards=6)

    report = BatchRunner(on_ray(tmp_path, capability=crashing(tmp_path, kind))).run()

    assert report.ok
    assert deaths(tmp_path) == 2
    assert rows(0, 24) == rows_out(tmp_path / "out")


def test_what_a_dead_worker_had_committed_is_not_made_again(tmp_path):
    """Its mark says that there may be something; who gets the group looks."""
    a_source(tmp_path / "in", shards=24)
    target = {
        "target": "capabilities:dies_at_its_ninth_call",
        "fn_kwargs": {"folder": str(tmp_path)},
    }

    report = BatchRunner(on_ray(tmp_path, capability=target, execution={"concurrency": 1})).run()

    assert report.ok
    assert rows(0, 96) == rows_out(tmp_path / "out")
    names = (tmp_path / "committed").read_text().split()
    committed = [4 * int(name.removesuffix(".json").rpartition("-")[2]) for name in names]
    calls = [int(line) for line in (tmp_path / "calls").read_text().split()]
    assert committed
    assert all(calls.count(first) == 1 for first in committed)
    assert len(calls) < 2 * 24


def test_the_number_of_workers_may_change_between_runs(tmp_path):
    """It decides nothing of the output."""
    a_source(tmp_path / "in", shards=6)
    fails = {"target": "capabilities:fails_until", "fn_kwargs": {"path": str(tmp_path / "ok")}}
    errors = {"on_row_error": "fail"}
    first = on_ray(tmp_path, capability=fails, execution={"concurrency": 1}, errors=errors)

    assert not BatchRunner(first).run().ok
    (tmp_path / "ok").touch()
    second = on_ray(tmp_path, capability=fails, execution={"concurrency": 2}, errors=errors)
    assert BatchRunner(second).retry().ok

    assert rows(0, 24) == rows_out(tmp_path / "out")


def test_the_users_data_context_stays_as_it_was(tmp_path):
    """Settings of ours must not leak into the user's own datasets."""
    from ray.data import DataContext

    a_source(tmp_path / "in")
    context = DataContext.get_current()
    context.target_max_block_size = 12_345_678
    before = {name: repr(value) for name, value in vars(context).items()}

    BatchRunner(on_ray(tmp_path)).run()

    assert DataContext.get_current() is context
    assert before == {name: repr(value) for name, value in vars(context).items()}


def helpers(ray):
    named = ray.util.list_named_actors(all_namespaces=True)
    return [actor for actor in named if actor["name"] in HELPERS]


@pytest.mark.parametrize("target", ["double", "Doubled"])
def test_no_actor_is_started_that_the_run_does_not_need(tmp_path, local_ray, target):
    """Each of Ray Data's takes a process that a worker would have, and a second to import."""
    from ray.data._internal import stats

    for actor in helpers(local_ray):  # of a batch that ran inside a job
        local_ray.kill(local_ray.get_actor(actor["name"], namespace=actor["namespace"]))
    before = stats.get_or_create_stats_actor
    a_source(tmp_path / "in")

    BatchRunner(on_ray(tmp_path, capability=f"capabilities:{target}")).run()

    assert [] == helpers(local_ray)
    assert stats.get_or_create_stats_actor is before
    assert "RAY_DATA_USAGE_DISABLED" not in os.environ


def test_a_release_that_moved_what_we_exchange_costs_time_only(tmp_path, monkeypatch):
    """The names are private: the actors are back, and nothing else changes."""
    for name in ("_STATS", "_EXECUTOR", "_POOL"):
        monkeypatch.setattr(bare_ray_data, name, "ray.data.moved")
    a_source(tmp_path / "in")

    assert BatchRunner(on_ray(tmp_path)).run().ok


def test_a_ray_that_was_running_is_left_running(tmp_path, local_ray):
    """It is another program's."""
    a_source(tmp_path / "in")
    before = local_ray.get_runtime_context().get_job_id()

    BatchRunner(on_ray(tmp_path)).run()

    assert local_ray.is_initialized()
    assert before == local_ray.get_runtime_context().get_job_id()


def test_a_run_that_no_machine_has_room_for_says_so_at_once(tmp_path):
    """Not a silent wait for a GPU that will never come."""
    a_source(tmp_path / "in")

    with pytest.raises(RayUnavailableError, match="it needs CPU 1, GPU 4"):
        BatchRunner(on_ray(tmp_path, execution={"num_gpus": 4})).run()


def test_a_model_that_cannot_be_built_ends_the_run_with_its_reason(tmp_path):
    """No shard can succeed, so none is tried again and again."""
    a_source(tmp_path / "in")
    spec = on_ray(tmp_path, capability="capabilities:Unbuildable")

    with pytest.raises(CapabilityImportError, match=r"FileNotFoundError: weights.bin"):
        BatchRunner(spec).run()


@pytest.mark.parametrize(("on_row_error", "lost"), [("record", [5]), ("fail", [4, 5, 6, 7])])
def test_a_capability_that_raises_costs_a_row_or_its_shard(tmp_path, on_row_error, lost):
    """Ray Data alone would end the job, or drop the block in silence."""
    a_source(tmp_path / "in", shards=5)
    errors = {"on_row_error": on_row_error, "max_row_errors": 1}

    report = BatchRunner(
        on_ray(tmp_path, capability="capabilities:fails_on_5", errors=errors)
    ).run()

    assert (report.ok, report.rows_failed) == (
        (True, 1) if on_row_error == "record" else (False, 0)
    )
    if on_row_error == "fail":
        assert "ValueError: five is right out" in report.failures[1].reason
    assert [row for row in rows(0, 20) if row["id"] not in lost] == rows_out(tmp_path / "out")


def test_actors_may_take_every_cpu(tmp_path):
    """Two actors on two CPUs leave none for anything else, and nothing else is needed."""
    a_source(tmp_path / "in", shards=6)
    execution = {"concurrency": 2}

    report = BatchRunner(
        on_ray(tmp_path, capability="capabilities:Doubled", execution=execution)
    ).run()

    assert report.ok  # something that needed a third CPU would wait for ever


def test_a_run_that_waits_for_a_busy_cluster_says_so(tmp_path, local_ray, monkeypatch, caplog):
    """Another job holds every CPU: not a failure, but not a silence either."""
    from batchrunner.execute import ray_connection

    monkeypatch.setattr(ray_connection, "_OVERDUE_SECONDS", 1.0)
    a_source(tmp_path / "in", shards=1)

    @local_ray.remote(num_cpus=2)
    class Hog:
        def hold(self):
            return True

    hog = Hog.remote()
    local_ray.get(hog.hold.remote())
    free = threading.Timer(4.0, local_ray.kill, [hog])
    free.start()

    report = BatchRunner(on_ray(tmp_path)).run()

    free.join()
    assert report.ok
    assert "no worker has started after 1 s: each needs CPU 1" in caplog.text
    assert "Other jobs may use the cluster" in caplog.text


@pytest.mark.usefixtures("local_ray")
def test_a_run_whose_ray_is_its_own_waits_for_no_other_job(monkeypatch, caplog):
    """Its workers are starting, and `ray status` would show another cluster, or none."""
    from batchrunner.execute import ray_connection

    monkeypatch.setattr(ray_connection, "_OVERDUE_SECONDS", 0.0)
    with ray_connection.warn_when_overdue("each needs CPU 1", is_own=True):
        deadline = time.monotonic() + PATIENCE
        while "no worker has started" not in caplog.text and time.monotonic() < deadline:
            time.sleep(0.01)

    assert "they are starting, or load the capability" in caplog.text
    assert "cluster" not in caplog.text
