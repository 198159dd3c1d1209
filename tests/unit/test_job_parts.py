"""Jobs, as far as nobody needs Ray for it."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
import uuid
from importlib import import_module

import pytest

from batchrunner.analytics import AnalyticsStoreConfig, CapabilityRunRef
from batchrunner.errors import (
    InvalidSpecError,
    JobFailedError,
    JobTimeoutError,
    NewerFormatError,
    StorageError,
    UnknownJobError,
)
from batchrunner.jobs import (
    BatchCapability,
    JobStatus,
    configure_job_backend,
    get_job,
    job_log,
    list_jobs,
    shutdown_job_backend,
    submit_capability,
)
from batchrunner.jobs.entries import Cluster, Submission
from batchrunner.jobs.history import prune_after
from batchrunner.jobs.identity import checked_edition, checked_run, run_key
from batchrunner.jobs.job_log import JobLog
from batchrunner.jobs.journal import Journal
from batchrunner.jobs.options import RayOptions
from batchrunner.jobs.outcome import Outcome
from batchrunner.jobs.request import (
    JobRequest,
    check_call,
    difference,
    resources_of,
    versions_here,
)
from batchrunner.spec import secrets
from batchrunner.testing.memory import MemoryStorage
from builders import a_source, a_spec
from command import ENVIRONMENT
from job_capabilities import Config, Dataset, Evaluation, Scoring

KEY = "0123456789abcdef" * 2


@pytest.fixture(autouse=True)
def no_ray(monkeypatch):
    """A test that starts Ray fails."""
    monkeypatch.setitem(sys.modules, "ray", None)


def a_submission(number=1, **changes):
    request = JobRequest(
        key=KEY,
        name="a job",
        capability_id="scoring.a",
        created_at="2026-01-01T00:00:00.000000+00:00",
        created_by="user@host",
        versions={},
        nonce=changes.pop("nonce", "n"),
    )
    fields = {
        "job_id": f"{KEY}-{number}",
        "number": number,
        "request": request,
        "cluster": Cluster("head", "127.0.0.1:1", "namespace/name"),
        "store_uri": "/store",
    }
    return Submission(**{**fields, **changes})


@pytest.fixture
def journal():
    return Journal(MemoryStorage(f"journal-{uuid.uuid4().hex}"))


def test_an_unknown_kind_is_refused_with_the_kinds(tmp_path):
    """A ValueError, before anything starts."""
    with pytest.raises(ValueError, match="the kinds are: ray, ray-simple, in-process"):
        configure_job_backend("slurm", analytics_store={"uri": str(tmp_path)})


def test_the_ray_backend_requires_a_scope(tmp_path):
    """Nobody shares history by accident."""
    for scope in ({}, {"idempotency_scope": ""}, {"idempotency_scope": None}):
        with pytest.raises(ValueError, match="requires idempotency_scope"):
            configure_job_backend("ray", analytics_store={"uri": str(tmp_path)}, **scope)


@pytest.mark.parametrize(
    "wrong",
    [
        {"idempotency_scope": "s"},
        {"registry_max_pending_calls": 5},
        {"controller_retention_s": 1.0},
    ],
)
def test_the_simple_backend_takes_no_option_of_the_registry(tmp_path, wrong):
    """It would not do what it says."""
    with pytest.raises(ValueError, match=f"takes no {next(iter(wrong))}"):
        configure_job_backend("ray-simple", analytics_store={"uri": str(tmp_path)}, **wrong)


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        ({"registry_max_pending_calls": 0}, "registry_max_pending_calls"),
        ({"registry_max_pending_calls": True}, "registry_max_pending_calls"),
        ({"controller_retention_s": -1}, "controller_retention_s"),
        ({"registry_update_timeout_s": 0}, "registry_update_timeout_s"),
        ({"registry_num_cpus": -1}, "registry_num_cpus"),
        ({"max_retries": -1}, "max_retries"),
        ({"max_retries": "many"}, "max_retries"),
        ({"registry_actor_nam": "x"}, "registry_actor_name"),
        ({"registry_namespace": " x"}, "blanks"),
        ({"analytics_store": {"uri": "s3:/bucket"}}, "two slashes"),
        ({"analytics_store": {"uri": "gs://bucket/x"}}, "not supported"),
        ({"analytics_store": {"uri": "x", "storage_option": {}}}, "storage_option"),
        ({"analytics_store": {"uri": "x", "backend": "csv"}}, "backend"),
        ({"analytics_store": {}}, "uri"),
    ],
)
def test_bad_options_are_refused_when_configured(tmp_path, wrong, why):
    """Not by the first job, at night."""
    fields = {"analytics_store": {"uri": str(tmp_path)}, "idempotency_scope": "s"}
    with pytest.raises(ValueError, match=why):
        configure_job_backend("ray", **{**fields, **wrong})


def test_a_store_is_required():
    """There is no default place for results to vanish into."""
    with pytest.raises(TypeError, match="analytics_store"):
        configure_job_backend("ray", idempotency_scope="s")


def test_a_store_that_cannot_be_written_is_refused_when_configured(tmp_path):
    """And says so before Ray starts."""
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match="file"):
        configure_job_backend("ray-simple", analytics_store={"uri": str(tmp_path / "file/store")})


def test_a_worker_loads_neither_registry_nor_backends():
    """It runs one job; the public names are there for whoever asks for them."""
    code = """
