"""What Ray prints when its processes die becomes a line each, of ours."""

import inspect
import logging

import pytest
from ray._private import process_watcher
from ray._private import worker as ray_worker

from batchrunner.execute.ray_deaths import deaths_heard
from batchrunner.worker.heartbeat import WorkerPhase

WORKER = "A worker died or was killed while executing a task by an unexpected system error. Worker PID: 77"
RAYLET = "Raylet is terminated. Termination is unexpected. Possible reasons include: (1) SIGKILL"
MACHINE = "The node with node id: ab12 and address: 192.0.2.7 and node name: n has been marked dead because"


@pytest.fixture
def printed(monkeypatch):
    """What Ray prints itself."""
    texts = []
    monkeypatch.setattr(
        ray_worker, "print_to_stdstream", lambda data, *_: texts.extend(data["lines"])
    )
    return texts


def says(text):
    ray_worker.print_to_stdstream({"pid": "raylet", "lines": [text]}, False)


def test_a_raylet_that_is_gone_is_said_once_with_the_way_out(printed, caplog):
    """Ray may end the driver after it, with code 1: these are its last words."""
    with deaths_heard(print), caplog.at_level(logging.WARNING):
        says(RAYLET)
        says(RAYLET)
        says(MACHINE)

    raylet, machine = caplog.messages
    assert raylet.startswith("a raylet, Ray's own process on a machine, is gone")
    assert "committed shards are kept, run the same line again" in raylet
    assert machine == "the machine 192.0.2.7 is gone from the cluster"
    assert printed == []


def test_a_worker_that_died_is_a_heartbeat_and_all_else_is_printed_as_before(printed, caplog):
    """With its process, by which its shards are found."""
    heard = []

    with deaths_heard(heard.append), caplog.at_level(logging.WARNING):
        says(WORKER)
        says("memory ran out")
    says(RAYLET)

    assert [(beat.worker, beat.phase) for beat in heard] == [("77", WorkerPhase.DIED)]
    assert caplog.messages == []
    assert printed == ["memory ran out", RAYLET]


def test_the_installed_ray_still_says_so():
    """Its words are no interface."""
    assert RAYLET.split(".", maxsplit=1)[0] in inspect.getsource(
        process_watcher.report_raylet_error_logs
    )
