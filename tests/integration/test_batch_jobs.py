"""A whole batch as a job: it outlives its submitter, its worker and its node."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import uuid
from pathlib import Path

import psutil
import pytest

from batchrunner.analytics import open_store
from batchrunner.jobs import (
    BatchCapability,
    JobFailedError,
    JobStatus,
    configure_job_backend,
    shutdown_job_backend,
    submit_capability,
)
from builders import a_source, a_spec, rows, rows_out
from command import ENVIRONMENT
from job_processes import a_client, end_registry, first_line_of, said_by, wait_for
from patience import PATIENCE

pytestmark = pytest.mark.ray

LONG = PATIENCE
TESTS = Path(__file__).parents[1]


@pytest.fixture
def options(local_ray, tmp_path):
    """A scope of its own; this process configured."""
    given = {
        "analytics_store": {"uri": str(tmp_path / "store")},
        "idempotency_scope": uuid.uuid4().hex,
    }
    configure_job_backend("ray", **given)
    yield {**given, "address": local_ray.get_runtime_context().gcs_address}
    shutdown_job_backend(wait=False)
    end_registry(given["idempotency_scope"])


def a_slow_spec(folder, **changes):
    """0.1 s a batch, so that something is left to do when a process dies."""
    a_source(folder / "in", shards=12, rows_per_shard=2)
    return a_spec(folder, **{"capability": "capabilities:slow", **changes})


def parts(folder):
    return len(list(folder.glob("out/part-*")))


def test_a_batch_runs_in_the_cluster_that_its_job_is_in(options, tmp_path):
    """It starts no Ray of its own, takes no CPU from its workers, and is recorded."""
    a_source(tmp_path / "in", shards=4)
    spec = a_spec(tmp_path, capability="capabilities:double", execution={"engine": "ray"})

    ref = submit_capability(BatchCapability(spec)).result(LONG)

    assert [{**row, "id": 2 * row["id"]} for row in rows(0, 16)] == rows_out(tmp_path / "out")
    run = open_store(ref).read_run(ref)
    assert (ref.capability_id, ref.outputs_uri) == ("batch/test", str(tmp_path / "out"))
    assert [(r["shards"], r["rows_out"]) for r in run.records["batch_runs"]] == [(4, 16)]


@pytest.mark.usefixtures("options")
def test_the_same_spec_is_the_same_job(tmp_path):
    """Until a user asks for another edition: the source has grown."""
    spec = a_slow_spec(tmp_path)
    first = submit_capability(BatchCapability(spec))
    assert submit_capability(BatchCapability(spec)).job_id == first.job_id
    first.result(LONG)
    a_source(tmp_path / "in", shards=13, rows_per_shard=2)

    assert submit_capability(BatchCapability(spec)).job_id == first.job_id
    second = submit_capability(BatchCapability(spec, edition="grown"))

    assert second.result(LONG).run_uid == f"{first.result().run_uid}-grown"
    assert parts(tmp_path) == 13


@pytest.mark.usefixtures("options")
def test_a_batch_whose_worker_is_killed_goes_on_from_its_checkpoint(tmp_path):
    """By itself: no client submits it again."""
    a_source(tmp_path / "in", shards=12, rows_per_shard=2)
    logs = {
        "target": "capabilities:LogsCallsSlowly",
        "fn_constructor_kwargs": {"path": str(tmp_path / "calls")},
    }
    job = submit_capability(BatchCapability(a_spec(tmp_path, capability=logs)))
    wait_for(lambda: parts(tmp_path) >= 3)

    workers = [p for p in psutil.process_iter(["cmdline"]) if is_driving(p, "batch/test")]
    assert len(workers) == 1
    workers[0].kill()

    assert job.wait(LONG) is JobStatus.COMPLETED
    assert rows(0, 24) == rows_out(tmp_path / "out")
    calls = (tmp_path / "calls").read_text().split()
    assert len(calls) < 24 + 12, "what was committed was not computed again"


def is_driving(process, name):
    """Return whether Ray runs the job *name* in *process*, below this process or beside it."""
    command = " ".join(process.info["cmdline"] or ())
    return command.startswith(f"ray::job {name}") and os.getpid() in {
        parent.pid for parent in process.parents()
    }


def test_a_batch_outlives_the_sigkill_of_its_submitter(options, tmp_path):
    """The next client that submits it gets the same job, and its end."""
    spec = a_slow_spec(tmp_path)
    code = f"""
        from builders import a_spec
        from pathlib import Path
        configure()
        spec = a_spec(Path({str(tmp_path)!r}), capability="capabilities:slow")
        job = submit_capability(BatchCapability(spec))
        wait_for(lambda: list(Path({str(tmp_path)!r}).glob("out/part-*")))
        say(job.job_id)
        time.sleep(600)
    """
    submitter = a_client(code, options, cwd=tmp_path)
    job_id = first_line_of(submitter)
    submitter.kill()
    said_by(submitter, code=-signal.SIGKILL)

    job = submit_capability(BatchCapability(spec))

    assert job.job_id == job_id
    assert job.wait(LONG) is JobStatus.COMPLETED
    assert rows(0, 24) == rows_out(tmp_path / "out")


@pytest.mark.usefixtures("options")
def test_a_batch_with_failed_shards_is_a_failed_job_that_kept_the_others(tmp_path):
    """And says which; submitting it again tries these only."""
    a_source(tmp_path / "in", shards=4)
    fails = {"target": "capabilities:fails_until", "fn_kwargs": {"path": str(tmp_path / "ok")}}
    spec = a_spec(tmp_path, capability=fails, errors={"on_row_error": "fail"})

    with pytest.raises(JobFailedError, match=r"3 of 4 shards are committed.*five is right out"):
        submit_capability(BatchCapability(spec)).result(LONG)
    (tmp_path / "ok").touch()

    assert submit_capability(BatchCapability(spec)).wait(LONG) is JobStatus.COMPLETED
    assert rows(0, 16) == rows_out(tmp_path / "out")


@pytest.mark.usefixtures("options")
def test_a_batch_whose_rows_fail_says_why_and_what_mends_it(tmp_path):
    """The reader of that sees the job alone, and submitting it again would mend no row."""
    a_source(tmp_path / "in", shards=1)
    spec = a_spec(tmp_path, capability="capabilities:fails_always")
    job = submit_capability(BatchCapability(spec))

    with pytest.raises(JobFailedError, match="too many rows failed: 4 of 4") as caught:
        job.result(LONG)

    said = str(caught.value)
    assert "ValueError: every row is wrong" in said
    assert "batchrunner errors SPEC" in said
    assert "`batchrunner retry --rows SPEC` on a machine with the spec, then submit" in said
    assert "what the workers print and log: batchrunner logs SPEC" in job.logs()


WORDS = "def said(rows):\n    return [{**row, 'said': %r} for row in %s]\n"


@pytest.mark.usefixtures("options")
def test_code_that_changed_is_refused_rather_than_mixed_into_what_is_committed(
    tmp_path, monkeypatch
):
    """The user did not say that it is the mended one; `batchrunner retry` is there to say so."""
    a_source(tmp_path / "in")
    monkeypatch.syspath_prepend(tmp_path)
    spec = a_spec(tmp_path, capability="words:said", errors={"on_row_error": "fail"})
    second = "([1 / 0] if any(row['id'] == 5 for row in rows) else rows)"
    (tmp_path / "words.py").write_text(WORDS % ("old", second))
    with pytest.raises(JobFailedError, match="2 of 3 shards are committed"):
        submit_capability(BatchCapability(spec)).result(LONG)

    (tmp_path / "words.py").write_text(WORDS % ("new", "rows"))
    with pytest.raises(JobFailedError, match=r"SpecChangedError(.|\n)*capability.code"):
        submit_capability(BatchCapability(spec)).result(LONG)

    assert {row["said"] for row in rows_out(tmp_path / "out")} == {"old"}
    assert not (tmp_path / "out/_SUCCESS").exists()


@pytest.mark.usefixtures("options")
def test_a_complete_batch_is_not_completed_for_other_code(tmp_path, monkeypatch):
    """Its output is of the old code; and the old code's job is still the one that completed."""
    a_source(tmp_path / "in")
    monkeypatch.syspath_prepend(tmp_path)
    spec = a_spec(tmp_path, capability="words:said")
    (tmp_path / "words.py").write_text(WORDS % ("old", "rows"))
    submit_capability(BatchCapability(spec)).result(LONG)

    (tmp_path / "words.py").write_text(WORDS % ("new", "rows"))

    with pytest.raises(JobFailedError, match=r"capability.code(.|\n)*run that on a machine"):
        submit_capability(BatchCapability(spec)).result(LONG)


def test_a_batch_whose_node_is_removed_goes_on_on_another(tmp_path):
    """Two raylets on this machine; the one that drives the batch dies without a word."""
    a_source(tmp_path / "in", shards=30, rows_per_shard=2)
    done = subprocess.run(
        [sys.executable, str(TESTS / "two_nodes.py"), str(tmp_path)],
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )

    assert done.returncode == 0, done.stdout + done.stderr
    assert "completed True True batch/test" in done.stdout
    assert rows(0, 60) == rows_out(tmp_path / "out")
