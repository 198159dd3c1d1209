"""Jobs on a real Ray: the job contract on both backends, and what Ray adds."""

from __future__ import annotations

import shutil
import threading
import time
import uuid
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import psutil
import pytest

from batchrunner.analytics import open_store
from batchrunner.errors import StorageError
from batchrunner.jobs import (
    BackpressureError,
    JobFailedError,
    JobStatus,
    configure_job_backend,
    get_job,
    list_jobs,
    shutdown_job_backend,
    submit_capability,
)
from batchrunner.jobs import request as requests
from batchrunner.testing.jobs_contract import (
    JobsContract,
    OneJobPerRunContract,
    OwnProcessContract,
    executions,
)
from job_capabilities import (
    DiesAfterTheEnd,
    DiesAfterWriting,
    RecordsResources,
    SaysSecrets,
    Scoring,
)
from job_processes import end_registry, registry_process, wait_for
from patience import PATIENCE

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("local_ray")]

LONG = PATIENCE


@pytest.fixture(scope="module")
def shared_options(tmp_path_factory):
    """One scope and one store for all tests of this module; their runs have tags of their own."""
    store = tmp_path_factory.mktemp("jobs") / "store"
    return {
        "analytics_store": {"uri": str(store)},
        "idempotency_scope": f"tests-{uuid.uuid4().hex}",
    }


@pytest.fixture
def options(shared_options):
    return shared_options


class TestRay(JobsContract, OneJobPerRunContract, OwnProcessContract):
    kind = "ray"

    @pytest.fixture
    def options(self, shared_options):
        return shared_options

    @pytest.fixture(autouse=True)
    def no_registry_is_left(self, tag):
        """Those of the scopes that a test makes for itself have its tag in their names."""
        yield
        end_registry(tag)


class TestRaySimple(JobsContract, OwnProcessContract):
    kind = "ray-simple"

    @pytest.fixture
    def options(self, shared_options):
        return {"analytics_store": shared_options["analytics_store"]}


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
    else:  # on a busy machine the registry may not answer within the 30 s that are the default
        given.setdefault("registry_update_timeout_s", PATIENCE)
    configure_job_backend(kind, **given)


def is_recorded(options, capability):
    table = open_store(options["analytics_store"]).read_table("runs")
    return capability.run_uid in table.column("run_uid").to_pylist()


# What both add


@pytest.mark.usefixtures("kind")
def test_fractions_and_custom_resources_reach_ray(tag, local_ray):
    """0.5 CPU is half a CPU, not an unlimited number of jobs."""
    node = next(name for name in local_ray.cluster_resources() if name.startswith("node:1"))

    ref = submit_capability(RecordsResources(tag), resources={node: 0.25}).result(LONG)

    note = open_store(ref).read_run(ref).records["score"][0]["note"]
    assert note == f"CPU 0.5, {node} 0.25"


@pytest.mark.usefixtures("kind")
def test_a_shutdown_leaves_ray_as_it_was_found(tag, local_ray):
    """It is not ours."""
    submit_capability(Scoring(tag)).wait(LONG)

    shutdown_job_backend()

    assert local_ray.is_initialized()


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


# What "ray" adds


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


def test_the_journal_keeps_as_many_jobs_as_it_may(tag, options):
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
    monkeypatch.setattr(
        requests.JobRequest, "__init__", with_versions({**here, "batchrunner": "9.9"})
    )
    job = submit_capability(Scoring(tag))
    assert job.wait(LONG) is JobStatus.COMPLETED
    assert "versions differ: batchrunner 9.9" in caplog.text

    monkeypatch.setattr(
        requests.JobRequest, "__init__", with_versions({**here, "python": "3.99.1"})
    )
    with pytest.raises(JobFailedError, match="one minor version of Python"):
        submit_capability(Scoring(f"{tag}.python")).result(LONG)


def with_versions(versions, real=requests.JobRequest.__init__):
    def init(self, **fields):
        real(self, **{**fields, "versions": versions})

    return init
