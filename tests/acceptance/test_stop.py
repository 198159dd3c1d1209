"""A clean stop: what is in flight is finished, the rest waits, and the same line goes on."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from builders import a_source, rows, rows_out
from command import ENVIRONMENT, a_spec_file, batchrunner, start
from patience import PATIENCE

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


def wait_for(happened, process=None):
    deadline = time.monotonic() + PATIENCE
    while not happened():
        assert process is None or process.poll() is None, process.communicate()
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
        _, stderr = process.communicate(timeout=PATIENCE)

    assert process.returncode == code, stderr
    assert "stopping: the shards in flight are finished first" in stderr
    assert "next: batchrunner run spec.yaml" in stderr
    assert "Traceback" not in stderr
    assert 0 < commits(job) < SHARDS
    assert not list(job.glob("out/.staging/*.tmp"))
    assert finishes(job)


def hangs(job, **execution):
    """A call that never returns, whatever is raised in it."""
    target = {"target": "capabilities:hangs", "fn_kwargs": {"path": f"{job}/never"}}
    a_spec_file(job, capability=target, execution={"engine": "local", **execution})


def processes_in_calls(job):
    return [int(path.name.rpartition("-")[2]) for path in job.glob("never-by-*")]


def is_released(job):
    leases = [json.loads(path.read_bytes()) for path in job.glob("out/_checkpoint/lease/*.json")]
    return [lease["released"] for lease in leases] == [True]


@pytest.mark.parametrize(
    ("number", "code", "engine"),
    [
        (signal.SIGINT, 130, "local"),
        (signal.SIGTERM, 143, "local"),
        pytest.param(signal.SIGINT, 130, "ray", marks=[pytest.mark.ray, pytest.mark.soak]),
    ],
    ids=["SIGINT", "SIGTERM", "ray-SIGINT"],
)
def test_a_second_signal_drops_the_call_and_says_what_happened(job, number, code, engine):
    """A user who asks twice means it, and needs the next command as much as others."""
    hangs(job, engine=engine, grace_period="24h")
    with start("run", "spec.yaml", cwd=job, group=True) as process:
        wait_for(lambda: processes_in_calls(job), process)  # before a call, one is enough
        os.killpg(process.pid, number)
        wait_for(lambda: list(job.glob("out/_checkpoint/sessions/*.stop")), process)
        os.killpg(process.pid, number)
        _, stderr = process.communicate(timeout=PATIENCE)

    assert process.returncode == code, stderr
    assert f"stopped ({number.name}): 0 of 60 shards committed" in stderr
    assert "next: batchrunner run spec.yaml" in stderr
    assert "Traceback" not in stderr
    assert is_released(job)


@pytest.mark.parametrize(
    ("engine", "max_runtime", "code"),
    [
        ("local", None, 143),
        ("local", "1s", 75),
        pytest.param("ray", None, 143, marks=pytest.mark.ray),
    ],
    ids=["SIGTERM", "max_runtime", "ray"],
)
def test_a_call_that_hangs_holds_no_stop_up_for_longer_than_the_grace_period(
    job, engine, max_runtime, code
):
    """It took 37 s. Kubernetes kills after 30, and the next pod waited for the lease of this one."""
    hangs(job, engine=engine, max_runtime=max_runtime, grace_period="5s")
    with start("run", "spec.yaml", cwd=job) as process:
        began = time.monotonic()
        if not max_runtime:
            wait_for(lambda: processes_in_calls(job), process)
            began = time.monotonic()
            process.terminate()
        while process.poll() is None and not is_released(job):
            time.sleep(0.02)
        took = time.monotonic() - began
        _, stderr = process.communicate(timeout=PATIENCE)

    assert process.returncode == code, stderr
    assert took < 30  # 5 s, and those that a busy machine adds
    assert "0 of 60 shards committed" in stderr
    assert "next: batchrunner run spec.yaml" in stderr
    assert is_released(job)
    wait_for_end_of(processes_in_calls(job))


@pytest.mark.parametrize("by", ["SIGTERM", "max_runtime"])
def test_a_call_that_holds_the_interpreter_is_ended_with_its_process(job, by):
    """A regular expression gone wrong lets no thread and no handler of its process run, for days."""
    (job / "holds.py").write_text(
        "import pathlib, re\n"
        "def f(rows):\n"
        "    pathlib.Path('begun').touch()\n"
        "    re.match('(a+)+$', 'a' * 60 + 'b')\n"
    )
    a_spec_file(job, capability="holds:f", execution={"engine": "local", "grace_period": "3s"})
    # A busy machine may take longer than a session has before it makes the call.
    for seconds in (1, 8, 64) if by == "max_runtime" else (PATIENCE,):
        limit = f"execution.max_runtime={seconds}s"
        with start("run", "spec.yaml", "--set", limit, cwd=job) as process:
            wait_for(lambda p=process: (job / "begun").exists() or p.poll() is not None)
            if by == "SIGTERM":
                process.terminate()
            _, stderr = process.communicate(timeout=PATIENCE)
        if (job / "begun").exists():
            break

    assert process.returncode == -signal.SIGKILL, stderr
    assert "next: batchrunner run spec.yaml" in stderr
    a_spec_file(job)
    assert batchrunner("run", "spec.yaml", "--fresh", cwd=job).returncode == 0


def test_what_hangs_in_the_main_thread_is_ended_too_with_the_next_command(job):
    """The module of the capability waits for a server; no loop of ours gets to look at a clock."""
    (job / "waits.py").write_text(
        "import pathlib, time\n"
        "def f(rows): return rows\n"
        "pathlib.Path('begun').touch()\n"
        "while True:\n"
        "    try:\n"
        "        time.sleep(60)\n"
        "    except BaseException:\n"
        "        pass\n"
    )
    # The driver imports it before it starts Ray.
    a_spec_file(job, capability="waits:f", execution={"engine": "ray", "grace_period": "2s"})
    with start("run", "spec.yaml", cwd=job) as process:
        wait_for((job / "begun").exists, process)
        process.terminate()
        _, stderr = process.communicate(timeout=PATIENCE)

    assert process.returncode == 143, stderr
    assert "stopped (SIGTERM)" in stderr
    assert "next: batchrunner run spec.yaml" in stderr
    assert is_released(job)


@pytest.mark.ray
def test_a_signal_to_the_process_group_while_ray_starts_is_a_stop(job):
    """It hits Ray's processes as well; that is no Ray that "cannot be used"."""
    a_spec_file(job, execution={"engine": "ray"})
    with start("run", "spec.yaml", cwd=job, group=True) as process:
        wait_for(lambda: "gcs_server" in commands_of_children(process.pid), process)
        children = children_of(process.pid)
        os.killpg(process.pid, signal.SIGTERM)
        _, stderr = process.communicate(timeout=PATIENCE)

    assert process.returncode == 143, stderr
    assert "stopped (SIGTERM): 0 of 60 shards committed" in stderr
    assert "next: batchrunner run spec.yaml" in stderr
    assert is_released(job)
    wait_for_end_of(children)