import sys
import batchrunner.jobs.worker_task
print([name for name in ("registry", "api", "ray_backend") if f"batchrunner.jobs.{name}" in sys.modules])
from batchrunner.jobs import *
print(submit_capability.__name__, UnknownJobError.__name__, NoJobBackendError.__name__)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], env=ENVIRONMENT, capture_output=True, text=True, check=False
    )

    assert done.stdout == "[]\nsubmit_capability UnknownJobError NoJobBackendError\n", done.stderr


def test_before_configure_there_is_nothing():
    """And the errors name what to call."""
    with pytest.raises(RuntimeError, match="configure_job_backend"):
        submit_capability(Scoring("a"))
    with pytest.raises(RuntimeError, match="configure_job_backend"):
        get_job("x")
    assert list_jobs() == []
    shutdown_job_backend()


def test_a_filter_that_is_no_status_is_a_type_error():
    """A typing mistake does not read as: no jobs."""
    for wrong in ("failed", ["failed"], 7):
        with pytest.raises(TypeError, match="JobStatus"):
            list_jobs(status_filter=wrong)


def test_three_states_are_terminal():
    """The others pass."""
    assert {status for status in JobStatus if status.is_terminal} == {
        JobStatus.COMPLETED,
        JobStatus.FAILED,
        JobStatus.CANCELLED,
    }


def test_the_key_is_the_logical_run():
    """Whoever asks for the same one, with whatever objects, gets the same key."""

    def key(**inputs):
        return run_key(Evaluation(), {"datasets": [Dataset("d")], **inputs})

    assert (
        key() == key() == key(config=Config()) == key(config={"threshold": 0.5, "num_cpus": None})
    )
    assert len({key(), key(config=Config(threshold=0.1)), key(datasets=[Dataset("e")])}) == 3
    assert key(models=["m"]) != key(metrics=["m"])
    assert key(models=["a", "b"]) != key(models=["b", "a"])
    assert run_key(Scoring("a"), {}) != run_key(Scoring("b"), {})


def test_what_has_no_identity_is_refused():
    """Two runs must not be one job because nobody could tell them apart."""
    with pytest.raises(ValueError, match=r"datasets\[0\] \(object\) has no id"):
        run_key(Scoring("a"), {"datasets": [object()]})
    with pytest.raises(ValueError, match="config holds a object"):
        run_key(Scoring("a"), {"config": {"x": object()}})


def test_an_edition_is_part_of_the_key_and_none_leaves_it_as_it_was():
    """Jobs that completed before there were editions are found by the same run still."""
    key = run_key(Scoring("a"), {})

    assert key == "0cbbaa2917f5e8caf87fb06432625e0e"
    assert len({key, *(run_key(Scoring("a"), {}, edition=e) for e in ("2", "3"))}) == 3


def test_a_batch_has_one_edition_however_it_is_said(tmp_path):
    """One word, one meaning."""
    a_source(tmp_path / "in")
    spec = a_spec(tmp_path, capability="job_capabilities:Score")
    said = BatchCapability(spec, edition="2")

    assert run_key(BatchCapability(spec).of_edition("2"), {}) == run_key(said, {})
    assert said.of_edition("") is said is said.of_edition("2")
    with pytest.raises(ValueError, match="edition '2' and submitted as '3'"):
        said.of_edition("3")


@pytest.mark.parametrize("wrong", [2, None, " 2", "a\nb", "x" * 101, "a b", "a/b", "../../x", "e'"])
def test_what_is_no_edition_is_refused(wrong):
    """It becomes a part of a name."""
    with pytest.raises(ValueError, match="edition must"):
        checked_edition(wrong)


