"""The job contract, kept by the backend "in-process"; and backends that come from outside the package."""

import sys
import types
import uuid

import pytest

from batchrunner.errors import CannotStartError, InvalidSpecError
from batchrunner.jobs import (
    JobFailedError,
    JobStatus,
    configure_job_backend,
    job_thread,
    list_jobs,
    register_job_backend,
    shutdown_job_backend,
    submit_capability,
)
from batchrunner.jobs.backend import backend_class
from batchrunner.jobs.in_process import InProcessBackend
from batchrunner.jobs.journal import Journal
from batchrunner.testing.jobs_contract import JobsContract, OneJobPerRunContract
from job_capabilities import IgnoresInterrupts, Scoring
from job_processes import a_client, said_by, wait_for

LONG = 120


class TestInProcess(JobsContract, OneJobPerRunContract):
    kind = "in-process"

    @pytest.fixture
    def options(self, tmp_path):
        return {"analytics_store": {"uri": str(tmp_path / "store")}, "num_cpus": 8}


@pytest.fixture
def options(tmp_path):
    yield {"analytics_store": {"uri": str(tmp_path / "store")}}
    shutdown_job_backend(wait=False)


@pytest.fixture
def tag():
    return uuid.uuid4().hex[:12]


class OurBackend(InProcessBackend):
    """As a package outside would have it."""


@pytest.fixture
def package(monkeypatch):
    """The module of a package outside."""
    module = types.ModuleType("our_jobs")
    module.OurBackend = OurBackend
    monkeypatch.setitem(sys.modules, "our_jobs", module)


@pytest.mark.usefixtures("package")
def test_a_backend_that_was_registered_runs_jobs(options, tag):
    """A name and a target are all that it takes; repeating it is harmless."""
    for _ in range(2):
        register_job_backend("ours", "our_jobs:OurBackend")

    configure_job_backend("ours", **options)

    assert submit_capability(Scoring(tag)).result(LONG).run_uid == f"run-scoring.{tag}"


@pytest.mark.usefixtures("package")
def test_an_installed_package_brings_its_backend_along(tmp_path, monkeypatch):
    """By an entry point; and it is among the kinds that an error lists."""
    info = tmp_path / "our_jobs-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: our-jobs\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[batchrunner.job_backends]\ninstalled = our_jobs:OurBackend\n"
    )
    monkeypatch.syspath_prepend(tmp_path)

    assert backend_class("installed") is OurBackend
    with pytest.raises(InvalidSpecError, match=r"the kinds are: ray, .*installed"):
        backend_class("slurm")


def test_a_name_stands_for_one_backend():
    """Another package does not take "ray" over in silence."""
    with pytest.raises(
        InvalidSpecError, match=r"'ray' is batchrunner\.jobs\.ray_backend:RayBackend"
    ):
        register_job_backend("ray", "our_jobs:OurBackend")
    with pytest.raises(InvalidSpecError, match="'module:Class'"):
        register_job_backend("ours", "our_jobs")


def test_a_backend_that_cannot_be_imported_is_named_with_its_target(options):
    """The environment is to be mended, not the options."""
    register_job_backend("missing", "no_such_package:Backend")

    with pytest.raises(
        CannotStartError, match=r"'missing' is no_such_package:Backend, which cannot"
    ):
        configure_job_backend("missing", **options)


def test_a_job_that_was_just_claimed_is_not_taken_for_a_lost_one(options, tag, monkeypatch):
    """A listing finds its claim in the journal before its thread has started."""
    claim, listed = Journal.claim, []

    def claim_and_list(journal, submission):
        claimed = claim(journal, submission)
        listed.extend(job.status for job in list_jobs())
        return claimed

    monkeypatch.setattr(Journal, "claim", claim_and_list)
    configure_job_backend("in-process", **options)

    assert submit_capability(Scoring(tag)).wait(LONG) is JobStatus.COMPLETED
    assert listed == [JobStatus.PENDING]


def test_code_that_catches_everything_is_not_cancelled(options, tag, tmp_path, monkeypatch):
    """`cancel` says so, in time, and the job goes on to its end."""
    monkeypatch.setattr(job_thread, "_CANCEL_SECONDS", 0.1)
    began, gate = tmp_path / "began", tmp_path / "gate"
    configure_job_backend("in-process", **options)
    job = submit_capability(IgnoresInterrupts(tag, began=str(began), gate=str(gate)))
    wait_for(began.exists)

    assert job.cancel() is False
    assert job.status is JobStatus.RUNNING
    gate.touch()
    assert job.wait(LONG) is JobStatus.COMPLETED


def test_the_jobs_of_a_process_that_died_have_failed_and_those_of_one_that_lives_are_waited_for(
    options, tag, tmp_path
):
    """The journal outlives the process; what ran in it is known to be lost at once."""
    gate = tmp_path / "gate"
    code = f"""
        configure(kind="in-process")
        job = submit_capability(Scoring({tag!r}, until={str(gate)!r}))
        job.wait(60)
        say("\\n" + job.status.value)
    """
    configure_job_backend("in-process", **options)
    living = a_client(code, options, cwd=tmp_path)
    wait_for(list_jobs)
    (job,) = list_jobs()
    assert job.status is JobStatus.RUNNING
    assert submit_capability(Scoring(tag)).job_id == job.job_id
    gate.touch()
    assert job.wait(LONG) is JobStatus.COMPLETED
    assert said_by(living)[-1] == "completed"

    gate.unlink()
    dying = a_client(code.replace(tag, f"{tag}.dying"), options, cwd=tmp_path)
    wait_for(lambda: len(list_jobs()) == 2)
    (job,) = list_jobs(limit=1)
    dying.kill()
    dying.communicate()
    with pytest.raises(JobFailedError, match=r"the process that ran the job is gone.*submit"):
        job.result(LONG)
    assert submit_capability(Scoring(f"{tag}.dying")).wait(LONG) is JobStatus.COMPLETED
