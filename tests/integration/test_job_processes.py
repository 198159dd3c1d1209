"""Jobs seen from several processes, and what is left when some of them are killed."""

from __future__ import annotations

import json
import os
import signal
import sys
import uuid
from concurrent.futures import ThreadPoolExecutor

import pytest

from batchrunner.analytics import open_store
from batchrunner.jobs import (
    JobFailedError,
    JobStatus,
    configure_job_backend,
    get_job,
    list_jobs,
    shutdown_job_backend,
    submit_capability,
)
from job_capabilities import Scoring
from job_processes import (
    a_client,
    a_head,
    end_registry,
    first_line_of,
    free_ports,
    kill_with_all_below,
    registry_process,
    said_by,
    wait_for,
)
from patience import PATIENCE
from privilege import obeying_permissions

pytestmark = pytest.mark.ray

LONG = PATIENCE


@pytest.fixture
def tag():
    return uuid.uuid4().hex[:12]


@pytest.fixture
def options(tmp_path, tag):
    """A scope of its own, so that its registry can be killed."""
    return {"analytics_store": {"uri": str(tmp_path / "store")}, "idempotency_scope": tag}


@pytest.fixture
def joined(local_ray, options):
    """This process configured; and the options with which others join its cluster."""
    configure_job_backend("ray", **options)
    yield {**options, "address": local_ray.get_runtime_context().gcs_address}
    shutdown_job_backend(wait=False)
    end_registry(options["idempotency_scope"])


def executions(folder):
    return len(list(folder.iterdir())) if folder.exists() else 0


def test_threads_and_processes_that_submit_one_run_get_one_job(joined, tag, tmp_path):
    """Eight threads here, three processes there, at once: one execution, one id."""
    gate = tmp_path / "gate"
    code = f"""
        configure()
        say("ready")
        wait_for(lambda: os.path.exists({str(gate)!r}))
        job = submit_capability(Scoring({tag!r}, calls={str(tmp_path / "calls")!r}))
        say(job.job_id, job.result(60).run_uid)
    """
    processes = [a_client(code, joined, cwd=tmp_path) for _ in range(3)]
    for process in processes:
        assert first_line_of(process) == "ready"
    gate.touch()
    capability = Scoring(tag, calls=str(tmp_path / "calls"))
    with ThreadPoolExecutor(8) as pool:
        jobs = list(pool.map(lambda _: submit_capability(capability), range(8)))

    said = [line for process in processes for line in said_by(process)]
    ids = {f"{job.job_id} {job.result(LONG).run_uid}" for job in jobs}
    assert ids == set(said)
    assert len(ids) == 1
    assert executions(tmp_path / "calls") == 1


def test_a_job_outlives_the_sigkill_of_its_submitter(joined, tag, tmp_path):
    """Another process lists it, waits for it, and gets its result."""
    gate = tmp_path / "gate"
    code = f"""
        configure()
        job = submit_capability(Scoring({tag!r}, until={str(gate)!r}), job_name="left alone")
        wait_for(lambda: job.status is JobStatus.RUNNING)
        say(job.job_id)
        time.sleep(600)
    """
    submitter = a_client(code, joined, cwd=tmp_path)
    job_id = first_line_of(submitter)
    submitter.kill()
    said_by(submitter, code=-signal.SIGKILL)

    (job,) = list_jobs()
    assert (job.job_id, job.job_name, job.status) == (job_id, "left alone", JobStatus.RUNNING)
    gate.touch()
    assert job.result(LONG).run_uid == f"run-scoring.{tag}"