@pytest.mark.parametrize("edition", ["", "2", "2026-05", "2026-05-01T10:00:00+02:00", "août_1.2"])
def test_a_word_or_a_date_is_an_edition(edition):
    """Whatever alphabet a team writes in."""
    assert checked_edition(edition) == edition


@pytest.mark.parametrize("kind", ["datasets", "models", "metrics"])
def test_what_is_no_list_of_inputs_is_refused(kind):
    """A text would pass for as many inputs as it has letters."""
    with pytest.raises(ValueError, match=rf"{kind} must be a list, not one text: .*\['text'\]"):
        check_call(Scoring("a"), {kind: "text"})
    with pytest.raises(ValueError, match=f"{kind} must be a list, not 3"):
        check_call(Scoring("a"), {kind: 3})


def test_a_class_in_place_of_a_capability_asks_for_an_instance():
    """Not for an argument `self`."""
    with pytest.raises(ValueError, match=r"Scoring is a class: give an instance, such as Scoring"):
        check_call(Scoring, {})


def test_arguments_of_another_kind_are_named(tmp_path):
    """Not by a TypeError from somewhere inside."""
    configure_job_backend("in-process", analytics_store={"uri": str(tmp_path)})
    with pytest.raises(InvalidSpecError, match=r"job_id must be a string.*not 3"):
        get_job(3)
    with pytest.raises(InvalidSpecError, match=r"limit must be .* not -1"):
        list_jobs(limit=-1)
    shutdown_job_backend()


@pytest.mark.parametrize("package", ["batchrunner", "batchrunner.jobs"])
def test_public_names_are_listed_before_they_are_imported(package):
    """A notebook completes what `dir` lists."""
    module = import_module(package)

    assert set(module.__all__) <= set(dir(module))


def test_an_async_run_is_refused_when_it_is_submitted():
    """The worker would get a coroutine, and nobody would await it."""

    class Async:
        id = "async"

        async def run(self, **inputs):
            raise AssertionError

    with pytest.raises(ValueError, match=r"`async`.*asyncio.run"):
        check_call(Async(), {})
    with pytest.raises(ValueError, match="returned a coroutine"):
        checked_run(Async().run())


def test_a_batch_is_told_apart_by_what_decides_its_output(tmp_path):
    """Not by how it is executed."""
    a_source(tmp_path / "in")

    def key(edition="", **changes):
        spec = a_spec(tmp_path, capability="job_capabilities:Score", **changes)
        return run_key(BatchCapability(spec, edition=edition), {})

    assert key() == key(execution={"engine": "local", "batch_size": 7})
    assert len({key(), key(sink=str(tmp_path / "b")), key(edition="monday")}) == 3


def test_resources_come_from_the_nearest_hint():
    """Those of the call, the config's, the capability's, one CPU."""

    class Capability:
        default_num_cpus, default_num_gpus = 3, 0.5

    def cpus_and_gpus(asked, config, capability):
        found = resources_of(asked, config=config, capability=capability)
        return found["num_cpus"], found["num_gpus"]

    assert cpus_and_gpus(None, None, object()) == (1, 0)
    assert cpus_and_gpus(None, None, Capability()) == (3, 0.5)
    assert cpus_and_gpus(None, Config(num_cpus=2), Capability()) == (2, 0.5)
    assert cpus_and_gpus({"num_cpus": 0.25}, Config(num_cpus=2), Capability()) == (0.25, 0.5)
    assert resources_of({"memory": "1GiB", "tpu": 2}, config=None, capability=None) == {
        "num_cpus": 1,
        "num_gpus": 0,
        "memory": 2**30,
        "accelerator_type": None,
        "resources": {"tpu": 2},
    }


@pytest.mark.parametrize(
    "wrong",
    [{"num_cpus": -1}, {"num_cpus": True}, {"num_gpus": 1.5}, {"tpu": "x"}, {"memory": -1}, [1]],
)
def test_an_amount_that_cannot_be_is_refused(wrong):
    """By us, with its name, not by Ray in a worker."""
    with pytest.raises(InvalidSpecError, match="resources"):
        resources_of(wrong, config=None, capability=None)


def test_errors_of_jobs_keep_their_message_when_they_are_pickled():
    """They cross processes, in tests, in services, in Ray itself."""
    error = JobFailedError("job x failed: ValueError: 5", job_id="x", traceback="line 5")
    copy = pickle.loads(pickle.dumps(error))
    assert (str(copy), copy.job_id, copy.traceback) == (str(error), "x", "line 5")
    assert "line 5" in copy.__notes__[0]
    late = pickle.loads(pickle.dumps(JobTimeoutError("late", job_id="x")))
    assert (str(late), late.job_id, isinstance(late, TimeoutError)) == ("late", "x", True)
    assert str(UnknownJobError("no job 'x'")) == "no job 'x'"


