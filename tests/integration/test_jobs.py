"""Jobs on a real Ray: what both backends promise, and what "ray" adds."""

from __future__ import annotations

import asyncio
import pickle
import shutil
import sys
import threading
import time
import types
import uuid
import warnings
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psutil
import pytest

from batchrunner.analytics import CompletedRun, open_store
from batchrunner.errors import StorageError
from batchrunner.jobs import (
    BackpressureError,
    JobCancelledError,
    JobFailedError,
    JobStatus,
    JobTimeoutError,
    configure_job_backend,
    get_job,
    list_jobs,
    shutdown_job_backend,
    submit_capability,
)
from batchrunner.jobs import request as requests
from job_capabilities import (
    Config,
    Dataset,
    DiesAfterTheEnd,
    DiesAfterWriting,
    DiesBeforeWriting,
    Evaluation,
    HoldsALock,
    Raises,
    RaisesOddly,
    Reports,
    Returns,
    SaysSecrets,
    Scoring,
    TellsResources,
)
from job_processes import end_registry, registry_process, wait_for
from patience import PATIENCE

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("local_ray")]

LONG = PATIENCE


@pytest.fixture(scope="module")
def options(tmp_path_factory):
    """One scope and one store for all tests of this module; their runs have tags of their own."""
    store = tmp_path_factory.mktemp("jobs") / "store"
    return {
        "analytics_store": {"uri": str(store)},
        "idempotency_scope": f"tests-{uuid.uuid4().hex}",
    }


@pytest.fixture(autouse=True)
def no_backend_is_left():
    yield
    shutdown_job_backend(wait=False)


@pytest.fixture(params=["ray", "ray-simple"])
def kind(request, options):
    """Each backend in turn."""
    configure(request.param, options)
    return request.param


@pytest.fixture
def registry(options):
    """The backend with a registry."""
    configure("ray", options)


@pytest.fixture
def tag():
    """A run that no other test asks for."""
    return uuid.uuid4().hex[:12]


def configure(kind, options, **more):
    given = {**options, **more}
    if kind == "ray-simple":
        given.pop("idempotency_scope", None)
    configure_job_backend(kind, **given)


def is_recorded(options, capability):
    table = open_store(options["analytics_store"]).read_table("runs")
    return capability.run_uid in table.column("run_uid").to_pylist()


def executions(folder):
    return len(list(folder.iterdir())) if folder.exists() else 0


# What both promise


def test_a_job_gives_the_address_of_its_records(kind, tag, options):
    """A few hundred bytes, whatever the run produced; the store reads the rest back."""
    job = submit_capability(Scoring(tag, records=1000), job_name="thousand scores")

    ref = job.result(LONG)

    run = open_store(ref).read_run(ref)
    assert (ref.run_uid, ref.capability_id) == (f"run-scoring.{tag}", f"scoring.{tag}")
    assert len(run.records["score"]) == 1000
    assert len(pickle.dumps(ref)) < 600
    assert (job.status, job.job_name) == (JobStatus.COMPLETED, "thousand scores")
    assert job.exception() is None
    assert {(row["backend"], row["job_id"]) for row in run.runs} == {(kind, job.job_id)}
    assert job.created_at.tzinfo is not None
    assert abs(datetime.now(UTC) - job.created_at) < timedelta(seconds=LONG)


@pytest.mark.usefixtures("kind")
def test_a_run_without_records_completes_and_is_recorded(tag, options):
    """Nothing found is a result too."""
    ref = submit_capability(Scoring(tag, records=0)).result(LONG)

    assert open_store(ref.store_uri).read_run(ref).runs[0]["capability_id"] == f"scoring.{tag}"


@pytest.mark.usefixtures("kind")
def test_a_capability_of_an_evaluation_package_runs_unchanged(tag):
    """Positional inputs, metadata with an id, a config that says what it needs."""
    datasets = [Dataset(tag)]

    ref = submit_capability(Evaluation(), None, datasets, config=Config(num_cpus=0.5)).result(LONG)

    assert ref.run_uid == f"evaluations.Evaluation-{tag}-0.5"