def test_a_job_that_was_pending_when_its_submitter_was_killed_runs_all_the_same(
    joined, tag, tmp_path
):
    """It waits in the cluster, not in the process that asked for it."""
    hog = submit_capability(
        Scoring(f"{tag}.hog", until=str(tmp_path / "gate")), resources={"num_cpus": 2}
    )
    wait_for(lambda: hog.status is JobStatus.RUNNING)
    code = f"""
        configure()
        say(submit_capability(Scoring({tag!r}, ballast=b"x" * 200_000)).job_id)
        time.sleep(600)
    """
    submitter = a_client(code, joined, cwd=tmp_path)
    job_id = first_line_of(submitter)
    submitter.kill()
    said_by(submitter, code=-signal.SIGKILL)

    assert get_job(job_id).status is JobStatus.PENDING
    (tmp_path / "gate").touch()
    assert get_job(job_id).wait(LONG) is JobStatus.COMPLETED


def test_what_was_typed_into_a_notebook_runs_too(joined, tag, tmp_path):
    """Classes that no worker can import, records among them; the identity is the capability's id."""
    code = f"""
        from batchrunner.analytics import CompletedRun, Record, open_store

        class Count(Record, table_name="count"):
            words: int

        class Counting:
            id = "notebook.{tag}"

            def run(self, models=None, datasets=None, metrics=None, config=None, use_cache=False):
                return CompletedRun(self.id, self.id, [Count(run_uid=self.id, words=7)])

        configure()
        ref = submit_capability(Counting()).result(60)
        say(open_store(ref).read_run(ref).records["count"][0]["words"])
    """
    assert said_by(a_client(code, joined, cwd=tmp_path)) == ["7"]


def test_another_process_cancels_a_job(joined, tag, tmp_path):
    """And whoever submitted it sees that."""
    beats = tmp_path / "beats"
    job = submit_capability(Scoring(tag, until=str(tmp_path / "never"), beats=str(beats)))
    wait_for(beats.exists)

    code = f"configure(); say(get_job({job.job_id!r}).cancel())"
    assert said_by(a_client(code, joined, cwd=tmp_path)) == ["True"]

    assert job.status is JobStatus.CANCELLED


def test_a_killed_registry_forgets_nothing(joined, tag, tmp_path):
    """Completed jobs are listed, deduplicated and readable, and the next run is no different."""
    capability = Scoring(tag, calls=str(tmp_path / "calls"))
    job = submit_capability(capability)
    ref = job.result(LONG)
    _, process = registry_process(tag)

    process.kill()

    assert [found.job_id for found in list_jobs()] == [job.job_id]
    assert get_job(job.job_id).result() == ref
    assert submit_capability(capability).job_id == job.job_id
    assert executions(tmp_path / "calls") == 1
    assert submit_capability(Scoring(f"{tag}.next")).wait(LONG) is JobStatus.COMPLETED


def test_a_job_dies_with_its_registry_and_says_so(joined, tag, tmp_path):
    """FAILED within seconds, whoever waits; not run twice unless that was allowed; free again."""
    calls = tmp_path / "calls"
    never = Scoring(tag, until=str(tmp_path / "never"), calls=str(calls))
    job = submit_capability(never)
    wait_for(lambda: executions(calls) == 1)  # a job that is RUNNING may not have come so far
    _, process = registry_process(tag)

    process.kill()

    with pytest.raises(JobFailedError, match="the registry that ran the job died"):
        job.result(LONG)
    again = submit_capability(Scoring(tag, calls=str(calls)))
    assert again.job_id != job.job_id
    assert again.wait(LONG) is JobStatus.COMPLETED
    assert executions(calls) == 2