def test_a_claim_is_made_once(journal):
    """Of two clusters that submit the same run, one gets the number; both see who."""
    mine, other = a_submission(nonce="mine"), a_submission(nonce="other")

    assert journal.claim(mine) == mine
    assert journal.claim(mine) == mine
    assert journal.claim(other) == mine


def test_an_end_is_final(journal):
    """A terminal state never changes, whoever comes later with another one."""
    submission = journal.claim(a_submission())
    ref = CapabilityRunRef("r", "c", "/store#run_uid=r")
    completed = Outcome(JobStatus.COMPLETED, ref=ref)

    assert journal.outcome(submission.job_id) is None
    assert journal.end(submission.job_id, completed) == completed
    assert journal.end(submission.job_id, Outcome(JobStatus.CANCELLED)) == completed
    assert journal.read(submission.job_id).outcome == completed


def test_a_message_that_no_file_can_hold_is_kept_escaped(journal):
    """Why the job failed would be lost with it, and "str is not valid UTF-8" said instead."""
    submission = journal.claim(a_submission())
    journal.end(submission.job_id, Outcome.of_exception(ValueError("bad \ud800 letter")))

    outcome = journal.outcome(submission.job_id)
    assert outcome.error == r"ValueError: bad \ud800 letter"
    assert r"bad \ud800 letter" in outcome.traceback


def test_a_huge_message_is_cut_and_says_so():
    """Every handle, listing and journal would carry it."""
    outcome = Outcome.of_exception(ValueError("x" * 1_000_000))

    assert len(outcome.error) < 21_000
    assert outcome.error.endswith("x… (980,012 more letters are left out)")


def test_a_journal_tells_the_jobs_of_a_run_apart(journal):
    """The latest one decides whether the run can be submitted again."""
    for number in (1, 2, 10):
        journal.claim(a_submission(number))
    journal.end(f"{KEY}-1", Outcome.failed("x"))
    journal.add_attempt(a_submission(10), 2)
    journal.add_attempt(a_submission(10), 3)

    assert journal.latest(KEY).submission.number == 10
    assert journal.latest(KEY).attempts == 3
    assert journal.jobs() == {f"{KEY}-1": True, f"{KEY}-2": False, f"{KEY}-10": False}
    assert journal.latest("f" * 32) is None


@pytest.mark.parametrize("job_id", ["", "x", f"{KEY}-0", f"{KEY}-9", f"../{KEY}-1", f"{KEY}-1/.."])
def test_no_job_has_a_strange_id(journal, job_id):
    """Ids come from users; they never become paths."""
    journal.claim(a_submission())
    assert journal.read(job_id) is None


def test_the_same_run_in_two_scopes_has_two_ids(tmp_path):
    """`runs.job_id` of a store names one job; and the ids that jobs had before still find them."""
    config = AnalyticsStoreConfig(uri=str(tmp_path))
    first, second = (Journal.of(config, scope=scope) for scope in ("a", "b"))
    ids = [journal.id_of(KEY, 1) for journal in (first, second)]
    mine = first.claim(a_submission(job_id=ids[0]))

    assert len(set(ids)) == 2
    assert first.read(ids[0]).submission == first.read(f"{KEY}-1").submission == mine
    assert first.jobs() == {ids[0]: False}
    second.claim(a_submission(job_id=ids[1]))
    assert second.read(ids[0]) is None


def test_a_journal_is_pruned_before_it_holds_a_tenth_too_much():
    """The bound is one, also when it is small."""

    def after(most):
        store = AnalyticsStoreConfig(uri="store")
        fields = {"analytics_store": store, "idempotency_scope": "s"}
        return prune_after(RayOptions(**fields, max_retained_terminal_jobs_per_scope=most))

    assert [after(most) for most in (0, 5, 50, 10_000, None)] == [1, 1, 5, 100, 100]


def test_half_a_secret_at_the_cut_of_a_log_is_dropped_with_its_line(monkeypatch):
    """What is left of it would not be recognised."""
    secrets.remember({"token": "a-secret-value"})
    monkeypatch.setattr(job_log, "KEPT_BYTES", 40)
    kept = []
    with JobLog(kept.append):
        print("the token is a-secret-value")  # noqa: T201 - what it says is kept
        print("and again: a-secret-value.")  # noqa: T201 - likewise

    assert kept[-1] == b"and again: ***.\n"