@pytest.mark.usefixtures("kind")
def test_a_failure_tells_what_happened_on_the_worker(tag):
    """The original message and traceback, the exception itself as the cause; `wait` never raises."""
    job = submit_capability(Scoring(tag, fails="five is right out"))

    assert job.wait(LONG) is JobStatus.FAILED
    with pytest.raises(JobFailedError, match="ValueError: five is right out") as caught:
        job.result()
    assert caught.value.job_id == job.job_id
    assert 'raise ValueError(does["fails"])' in caught.value.traceback
    assert isinstance(caught.value.__cause__, ValueError)
    assert str(job.exception()) == str(caught.value)


@pytest.mark.usefixtures("kind")
def test_an_exception_that_cannot_travel_leaves_its_message(tag):
    """Without colours."""
    job = submit_capability(RaisesOddly(tag))

    with pytest.raises(JobFailedError, match="OddError: odd, and coloured") as caught:
        job.result(LONG)
    assert "\x1b" not in caught.value.traceback
    assert caught.value.__cause__ is None


@pytest.mark.usefixtures("kind")
@pytest.mark.parametrize("raised", [KeyboardInterrupt, asyncio.CancelledError])
def test_whatever_the_users_code_raises_fails_the_job_and_is_named(tag, raised):
    """Nobody cancelled it, and the worker is well."""
    job = submit_capability(Raises(tag, raised))

    with pytest.raises(JobFailedError, match=f"{raised.__name__}: of the user's own") as caught:
        job.result(LONG)
    assert isinstance(caught.value.__cause__, raised)
    assert "raise self.raises" in caught.value.traceback


@pytest.mark.usefixtures("kind")
@pytest.mark.parametrize("returned", [None, {"accuracy": 1.0}, [CompletedRun("u", "c")]])
def test_what_is_no_run_is_named_and_what_is_wanted_too(tag, returned):
    """Not an attribute that something of ours lacks."""
    job = submit_capability(Returns(tag, returned))

    with pytest.raises(JobFailedError, match=r"run\(\) returned .*CompletedRun\(run_uid, "):
        job.result(LONG)


@pytest.mark.usefixtures("kind")
def test_another_edition_runs_the_same_run_once_more(tag, options, tmp_path):
    """And is recorded beside the first, under a name of its own; its records too."""
    capability = Scoring(tag, calls=str(tmp_path / "calls"))
    first = submit_capability(capability).result(LONG)

    second = submit_capability(capability, edition="2").result(LONG)

    assert executions(tmp_path / "calls") == 2
    assert (first.run_uid, second.run_uid) == (f"run-scoring.{tag}", f"run-scoring.{tag}-2")
    store = open_store(options["analytics_store"])
    for ref in (first, second):
        assert [row["run_uid"] for row in store.read_run(ref).records["score"]] == [ref.run_uid]


def test_the_report_of_a_run_is_kept_with_it_and_its_ref_says_where(kind, tag, options):
    """The ref stays small; whoever has it finds the report."""
    ref = submit_capability(Reports(tag)).result(LONG)

    store = open_store(options["analytics_store"])
    assert store.read_report(ref) == "# Good from 0.5 on\n"
    assert ref.outputs_uri == store.report_uri(ref)
    assert Path(ref.outputs_uri).read_text() == store.read_report(ref)
    assert {row["outputs_uri"] for row in store.read_run(ref).runs} == {ref.outputs_uri}
    assert len(pickle.dumps(ref)) < 600


@pytest.mark.usefixtures("kind")
def test_what_a_job_said_can_be_read(tag):
    """Stdout, stderr and log records of its worker."""
    job = submit_capability(Scoring(tag))
    job.wait(LONG)

    assert get_job(job.job_id).logs() == f"scoring scoring.{tag}\n"


@pytest.mark.usefixtures("kind")
def test_a_job_that_waits_for_resources_is_pending(tag):
    """Not RUNNING, and a timeout does not cancel it; a cancel does, at once."""
    job = submit_capability(Scoring(tag), resources={"num_cpus": 500})

    with pytest.raises(JobTimeoutError, match=r"is pending after 0\.3 s"):
        job.result(0.3)
    assert job.wait(0) is JobStatus.PENDING
    assert job.cancel() is True
    assert job.status is JobStatus.CANCELLED
    with pytest.raises(JobCancelledError, match=job.job_id):
        job.result()
    assert job.cancel() is False


