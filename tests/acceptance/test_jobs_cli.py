"""`batchrunner jobs`: from submit to the end, as a person or a script sees it."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from builders import a_source
from command import ENVIRONMENT, a_spec_file, batchrunner
from job_processes import a_client, first_line_of, kill_with_all_below
from patience import PATIENCE

pytestmark = pytest.mark.ray

HOLD = """
    import ray
    configure()
    jobs = {
        "failed": submit_capability(Scoring("failed", fails="five is right out")),
        "completed": submit_capability(Scoring("completed"), job_name="good"),
        "pending": submit_capability(Scoring("pending"), resources={"num_cpus": 500}),
    }
    jobs["failed"].wait(240), jobs["completed"].wait(240)
    ids = {name: job.job_id for name, job in jobs.items()}
    say(json.dumps({**ids, "address": ray.get_runtime_context().gcs_address}))
    time.sleep(3600)
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("cli")


@pytest.fixture(scope="module")
def ids(place):
    """A cluster with three jobs in it, and their ids."""
    options = {
        "address": "local",
        "idempotency_scope": "cli",
        "analytics_store": {"uri": str(place / "store")},
    }
    holder = a_client(HOLD, options, cwd=place)
    try:
        yield json.loads(first_line_of(holder))
    finally:
        kill_with_all_below(holder)
        holder.communicate()


def jobs(ids, place, *arguments):
    return batchrunner(
        "jobs",
        *arguments,
        cwd=place,
        RAY_ADDRESS=ids["address"],
        BATCHRUNNER_STORE=str(place / "store"),
        BATCHRUNNER_SCOPE="cli",
    )


def test_a_job_from_submit_to_its_end(ids, place):
    """The same spec twice is the same job; its output is there, its record too."""
    a_source(place / "in")
    spec = a_spec_file(place)

    done = jobs(ids, place, "submit", spec, "--wait", "-o", "json")
    again = jobs(ids, place, "submit", spec, "-o", "json")

    assert done.returncode == 0, done.stderr
    finished = json.loads(done.stdout)
    assert (finished["status"], finished["name"]) == ("completed", "batch/spec")
    assert json.loads(again.stdout)["job_id"] == finished["job_id"]
    assert (place / "out/_SUCCESS").exists()
    logs = jobs(ids, place, "logs", finished["job_id"])
    assert "session_ended" in logs.stdout


def test_listing_waiting_and_cancelling_have_exit_codes_for_scripts(ids, place):
    """0 done, 1 failed, 2 no such job, 75 not yet."""
    listed = jobs(ids, place, "list", "--status", "failed", "--status", "pending", "-o", "jsonl")
    found = [json.loads(line) for line in listed.stdout.splitlines()]
    assert [job["job_id"] for job in found] == [ids["pending"], ids["failed"]]
    assert found[1]["error"] == "ValueError: five is right out"

    patience = {"failed": PATIENCE, "completed": PATIENCE, "pending": 0.2}
    waited = [jobs(ids, place, "wait", ids[name], "--timeout", patience[name]) for name in patience]
    assert [done.returncode for done in waited] == [1, 0, 75], waited
    assert jobs(ids, place, "get", "nobody").returncode == 2
    assert jobs(ids, place, "cancel", ids["pending"]).returncode == 0
    assert jobs(ids, place, "cancel", ids["completed"]).returncode == 1
    csv = jobs(ids, place, "get", ids["completed"], "-o", "csv").stdout.splitlines()
    assert csv[1].startswith(f"{ids['completed']},good,completed,")


def test_without_a_cluster_it_says_so(place):
    """Exit 3, in seconds, with the address."""
    done = batchrunner(
        *("jobs", "list", "--scope", "s", "--store", str(place / "s"), "--address", "127.0.0.1:1"),
        cwd=place,
    )

    assert done.returncode == 3
    assert "127.0.0.1:1" in done.stderr
    assert done.stdout == ""


def test_help_loads_neither_ray_nor_pyarrow():
    """It answers at once."""
    code = (
        "import sys; from batchrunner.cli.main import batchrunner\n"
        "batchrunner.main(['jobs', 'submit', '--help'], standalone_mode=False)\n"
        "assert not {'ray', 'pyarrow', 'pandas', 's3fs'} & sys.modules.keys(), sys.modules.keys()\n"
    )
    subprocess.run([sys.executable, "-c", code], env=ENVIRONMENT, check=True, capture_output=True)
    code = (
        "import sys, batchrunner.jobs; assert not {'ray', 'pyarrow', 's3fs'} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", code], env=ENVIRONMENT, check=True, capture_output=True)