@pytest.mark.parametrize("ballast", [0, 17 << 20])
def test_a_job_with_retries_left_outlives_its_registry(joined, tag, tmp_path, ballast):
    """The next registry starts it again, even if nobody asks; the attempts are counted durably.

    However large its call is; which is nowhere to be read, and gone when the job has ended.
    """
    del joined["address"]
    configure_job_backend("ray", **joined, max_retries=1)
    calls, gate, canary = tmp_path / "calls", tmp_path / "gate", b"SECRET" * (ballast // 6)
    job = submit_capability(Scoring(tag, until=str(gate), calls=str(calls), ballast=canary))
    wait_for(lambda: executions(calls) == 1, what="the first attempt")
    kept = list((tmp_path / "store").rglob("*.payload"))
    assert [b"SECRET" in path.read_bytes() for path in kept] == [False] * bool(ballast)
    _, process = registry_process(tag)

    process.kill()

    wait_for(lambda: executions(calls) == 2, what="the second attempt")
    registry_process(tag)[1].kill()
    with pytest.raises(JobFailedError, match="the registry that ran the job died"):
        job.result(LONG)
    assert not [path for path in kept if path.exists()]


def test_a_kept_call_that_was_changed_is_not_run(joined, tag, tmp_path):
    """It is a pickle: who may write to the store may not run code on the cluster."""
    del joined["address"]
    configure_job_backend("ray", **joined, max_retries=1)
    calls = tmp_path / "calls"
    never = Scoring(tag, until=str(tmp_path / "never"), calls=str(calls), ballast=b"x" * (17 << 20))
    job = submit_capability(never)
    wait_for(lambda: executions(calls) == 1, what="the first attempt")
    [kept] = (tmp_path / "store").rglob("*.payload")
    kept.write_bytes(kept.read_bytes()[:-1] + b"!")

    registry_process(tag)[1].kill()

    with pytest.raises(JobFailedError, match="the registry that ran the job died"):
        job.result(LONG)
    assert executions(calls) == 1


def test_a_registry_that_is_gone_for_good_is_started_again(joined, tag, tmp_path):
    """By the next call, whatever it asks."""
    import ray

    job = submit_capability(Scoring(tag))
    job.wait(LONG)

    ray.kill(registry_process(tag)[0], no_restart=True)

    assert [found.job_id for found in list_jobs()] == [job.job_id]


def test_submissions_and_the_death_of_the_registry_race(joined, tag, tmp_path):
    """Every submit gives a job, every job comes to an end that is true, and none runs twice."""
    del joined
    submit_capability(Scoring(f"{tag}.first")).wait(LONG)
    runs = [Scoring(f"{tag}.{n}", calls=str(tmp_path / str(n))) for n in range(24)]

    with ThreadPoolExecutor(4) as pool:
        submitting = [pool.submit(submit_capability, run) for run in runs]
        for number in (5, 12):
            submitting[number].result(LONG)
            registry_process(tag)[1].kill()
        jobs = [one.result(LONG) for one in submitting]

    assert len({job.job_id for job in jobs}) == 24
    for run, job in zip(runs, jobs, strict=True):
        ended = job.wait(LONG)
        assert executions(tmp_path / run.id.rpartition(".")[2]) <= 1
        if ended is not JobStatus.COMPLETED:
            assert "the registry that ran the job died" in str(job.exception())
            assert submit_capability(run).wait(LONG) is JobStatus.COMPLETED


@pytest.mark.soak
def test_replies_that_get_lost_are_asked_for_again(tag, options, tmp_path):
    """A quarter of all calls of actors and tasks fails, before or after they are made."""
    calls = {"num_failures": 8, "req_failure_prob": 25, "resp_failure_prob": 25}
    code = f"""
        os.environ["RAY_testing_rpc_failure"] = {json.dumps({PUSH: calls})!r}
        configure(max_retries=10)
        jobs = [submit_capability(Scoring(f"{tag}.{{n}}")) for n in range(6)]
        say(len({{job.job_id for job in jobs}}), {{job.wait(240).value for job in jobs}})
        say(len(list_jobs()))
        shutdown_job_backend()
    """

    said = said_by(a_client(code, {**options, **LOCAL}, cwd=tmp_path))

    assert said == ["6 {'completed'}", "6"]


PUSH = "CoreWorkerService.grpc_client.PushTask"
LOCAL = {"address": "local"}


def test_history_survives_the_cluster(tag, options, tmp_path):
    """Completed jobs stay; lost ones are FAILED with that reason, and can be submitted again."""
    calls = tmp_path / "calls"
    first = a_client(
        f"""
        configure()
        done = submit_capability(Scoring("{tag}.done", calls={str(calls)!r}))
        done.wait(240)
        lost = submit_capability(Scoring("{tag}.lost", until={str(tmp_path / "never")!r}))
        pending = submit_capability(Scoring("{tag}.pending"), resources={{"num_cpus": 500}})
        wait_for(lambda: lost.status is JobStatus.RUNNING)
        say(json.dumps([done.job_id, lost.job_id, pending.job_id]))
        time.sleep(600)
        """,
        {**options, **LOCAL},
        cwd=tmp_path,
    )
    done, lost, pending = json.loads(first_line_of(first))
    kill_with_all_below(first)
    said_by(first, code=-signal.SIGKILL)
    second = a_client(
        f"""
        configure()
        wait_for(lambda: get_job({lost!r}).status.is_terminal)
        say(json.dumps([[job.job_id, job.status.value] for job in list_jobs()]))
        for job_id in ({lost!r}, {pending!r}):
            say(get_job(job_id).exception())
        again = submit_capability(Scoring("{tag}.done", calls={str(calls)!r}))
        say(again.job_id, again.result(0).run_uid)
        say(submit_capability(Scoring("{tag}.lost")).result(60).run_uid)
        shutdown_job_backend()
        """,
        {**options, **LOCAL},
        cwd=tmp_path,
    )

    said = said_by(second)

    listed = [[pending, "failed"], [lost, "failed"], [done, "completed"]]
    assert json.loads(said[0]) == listed
    assert all("the cluster that ran the job is gone" in line for line in said[1:3])
    assert said[3:] == [f"{done} run-scoring.{tag}.done", f"run-scoring.{tag}.lost"]
    assert executions(calls) == 1


def test_a_cluster_elsewhere_that_is_alive_keeps_its_jobs(joined, tag, options, tmp_path):
    """Two notebooks, each with a Ray of its own, in one scope: the second one attaches."""
    gate = tmp_path / "gate"
    calls = str(tmp_path / "calls")
    job = submit_capability(Scoring(tag, until=str(gate), calls=calls))
    wait_for(lambda: job.status is JobStatus.RUNNING)
    other = a_client(
        f"""
        configure()
        job = submit_capability(Scoring({tag!r}, until={str(gate)!r}, calls={calls!r}))
        say(job.job_id, job.status.value)
        say(job.result(60).run_uid)
        """,
        {**options, **LOCAL},
        cwd=tmp_path,
    )

    assert first_line_of(other) == f"{job.job_id} running"
    gate.touch()
    assert said_by(other) == [f"run-scoring.{tag}"]
    assert executions(tmp_path / "calls") == 1


def test_a_store_that_cannot_be_written_fails_the_job(tag, options, tmp_path):
    """With the cause; in both backends; even if the journal beside it cannot be written either."""
    code = f"""
        def allow(mode):
            for folder, _, _ in os.walk({str(tmp_path / "store")!r}):
                os.chmod(folder, mode)

        for kind in ("ray", "ray-simple"):
            if kind == "ray":
                configure()
            else:
                configure_job_backend(kind, analytics_store={options["analytics_store"]!r})
            gate = f"{tmp_path}/{{kind}}"
            submit_capability(Scoring(f"{tag}.{{kind}}.first")).wait(240)
            job = submit_capability(Scoring(f"{tag}.{{kind}}", until=gate))
            wait_for(lambda: job.status is JobStatus.RUNNING)
            allow(0o555)
            open(gate, "w").close()
            try:
                job.result(60)
            except JobFailedError as error:
                say(job.status.value, type(error.__cause__).__name__, error)
            allow(0o755)
        shutdown_job_backend()
    """
    obeying = tuple(obeying_permissions([]))

    said = said_by(a_client(code, {**options, **LOCAL}, cwd=tmp_path, before=obeying))

    assert len(said) == 2
    for line in said:
        assert line.startswith("failed StorageAccessError <Job "), line
        assert "failed: StorageAccessError: " in line


def test_jobs_record_in_a_bucket(joined, tag, options, moto, prefix):
    """The options travel to the workers, for every operation; none is written down."""
    del joined
    store = {"uri": f"s3://{moto.bucket}/{prefix}", "storage_options": moto.storage_options}
    configure_job_backend("ray", analytics_store=store, idempotency_scope=f"s3-{tag}")

    ref = submit_capability(Scoring(tag)).result(LONG)

    assert ref.store_uri.startswith(f"s3://{moto.bucket}/{prefix}#")
    assert len(open_store(ref, storage_options=moto.storage_options).read_run(ref).runs) == 1
    with pytest.raises(OSError, match="nobodys-bucket"):
        configure_job_backend(
            "ray-simple", analytics_store={**store, "uri": "s3://nobodys-bucket/x"}
        )


@pytest.mark.soak  # the head's client server takes longer than its limit on a loaded machine
def test_the_head_nodes_client_port_does_as_well(tag, moto, prefix, tmp_path):
    """`ray://`, with a working_dir: a relative store would be lost in Ray's copy of it."""
    (tmp_path / "mine.py").write_text(
        "import os\nfrom job_capabilities import Scoring\n"
        "class Mine(Scoring):\n    def note(self): return os.environ['MODE']\n"
    )
    ports = free_ports(2)
    with a_head(*ports):
        given = {
            "address": f"ray://127.0.0.1:{ports[1]}",
            "idempotency_scope": tag,
            "analytics_store": {
                "backend": "parquet",
                "uri": f"s3://{moto.bucket}/{prefix}",
                "storage_options": {**moto.storage_options, "anon": False},
            },
            "runtime_env": {"working_dir": ".", "env_vars": {"MODE": "far", **paths()}},
        }
        code = f"""
            sys.path.insert(0, os.getcwd())
            from mine import Mine
            from batchrunner.analytics import open_store
            for kind in ("ray", "ray-simple"):
                if kind == "ray":
                    configure()
                else:
                    configure_job_backend(kind, analytics_store={given["analytics_store"]!r})
                job = submit_capability(Mine(f"{tag}.{{kind}}"))
                ref = job.result(60)
                options = {given["analytics_store"]["storage_options"]!r}
                run = open_store(ref, storage_options=options).read_run(ref)
                say(kind, run.records["score"][0]["note"], len(list_jobs()))
            shutdown_job_backend()
        """

        assert said_by(a_client(code, given, cwd=tmp_path)) == ["ray far 1", "ray-simple far 1"]


def paths():
    return {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}


def test_a_bucket_that_vanishes_fails_the_job(local_ray, tag, moto):
    """What was checked when configured may be gone when the run is over."""
    del local_ray
    from botocore.session import get_session

    client = get_session().create_client(
        "s3",
        endpoint_url=moto.endpoint,
        aws_access_key_id=moto.key,
        aws_secret_access_key=moto.secret,
        region_name="us-east-1",
    )
    client.create_bucket(Bucket=f"vanishing-{tag}")
    store = {"uri": f"s3://vanishing-{tag}", "storage_options": moto.storage_options}
    configure_job_backend("ray-simple", analytics_store=store)
    client.delete_bucket(Bucket=f"vanishing-{tag}")
    client.close()

    job = submit_capability(Scoring(tag))

    assert job.wait(LONG) is JobStatus.FAILED
    with pytest.raises(JobFailedError, match=f"vanishing-{tag}") as caught:
        job.result()
    assert isinstance(caught.value.__cause__, OSError)
    shutdown_job_backend(wait=False)