@pytest.mark.usefixtures("kind")
def test_who_reads_cancelled_knows_that_it_does_not_run(tag, tmp_path, options):
    """Not: that somebody wished it did not."""
    beats = tmp_path / "beats"
    capability = Scoring(tag, until=str(tmp_path / "never"), beats=str(beats))
    job = submit_capability(capability)
    wait_for(lambda: job.status is JobStatus.RUNNING and beats.exists())

    assert job.cancel() is True
    assert job.status is JobStatus.CANCELLED
    size = beats.stat().st_size
    # Nothing comes: there is no condition to wait for.
    time.sleep(0.3)
    assert beats.stat().st_size == size
    assert not is_recorded(options, capability)


@pytest.mark.usefixtures("kind")
def test_a_job_that_has_ended_cannot_be_cancelled(tag):
    """A terminal state never changes."""
    job = submit_capability(Scoring(tag))
    job.wait(LONG)

    assert job.cancel() is False
    assert job.status is JobStatus.COMPLETED


@pytest.mark.usefixtures("kind")
def test_a_worker_killed_between_run_and_write_never_reads_completed(tag, options):
    """Success is reported when the records are durable, not when they are computed."""
    warm(options)
    capability = DiesBeforeWriting(tag)
    began = time.monotonic()

    job = submit_capability(capability)

    with pytest.raises(JobFailedError, match="its worker died"):
        job.result(LONG)
    assert time.monotonic() - began < LONG / 2
    assert not is_recorded(options, capability)


def test_a_worker_that_dies_is_replaced_max_retries_times(tag, tmp_path, options):
    """In both backends; a capability that raises is not."""
    for kind in ("ray", "ray-simple"):
        configure(kind, options, max_retries=2)
        calls = tmp_path / kind
        run = {"calls": str(calls), "dies": 2}
        assert submit_capability(Scoring(f"{tag}.{kind}", **run)).result(LONG)
        assert executions(calls) == 3

        calls = tmp_path / f"{kind}-raising"
        raising = Scoring(f"{tag}.{kind}.raising", calls=str(calls), fails="no")
        assert submit_capability(raising).wait(LONG) is JobStatus.FAILED
        assert executions(calls) == 1


@pytest.mark.usefixtures("kind")
def test_fractions_and_custom_resources_reach_ray(tag, local_ray):
    """0.5 CPU is half a CPU, not an unlimited number of jobs."""
    node = next(name for name in local_ray.cluster_resources() if name.startswith("node:1"))

    ref = submit_capability(TellsResources(tag), resources={node: 0.25}).result(LONG)

    note = open_store(ref).read_run(ref).records["score"][0]["note"]
    assert note == f"CPU 0.5, {node} 0.25"


@pytest.mark.usefixtures("kind")
def test_what_cannot_be_pickled_is_named(tag):
    """Before anything starts."""
    with pytest.raises(Exception, match=r"its capability, a job_capabilities.HoldsALock, cannot"):
        submit_capability(HoldsALock(tag))
    with pytest.raises(Exception, match=r"its datasets, a builtins.list, cannot be pickled"):
        submit_capability(Scoring(tag), datasets=[threading.Lock()])


@pytest.mark.usefixtures("kind")
def test_what_the_worker_cannot_import_is_named(tag, monkeypatch):
    """With the way out; not a traceback of pickle."""
    only_here = types.ModuleType("only_here")
    only_here.Here = type("Here", (Scoring,), {"__module__": "only_here"})
    monkeypatch.setitem(sys.modules, "only_here", only_here)

    job = submit_capability(only_here.Here(tag))

    with pytest.raises(JobFailedError, match=r"cannot import 'only_here'.*runtime_env"):
        job.result(LONG)


@pytest.mark.usefixtures("kind")
def test_a_large_payload_warns_and_says_what_to_do(tag, monkeypatch):
    """It works all the same."""
    monkeypatch.setattr(requests, "LARGE_BYTES", 200_000)

    with pytest.warns(UserWarning, match="pass a URI"):
        job = submit_capability(Scoring(tag, ballast=b"x" * 300_000))

    assert job.wait(LONG) is JobStatus.COMPLETED


@pytest.mark.usefixtures("kind")
def test_the_cache_of_a_worker_is_refused(tag):
    """It is neither durable nor shared."""
    with pytest.raises(ValueError, match="use_cache=True"):
        submit_capability(Scoring(tag), use_cache=True)


