"""The findings of `doctor`: what is a failure, what a warning, and that no check costs another."""

from __future__ import annotations

import threading

import pytest

from batchrunner.doctor.clusters import _described, _gpus, _workers
from batchrunner.doctor.machine import disk_at, machine_checks
from batchrunner.doctor.results import Check, CheckStatus, ok, results_of
from batchrunner.doctor.storages import clock_finding
from batchrunner.errors import StorageAccessError
from patience import PATIENCE

NODE = {"node": "n1", "versions": {"python": "3.12.1", "ray": "2.60.0"}, "import": "", "clock": 0.0}
HERE = {"python": "3.12.1", "ray": "2.60.0"}
SEEN = {"nodes": [NODE], "alive": 1, "is_local": False, "gpus": 0.0, "cpus": 8.0, "seconds": 1.0}


def status_of(findings):
    return [str(one.status) for one in findings]


def test_a_check_that_raises_or_hangs_costs_its_own_line():
    """Whatever is broken, the other lines are what the user came for."""
    hangs = threading.Event()
    checks = [
        Check("refused", lambda: refuse(StorageAccessError("no such key"))),
        Check("broken", lambda: refuse(ZeroDivisionError("a bug"))),
        Check("fine", lambda: [ok("fine", "as it should be")]),
        Check("hangs", lambda: [hangs.wait(PATIENCE)]),
    ]

    found = list(results_of(checks, seconds=1))

    hangs.set()
    assert [one.check for one in found] == ["refused", "broken", "fine", "hangs"]
    assert status_of(found) == ["fail", "fail", "ok", "fail"]
    assert found[0].fact == "no such key"
    assert "a bug" in found[1].fact
    assert found[3].fact == "no answer within 1 s"


def refuse(error):
    raise error


def test_this_machine_is_looked_at_without_a_spec():
    """Each check has a word for what it found, on any machine."""
    for check in machine_checks():
        for found in check.look():
            assert found.fact
            assert bool(found.way_out) == (found.status is not CheckStatus.OK), found


@pytest.mark.parametrize(
    ("ahead", "status"), [(0.4, "ok"), (-20, "ok"), (31, "warn"), (-899, "warn"), (901, "fail")]
)
def test_a_clock_is_judged_by_what_s3_and_leases_stand(ahead, status):
    """S3 refuses requests that are a quarter of an hour off."""
    assert clock_finding("clock", ahead, whose="its").status == status


def test_a_folder_that_is_not_there_is_a_failure(tmp_path):
    """It says so; it does not raise."""
    assert disk_at("disk", str(tmp_path / "gone")).status == "fail"


@pytest.mark.parametrize(
    ("changed", "status", "said"),
    [
        ({}, ["ok"], "1 of 1 nodes have what is here"),
        ({"versions": {"python": "3.11.9", "ray": "2.60.0"}}, ["warn"], "python is 3.11.9"),
        ({"versions": {"python": "3.12.1", "ray": None}}, ["fail"], "ray is not installed"),
        ({"import": "ModuleNotFoundError: caps"}, ["fail"], "cannot import the capability"),
        ({"clock": 100.0}, ["warn"], "100 s ahead"),
    ],
)
def test_a_worker_that_differs_is_named_with_what_differs(changed, status, said):
    """Another Python there fails with an error that says nothing of it."""
    found = list(_workers({**SEEN, "nodes": [{**NODE, **changed}]}, HERE))

    assert status_of(found) == status
    assert said in found[0].fact


def test_a_node_that_does_not_answer_is_a_failure():
    """Its shards would wait."""
    (found,) = _workers({**SEEN, "nodes": [{"node": "n1", "error": "no answer"}]}, HERE)

    assert (found.check, found.status) == ("worker n1", "fail")


def test_no_room_for_a_worker_is_a_failure_only_where_ray_cannot_grow():
    """On a cluster the autoscaler may add a machine."""
    local = {**SEEN, "is_local": True, "no_room": "no machine has room"}
    cluster = {**local, "is_local": False, "address": "head:6379", "authentication": ""}

    assert [str(_described(one).status) for one in (local, cluster)] == ["fail", "warn"]


def test_a_gpu_that_a_worker_asks_for_and_ray_has_not_is_a_failure():
    """The run would wait for ever, or refuse."""
    from batchrunner.spec import BatchSpec

    spec = BatchSpec(source="in", sink="out", execution={"num_gpus": 1})

    assert status_of(_gpus(spec, SEEN)) == ["fail"]
    assert status_of(_gpus(spec, {**SEEN, "gpus": 2.0})) == ["ok"]
    assert status_of(_gpus(None, SEEN)) == ["ok"]


def test_a_check_that_makes_an_object_gets_time_to_remove_it(monkeypatch):
    """Else `doctor` would leave an object in a slow bucket each time that it is called."""
    monkeypatch.setattr("batchrunner.doctor.results._REMOVING_SECONDS", PATIENCE)
    late, hangs, removed = threading.Event(), threading.Event(), threading.Event()

    def removes():
        late.wait(PATIENCE)
        removed.set()
        return [ok("slow", "in time after all")]

    threading.Timer(0.3, late.set).start()
    (found,) = results_of([Check("slow", removes, leaves="its own probe-1")], seconds=0)
    assert removed.is_set()
    assert "left" not in found.fact

    monkeypatch.setattr("batchrunner.doctor.results._REMOVING_SECONDS", 0)
    stuck = Check("stuck", lambda: [hangs.wait(PATIENCE)], leaves="its own probe-1")
    (found,) = results_of([stuck], seconds=0)
    hangs.set()
    assert found.fact == "no answer within 0 s; it may have left its own probe-1"