@pytest.mark.parametrize("configured", ["", "logging.basicConfig()"])
def test_the_log_of_a_job_has_what_is_printed_and_logged(configured):
    """Once each; and the user's code may configure logging in it."""
    code = f"""
import logging, sys
from batchrunner.jobs.job_log import JobLog
texts = []
with JobLog(texts.append):
    {configured}
    print("printed")
    print("complained", file=sys.stderr)
    logging.getLogger("user").warning("careful")
    logging.getLogger("batchrunner.storage").warning("slow")
sys.stdout.buffer.write(texts[-1])
"""
    done = subprocess.run(
        [sys.executable, "-c", code], env=ENVIRONMENT, capture_output=True, text=True, check=False
    )

    log = done.stdout.removeprefix("printed\n")  # it is printed all the same
    assert [log.count(word) for word in ("printed", "complained", "careful")] == [1, 1, 1], done
    assert "slow" in log


def test_removing_a_job_leaves_the_others_of_its_run(journal):
    """And nothing of its own."""
    for number in (1, 2):
        journal.claim(a_submission(number))
        journal.write_log(f"{KEY}-{number}", 1, b"said")
        journal.end(f"{KEY}-{number}", Outcome.failed("x"))

    journal.remove(f"{KEY}-1")

    assert journal.jobs() == {f"{KEY}-2": True}
    assert journal.read_log(f"{KEY}-2") == b"said"


def test_fields_that_only_later_versions_know_do_no_harm(journal):
    """Processes of one scope see one history, also while versions change."""
    storage = journal._storage
    submission = a_submission()
    fields = {**json.loads(submission.to_bytes()), "mood": "good"}
    storage.put(f"runs/{KEY}/00000001.json", json.dumps(fields).encode())
    ended = {"version": 1, "status": "failed", "error": "x", "ended_at": "t", "mood": "bad"}
    storage.put(f"runs/{KEY}/00000001.ended.json", json.dumps(ended).encode())

    record = journal.read(submission.job_id)

    assert (record.submission, record.outcome.error) == (submission, "x")


def test_entries_of_version_1_are_read(journal):
    """As they were written by the first release; on-disk formats are API."""
    submitted = {
        "version": 1,
        "job_id": f"{KEY}-1",
        "key": KEY,
        "number": 1,
        "name": "a job",
        "capability_id": "scoring.a",
        "created_at": "2026-01-01T00:00:00.000000+00:00",
        "created_by": "user@host",
        "cluster": {"id": "head", "address": "127.0.0.1:1", "registry": "namespace/name"},
        "store_uri": "/store",
        "max_retries": 0,
        "resources": {},
        "versions": {},
        "nonce": "n",
    }
    ended = {
        "version": 1,
        "status": "completed",
        "ref": {"run_uid": "r", "capability_id": "c", "store_uri": "/s", "outputs_uri": None},
        "error": "",
        "traceback": "",
        "ended_at": "2026-01-01T00:00:01.000000+00:00",
        "warnings": ["w"],
    }
    journal._storage.put(f"runs/{KEY}/00000001.json", json.dumps(submitted).encode())
    journal._storage.put(f"runs/{KEY}/00000001.ended.json", json.dumps(ended).encode())
    journal._storage.put(f"runs/{KEY}/00000001.attempt-2.json", b'{"version":1,"attempt":2}')

    record = journal.latest(KEY)

    assert (record.submission, record.attempts) == (a_submission(), 2)
    assert record.outcome.ref == CapabilityRunRef("r", "c", "/s")
    assert json.loads(a_submission().to_bytes()) == submitted
    assert {"version": 1, **record.outcome.to_dict(), "warnings": ["w"]} == ended


def test_an_entry_of_a_later_format_is_named_and_hides_no_other(journal, caplog):
    """A clear error where it is asked for; a warning in a listing."""
    storage = journal._storage
    storage.put(f"runs/{KEY}/00000001.json", b'{"version": 2}')
    journal.claim(a_submission(2))

    with pytest.raises(
        NewerFormatError, match=r"00000001.json has format version 2; .* reads up to 1"
    ):
        journal.read(f"{KEY}-1")
    found = list(journal.read_many([f"{KEY}-1", f"{KEY}-2"]))

    assert [record.submission.number for record in found] == [2]
    assert "format version 2" in caplog.text


def test_versions_that_differ_are_told_and_another_python_is_refused():
    """Pickles made by one minor version of Python are not for another."""
    here = versions_here()

    assert difference(here) == ""
    assert "batchrunner 9.9 and " in difference({**here, "batchrunner": "9.9"})
    with pytest.raises(Exception, match="one minor version of Python"):
        difference({**here, "python": "3.99.0"})