@pytest.mark.usefixtures("kind")
def test_arguments_that_run_does_not_take_are_refused(tag):
    """Here, not by the worker."""
    with pytest.raises(ValueError, match="unexpected keyword argument 'thresold'"):
        submit_capability(Scoring(tag), thresold=0.5)
    with pytest.raises(ValueError, match="`id` and `run"):
        submit_capability(object())


@pytest.mark.usefixtures("kind")
def test_jobs_are_listed_newest_first(tag):
    """And chosen by state, time and number."""
    good = [submit_capability(Scoring(f"{tag}.{n}")) for n in range(3)]
    bad = submit_capability(Scoring(f"{tag}.bad", fails="x"))
    for job in [*good, bad]:
        job.wait(LONG)
    newest_first = [job.job_id for job in [bad, *reversed(good)]]

    assert [job.job_id for job in list_jobs(limit=4)] == newest_first
    assert list_jobs(limit=0) == []
    assert list_jobs(limit=1, status_filter=JobStatus.FAILED)[0].job_id == bad.job_id
    several = list_jobs(limit=2, status_filter=[JobStatus.COMPLETED, JobStatus.PENDING])
    assert [job.job_id for job in several] == newest_first[1:3]
    earlier = list_jobs(limit=2, submitted_before_ts=good[2].created_at.timestamp())
    assert [job.job_id for job in earlier] == newest_first[2:]
    assert get_job(bad.job_id).status is JobStatus.FAILED


@pytest.mark.usefixtures("kind")
def test_an_unknown_job_is_a_key_error():
    """With a message that says where it was looked for."""
    with pytest.raises(KeyError, match="no job 'nobody'"):
        get_job("nobody")


@pytest.mark.usefixtures("kind")
def test_a_shutdown_does_not_wait_for_ever(tag, local_ray):
    """An unschedulable job is named, and Ray is left as it was found: it is not ours."""
    job = submit_capability(Scoring(tag), resources={"num_cpus": 500})

    with pytest.warns(UserWarning, match=job.job_id):
        shutdown_job_backend(timeout=0.2)

    assert local_ray.is_initialized()
    assert list_jobs() == []
    assert job.cancel() is True


def test_another_address_warns_and_force_reinit_ends_no_job(tag, options, caplog):
    """Reconfiguring never interrupts what runs."""
    configure("ray-simple", options)
    job = submit_capability(Scoring(tag), resources={"num_cpus": 500})

    configure("ray-simple", options, runtime_env={"env_vars": {"A": "b"}})
    assert "force_reinit=True" in caplog.text
    with pytest.raises(Exception, match=f"would end running jobs: .*{job.job_id}"):
        configure("ray-simple", options, force_reinit=True)
    assert job.status is JobStatus.PENDING
    job.cancel()


def test_a_refused_configuration_leaves_the_backend_as_it_was(tag, options):
    """A mistake in a notebook's cell does not lose the jobs of the cell before."""
    configure("ray-simple", options)
    job = submit_capability(Scoring(tag))

    with pytest.raises(ValueError, match="kinds"):
        configure("slurm", options)

    assert get_job(job.job_id) is job


# What "ray" adds


@pytest.mark.usefixtures("registry")
def test_another_edition_is_another_job_and_the_same_one_is_not(tag):
    """The edition is part of what the same run is."""
    first, second = submit_capability(Scoring(tag)), submit_capability(Scoring(tag), edition="2")

    assert first.job_id != second.job_id
    assert submit_capability(Scoring(tag), edition="2").job_id == second.job_id
    with pytest.raises(ValueError, match="edition must be a word"):
        submit_capability(Scoring(tag), edition=" 2")


@pytest.mark.usefixtures("registry")
def test_eight_threads_that_submit_one_run_get_one_job(tag, tmp_path):
    """And one execution."""
    capability = Scoring(tag, calls=str(tmp_path / "calls"))

    with ThreadPoolExecutor(8) as pool:
        jobs = list(pool.map(lambda _: submit_capability(capability), range(8)))

    assert len({job.job_id for job in jobs}) == 1
    assert {job.result(LONG).run_uid for job in jobs} == {capability.run_uid}
    assert executions(tmp_path / "calls") == 1


@pytest.mark.usefixtures("registry")
def test_a_completed_run_is_not_run_again(tag, tmp_path):
    """Its job is handed out; resources are not part of what it is."""
    capability = Scoring(tag, calls=str(tmp_path / "calls"))
    first = submit_capability(capability)
    first.wait(LONG)

    again = submit_capability(capability, resources={"num_cpus": 2})

    assert (again.job_id, again.result()) == (first.job_id, first.result())
    assert executions(tmp_path / "calls") == 1


