"""A clean stop: what is in flight is finished, the rest waits, and the same line goes on."""

from __future__ import annotations

import signal
import time

import pytest

from builders import a_source, rows, rows_out
from command import a_spec_file, batchrunner, start

SHARDS = 60


@pytest.fixture
def job(tmp_path):
    """Six seconds of work, a tenth of a second a shard."""
    a_source(tmp_path / "in", shards=SHARDS)
    a_spec_file(tmp_path, capability="capabilities:slow")
    return tmp_path


def commits(job):
    return len(list(job.glob("out/_checkpoint/sentinels/*.json")))


def wait_for_commits(job, process, count):
    wait_for(lambda: commits(job) >= count, process)


def wait_for(happened, process):
    deadline = time.monotonic() + 60
    while not happened():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)


def finishes(job):
    """The same line goes on and ends with all rows."""
    done = batchrunner("run", "spec.yaml", cwd=job)
    return done.returncode == 0 and rows_out(job / "out") == rows(0, 4 * SHARDS)


@pytest.mark.parametrize(
    ("number", "code", "engine"),
    [
        (signal.SIGINT, 130, "local"),
        (signal.SIGTERM, 143, "local"),
        pytest.param(signal.SIGINT, 130, "ray", marks=[pytest.mark.ray, pytest.mark.soak]),
        pytest.param(signal.SIGTERM, 143, "ray", marks=pytest.mark.ray),  # Ray takes it for itself
    ],
    ids=["SIGINT", "SIGTERM", "ray-SIGINT", "ray-SIGTERM"],
)
def test_a_signal_stops_cleanly(job, number, code, engine):
    """Kubernetes, Slurm and people all ask first."""
    a_spec_file(job, capability="capabilities:slow", execution={"engine": engine})
    with start("run", "spec.yaml", cwd=job) as process:
        wait_for_commits(job, process, 1)
        process.send_signal(number)
        _, stderr = process.communicate(timeout=60)

    assert process.returncode == code, stderr
    assert "stopping: the shards in flight are finished first" in stderr
    assert "next: batchrunner run spec.yaml" in stderr
    assert "Traceback" not in stderr
    assert 0 < commits(job) < SHARDS
    assert not list(job.glob("out/.staging/*.tmp"))
    assert finishes(job)


def test_a_second_ctrl_c_stops_at_once(job):
    """Whoever asks twice means it."""
    waits = {"target": "capabilities:waits_for_a_file", "fn_kwargs": {"path": f"{job}/never"}}
    a_spec_file(job, capability=waits)
    with start("run", "spec.yaml", cwd=job) as process:
        wait_for(lambda: list(job.glob("never-by-*")), process)  # before a call, one is enough
        process.send_signal(signal.SIGINT)
        began = time.monotonic()
        time.sleep(0.5)
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate(timeout=60)

    assert process.returncode == 130, stderr
    assert time.monotonic() - began < 10
    assert "Traceback" not in stderr
    assert commits(job) == 0


def test_max_runtime_ends_with_75(job):
    """A scheduler that sees 75 runs the same line again."""
    execution = {"engine": "local", "max_runtime": "2s"}
    a_spec_file(job, capability="capabilities:slow", execution=execution)

    codes = []
    while not codes or codes[-1] == 75:
        codes.append(batchrunner("run", "spec.yaml", cwd=job).returncode)

    assert codes[0] == 75
    assert codes[-1] == 0
    assert rows_out(job / "out") == rows(0, 4 * SHARDS)


def test_a_driver_that_lost_its_lease_stops(job):
    """Somebody took over while this one could not renew: it has no right to go on."""
    from batchrunner.checkpoint.lease import Lease, Owner
    from batchrunner.storage import open_storage

    with start("run", "spec.yaml", cwd=job) as process:
        wait_for_commits(job, process, 1)
        usurper = Lease(2, Owner("x", "elsewhere", "boot", 1, "1"), released=True)
        storage = open_storage(str(job / "out/_checkpoint"))
        assert storage.put_if_absent({usurper.key: usurper.to_bytes()})
        _, stderr = process.communicate(timeout=60)

    assert process.returncode == 4, stderr
    assert finishes(job)