def children_of(pid):
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            if int(stat.read_text().rpartition(")")[2].split()[1]) == pid:
                found.append(int(stat.parent.name))
    return found


def commands_of_children(pid):
    with contextlib.suppress(OSError):  # one of them has ended meanwhile
        return " ".join(Path(f"/proc/{n}/cmdline").read_text() for n in children_of(pid))
    return ""


def wait_for_end_of(pids):
    deadline = time.monotonic() + PATIENCE
    while not all(map(has_ended, pids)):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def has_ended(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except OSError:
        return True


def test_max_runtime_ends_with_75(job):
    """A scheduler that sees 75 runs the same line again."""
    a_spec_file(job, capability="capabilities:slow", execution={"engine": "local"})

    codes = []
    while not codes or codes[-1] == 75:
        limit = f"execution.max_runtime={2 + len(codes)}s"  # a busy machine starts in more than two
        codes.append(batchrunner("run", "spec.yaml", "--set", limit, cwd=job).returncode)

    assert codes[0] == 75
    assert codes[-1] == 0
    assert rows_out(job / "out") == rows(0, 4 * SHARDS)


def test_a_driver_that_lost_its_lease_stops(job):
    """Another driver took over while this one could not renew: it has no right to go on."""
    from batchrunner.checkpoint.lease import Lease, LeaseOwner
    from batchrunner.storage import open_storage

    with start("run", "spec.yaml", cwd=job) as process:
        wait_for_commits(job, process, 1)
        usurper = Lease(2, LeaseOwner("x", "elsewhere", "boot", 1, "1"), released=True)
        storage = open_storage(str(job / "out/_checkpoint"))
        assert storage.put_if_absent({usurper.key: usurper.to_bytes()})
        _, stderr = process.communicate(timeout=PATIENCE)

    assert process.returncode == 4, stderr
    assert finishes(job)


def test_an_error_that_ends_a_session_while_ray_starts_is_printed(tmp_path):
    """Ray keeps descriptor 2 to itself while it starts, and a thread of its may still do so."""
    code = """
import os, sys
from batchrunner.cli.stopping import Watch
from batchrunner.driver.session import Stop
try:
    with Watch(Stop(max_runtime=None), forced_text=str, killed_text=""):
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        raise KeyError
except KeyError:
    print("what happened", file=sys.stderr)
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        check=False,
        env=ENVIRONMENT,
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )

    assert (done.returncode, done.stderr) == (0, "what happened\n")