@pytest.mark.usefixtures("registry")
def test_a_failed_or_cancelled_run_can_be_submitted_again(tag, tmp_path):
    """As another job: the first one stays what it was."""
    failing = Scoring(tag, fails="x")
    first = submit_capability(failing)
    first.wait(LONG)

    second = submit_capability(failing, resources={"num_cpus": 500})
    assert second.job_id != first.job_id
    second.cancel()
    third = submit_capability(Scoring(tag))

    assert third.wait(LONG) is JobStatus.COMPLETED
    states = [get_job(job.job_id).status.value for job in (first, second, third)]
    assert states == ["failed", "cancelled", "completed"]


def test_scopes_share_nothing(tag, tmp_path, options):
    """Two scopes, two executions; each sees its own."""
    capability = Scoring(tag, calls=str(tmp_path / "calls"))
    configure("ray", options)
    first = submit_capability(capability)
    first.wait(LONG)

    configure("ray", options, idempotency_scope=f"other-{tag}")
    with pytest.raises(KeyError):
        get_job(first.job_id)
    second = submit_capability(capability)

    assert second.wait(LONG) is JobStatus.COMPLETED
    assert second.job_id != first.job_id
    assert [job.job_id for job in list_jobs()] == [second.job_id]
    assert executions(tmp_path / "calls") == 2


def test_two_scopes_never_share_a_registry(tag, options, local_ray):
    """Jobs of the one would be written into the history of the other, and lost to both."""
    shared = {"registry_actor_name": f"shared-{tag}", "controller_retention_s": 0}
    configure("ray", options, idempotency_scope=f"a-{tag}", **shared)
    mine = submit_capability(Scoring(tag), resources={"num_cpus": 500})

    refused = f"'shared-{tag}' is of the scope 'a-{tag}' .* of 'b-{tag}': .*registry_actor_name"
    with pytest.raises(ValueError, match=refused):
        configure("ray", options, idempotency_scope=f"b-{tag}", **shared)

    assert [job.job_id for job in list_jobs()] == [mine.job_id]
    assert mine.cancel() is True


@pytest.mark.usefixtures("registry")
def test_a_scope_has_one_store(options, tmp_path):
    """Nobody gets the address of a record in a store that he did not ask for."""
    with pytest.raises(ValueError, match="use that store, or another idempotency_scope"):
        configure("ray", options, analytics_store={"uri": str(tmp_path / "other")})


def test_overload_raises_and_never_hangs(tag, options):
    """Fifty at once where one call is allowed: some get their job, the others hear when to retry."""
    configure("ray", options, registry_max_pending_calls=1)
    start = threading.Barrier(50)

    def submit(number):
        start.wait()
        try:
            return submit_capability(Scoring(f"{tag}.{number}"))
        except BackpressureError as error:
            return str(error)

    began = time.monotonic()
    with ThreadPoolExecutor(50) as pool:
        answers = list(pool.map(submit, range(50)))

    counted = Counter(type(answer).__name__ for answer in answers)
    assert counted.keys() == {"Job", "str"}, counted
    assert all("try again in a moment" in answer for answer in answers if isinstance(answer, str))
    assert time.monotonic() - began < LONG
    for answer in answers:
        assert isinstance(answer, str) or answer.wait(LONG) is JobStatus.COMPLETED


def test_too_many_jobs_that_have_not_ended_are_backpressure_too(tag, options):
    """The cluster's memory is not a queue without end."""
    configure("ray", options, idempotency_scope=f"few-{tag}", max_active_jobs_per_scope=2)
    jobs = [submit_capability(Scoring(f"{tag}.{n}"), resources={"num_cpus": 500}) for n in range(2)]

    with pytest.raises(BackpressureError, match="2 jobs of the scope have not ended"):
        submit_capability(Scoring(f"{tag}.2"))
    jobs[0].cancel()
    assert submit_capability(Scoring(f"{tag}.2")).wait(LONG) is JobStatus.COMPLETED
    jobs[1].cancel()


def test_more_waiters_than_a_job_wakes_hear_of_its_end_all_the_same(tag, tmp_path, options):
    """They ask again; nothing piles up at the registry."""
    configure("ray", options, controller_max_pending_calls=1)
    gate = tmp_path / "gate"
    job = submit_capability(Scoring(tag, until=str(gate)))
    wait_for(lambda: job.status is JobStatus.RUNNING)

    with ThreadPoolExecutor(4) as pool:
        waits = [pool.submit(get_job(job.job_id).wait, LONG) for _ in range(4)]
        gate.touch()
        assert {wait.result() for wait in waits} == {JobStatus.COMPLETED}


@pytest.mark.parametrize("count", [30, pytest.param(200, marks=pytest.mark.soak)])
def test_jobs_one_after_the_other_leave_nothing_behind(tag, options, local_ray, count):
    """Each its own result; no actor, process, thread or open file more after them than before."""
    configure("ray", options, idempotency_scope=tag, max_retained_terminal_controllers=5)
    for number in range(5):  # the first ones start what stays
        submit_capability(Scoring(f"{tag}.first.{number}")).wait(LONG)
    registry = registry_process(tag)[1]
    before = resources_held(registry, local_ray)

    for number in range(count):
        capability = Scoring(f"{tag}.{number}.", records=number % 3)
        ref = submit_capability(capability).result(LONG)
        assert (ref.run_uid, ref.capability_id) == (capability.run_uid, capability.id)

    def grown():
        after = resources_held(registry, local_ray)
        allowed = {"actors": 0, "processes": 3}  # Ray starts a spare worker now and then
        return {name for name in after if after[name] > before[name] + allowed.get(name, 8)}

    wait_for(lambda: not grown(), what="what the jobs used to be given back")
    ended = list_jobs(limit=None)
    assert Counter(job.status for job in ended) == {JobStatus.COMPLETED: count + 5}
    store = open_store(options["analytics_store"])
    for number in {0, count // 2, count - 1}:
        records = store.read_run(f"run-scoring.{tag}.{number}.").records.get("score", ())
        assert [row["value"] for row in records] == [float(n) for n in range(number % 3)]
    end_registry(tag)


def resources_held(registry, ray):
    """What may leak: here, in the registry, in Ray."""
    me = psutil.Process()
    return {
        "files": me.num_fds(),
        "threads": me.num_threads(),
        "files of the registry": registry.num_fds(),
        "threads of the registry": registry.num_threads(),
        "processes": len(me.children(recursive=True)),
        "actors": len(ray.util.list_named_actors(all_namespaces=True)),
    }


def test_nothing_is_left_in_ray_after_retention_0(tag, options, local_ray):
    """No actor, no process; and the history is there when somebody asks for it."""
    scope = f"brief-{tag}"
    configure("ray", options, idempotency_scope=scope, controller_retention_s=0)
    job = submit_capability(Scoring(tag))
    job.wait(LONG)

    def actors():
        named = local_ray.util.list_named_actors(all_namespaces=True)
        return [actor for actor in named if scope in actor["name"]]

    wait_for(lambda: not actors(), what="the registry to leave")
    assert [found.job_id for found in list_jobs()] == [job.job_id]
    assert submit_capability(Scoring(tag)).job_id == job.job_id


def test_the_journal_keeps_as_many_jobs_as_it_is_told(tag, options):
    """The latest; records of runs are not touched."""
    more = {
        "idempotency_scope": f"short-{tag}",
        "max_retained_terminal_jobs_per_scope": 2,
    }
    configure("ray", options, **more)
    runs = [Scoring(f"{tag}.{n}") for n in range(4)]
    jobs = [submit_capability(run) for run in runs]
    for job in jobs:
        job.wait(LONG)
    ended = sorted(jobs, key=lambda job: job._outcome.ended_at)

    kept = {job.job_id for job in ended[2:]}
    wait_for(lambda: {job.job_id for job in list_jobs()} == kept, what="the journal to be pruned")
    end_registry(f"short-{tag}")
    assert all(is_recorded(options, run) for run in runs)


@pytest.mark.usefixtures("registry")
def test_whoever_lists_jobs_while_they_are_submitted_disturbs_none(tag):
    """A job that has just been claimed is not taken for one that was lost."""
    done = threading.Event()

    def list_on():
        while not done.is_set():
            list_jobs(limit=5)

    with ThreadPoolExecutor(6) as pool:
        listing = [pool.submit(list_on) for _ in range(3)]
        jobs = list(pool.map(lambda n: submit_capability(Scoring(f"{tag}.{n}")), range(60)))
        ended = Counter(job.wait(LONG) for job in jobs)
        done.set()
        for one in listing:
            one.result()

    assert ended == {JobStatus.COMPLETED: 60}


@pytest.mark.parametrize("backend", ["ray", "ray-simple"])
def test_no_secret_is_written_anywhere(backend, tag, tmp_path, caplog):
    """Not to the journal, the store, the log, a message or a repr; also when the user's code says it."""
    canary = f"SECRET-{tag}"
    store = {"uri": str(tmp_path / "store"), "storage_options": {"secret": canary}}
    configure(
        backend,
        {"analytics_store": store, "idempotency_scope": tag},
        max_retries=1,
        runtime_env={"env_vars": {"TOKEN": canary}},
    )
    good = submit_capability(SaysSecrets(tag, secret=canary, raises=False))
    bad = submit_capability(SaysSecrets(f"{tag}.x", secret=canary, raises=True))
    good.wait(LONG), bad.wait(LONG)

    shown = f"{good!r} {bad.exception()!r} {bad.exception().traceback} {bad.logs()} {caplog.text}"
    assert canary not in shown + repr(bad.exception().__cause__)
    assert str(bad.exception()).endswith("ValueError: bad token ***")
    assert good.logs().count("token ***\n") == 2
    assert "path ***\n" in good.logs()  # as every value of env_vars
    with pytest.raises(ValueError, match="url") as caught:
        configure("ray-simple", {"idempotency_scope": "s"}, analytics_store={**store, "url": "x"})
    assert canary not in str(caught.value)
    written = [path for path in (tmp_path / "store").rglob("*") if path.is_file()]
    assert len(written) > 4
    assert not [path for path in written if canary.encode() in path.read_bytes()]


def test_a_store_that_is_no_folder_any_more_is_an_error_not_an_empty_history(tag, tmp_path):
    """Whoever reads [] submits everything again."""
    store = tmp_path / "store"
    configure("ray", {}, analytics_store={"uri": str(store)}, idempotency_scope=tag)
    submit_capability(Scoring(tag)).wait(LONG)
    shutil.rmtree(store)
    store.touch()

    with pytest.raises(StorageError, match="store"):
        list_jobs()
    end_registry(tag)


def test_a_worker_that_dies_after_the_end_is_written_changes_nothing(tag, tmp_path, options):
    """COMPLETED is what the journal says, whoever heard of it; it is not run again."""
    configure("ray", options, max_retries=1)
    capability = DiesAfterTheEnd(tag, calls=str(tmp_path / "calls"))

    assert submit_capability(capability).result(LONG).run_uid == capability.run_uid
    assert is_recorded(options, capability)
    assert executions(tmp_path / "calls") == 1


@pytest.mark.usefixtures("registry")
def test_a_worker_that_dies_before_the_end_is_written_fails_the_job(tag, options):
    """The record is there; the same run submitted again finds it, and completes."""
    capability = DiesAfterWriting(tag)
    assert submit_capability(capability).wait(LONG) is JobStatus.FAILED
    assert is_recorded(options, capability)

    assert submit_capability(Scoring(tag)).result(LONG).run_uid == capability.run_uid


def test_a_worker_of_another_version_says_so_and_of_another_python_refuses(
    tag, options, monkeypatch, caplog
):
    """Pickles that mean something else are not loaded."""
    here = requests.versions_here()
    configure("ray", options)
    monkeypatch.setattr(requests.Request, "__init__", with_versions({**here, "batchrunner": "9.9"}))
    job = submit_capability(Scoring(tag))
    assert job.wait(LONG) is JobStatus.COMPLETED
    assert "versions differ: batchrunner 9.9" in caplog.text

    monkeypatch.setattr(requests.Request, "__init__", with_versions({**here, "python": "3.99.1"}))
    with pytest.raises(JobFailedError, match="one minor version of Python"):
        submit_capability(Scoring(f"{tag}.python")).result(LONG)


def with_versions(versions, real=requests.Request.__init__):
    def init(self, **fields):
        real(self, **fields, versions=versions)

    return init


def warm(options):
    """Have the `runs` table."""
    with warnings.catch_warnings():
        submit_capability(Scoring(uuid.uuid4().hex)).wait(LONG)
