"""Tests for any job backend: subclass `JobsContract`, and define its kind and its options.

    class TestMyBackend(JobsContract):
        kind = "mine"                                     # as registered

        @pytest.fixture
        def options(self, tmp_path): return {"analytics_store": {"uri": str(tmp_path)}}

For a backend that deduplicates jobs, subclass `OneJobPerRunContract`, too; for a backend that runs
jobs in processes of their own, `OwnProcessContract`. Workers must be able to import
`batchrunner.testing`.
"""
# A test suite, although it is shipped.
# ruff: noqa: S101

from __future__ import annotations

import asyncio
import json
import sys
import threading
import time
import types
import uuid
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, ClassVar

import pytest

from batchrunner.analytics import CompletedRun, open_store
from batchrunner.jobs import (
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
from batchrunner.testing.job_capabilities import (
    Config,
    Dataset,
    DiesBeforeWriting,
    Evaluation,
    HoldsALock,
    Raises,
    RaisesOddly,
    Reports,
    Returns,
    SaysSecrets,
    Scoring,
)

LONG = 120.0
"""Timeout in seconds: a healthy job takes less."""

Options = Mapping[str, Any]


class _Jobs:
    """Configures the backend before each test, and shuts it down afterwards."""

    kind: ClassVar[str]
    too_much: ClassVar[Mapping[str, Any]] = {"num_cpus": 500}
    """Resources that the backend never has, so that a job stays pending."""

    @pytest.fixture
    def options(self, tmp_path: Path) -> Options:
        """Return the backend's options, with a store on a disk. Tests may share store and scope."""
        return {"analytics_store": {"uri": str(tmp_path / "store")}}

    @pytest.fixture(autouse=True)
    def _backend(self, options: Options) -> Iterator[None]:
        configure_job_backend(self.kind, **options)
        yield
        shutdown_job_backend(wait=False)

    @pytest.fixture
    def tag(self) -> str:
        """Return a tag for runs that no other test submits."""
        return uuid.uuid4().hex[:12]

    def configure(self, options: Options, **more: Any) -> None:
        """Configure the backend again, with *more* options."""
        configure_job_backend(self.kind, **{**options, **more})


class JobsContract(_Jobs):
    """Tests of what every backend promises."""

    def test_a_job_returns_the_address_of_its_records(self, tag: str, options: Options) -> None:
        """The address stays small, however much the run produced; the store has the rest."""
        job = submit_capability(Scoring(tag, records=1000), job_name="thousand scores")

        ref = job.result(LONG)

        run = open_store(ref).read_run(ref)
        assert (ref.run_uid, ref.capability_id) == (f"run-scoring.{tag}", f"scoring.{tag}")
        assert len(run.records["score"]) == 1000
        assert len(json.dumps(asdict(ref))) < 600
        assert (job.status, job.job_name) == (JobStatus.COMPLETED, "thousand scores")
        assert job.exception() is None
        assert {(row["backend"], row["job_id"]) for row in run.runs} == {(self.kind, job.job_id)}
        assert job.created_at.tzinfo is not None
        assert abs(datetime.now(UTC) - job.created_at) < timedelta(seconds=LONG)
        assert is_recorded(options, ref.run_uid)

    def test_a_run_without_records_completes_and_is_recorded(self, tag: str) -> None:
        """Finding nothing is a result, too."""
        ref = submit_capability(Scoring(tag, records=0)).result(LONG)

        assert open_store(ref.store_uri).read_run(ref).runs[0]["capability_id"] == f"scoring.{tag}"

    def test_a_capability_of_an_evaluation_package_runs_unchanged(self, tag: str) -> None:
        """It takes positional inputs, metadata with an id, and a config with resources."""
        config = Config(num_cpus=0.5)

        ref = submit_capability(Evaluation(), None, [Dataset(tag)], config=config).result(LONG)

        assert ref.run_uid == f"evaluations.Evaluation-{tag}-0.5"

    def test_a_failure_has_the_workers_message_and_traceback(self, tag: str) -> None:
        """`result` raises with the exception itself as the cause; `wait` never raises."""
        job = submit_capability(Scoring(tag, fails="five is right out"))

        assert job.wait(LONG) is JobStatus.FAILED
        with pytest.raises(JobFailedError, match="ValueError: five is right out") as caught:
            job.result()
        assert caught.value.job_id == job.job_id
        assert 'raise ValueError(does["fails"])' in caught.value.traceback
        assert isinstance(caught.value.__cause__, ValueError)
        assert str(job.exception()) == str(caught.value)

    def test_an_exception_that_cannot_be_pickled_leaves_its_message(self, tag: str) -> None:
        """Message and traceback are stored without colours."""
        job = submit_capability(RaisesOddly(tag))

        with pytest.raises(JobFailedError, match="OddError: odd, and coloured") as caught:
            job.result(LONG)
        assert "\x1b" not in caught.value.traceback
        assert caught.value.__cause__ is None

    @pytest.mark.parametrize("raised", [KeyboardInterrupt, asyncio.CancelledError])
    def test_whatever_the_users_code_raises_fails_the_job_and_is_named(
        self, tag: str, raised: type[BaseException]
    ) -> None:
        """Neither was the job cancelled nor did its worker die."""
        job = submit_capability(Raises(tag, raised))

        with pytest.raises(JobFailedError, match=f"{raised.__name__}: of the user's own") as caught:
            job.result(LONG)
        assert isinstance(caught.value.__cause__, raised)
        assert "raise self.raises" in caught.value.traceback

    @pytest.mark.parametrize("returned", [None, {"accuracy": 1.0}, [CompletedRun("u", "c")]])
    def test_what_is_no_run_is_named_and_what_is_wanted_too(self, tag: str, returned: Any) -> None:
        """An `AttributeError` from within batchrunner would not help the user."""
        job = submit_capability(Returns(tag, returned))

        with pytest.raises(JobFailedError, match=r"run\(\) returned .*CompletedRun\(run_uid, "):
            job.result(LONG)

    def test_another_edition_runs_the_same_run_again(
        self, tag: str, options: Options, tmp_path: Path
    ) -> None:
        """The second run and its records are stored beside the first, under a name of their own."""
        capability = Scoring(tag, calls=str(tmp_path / "calls"))
        first = submit_capability(capability).result(LONG)

        second = submit_capability(capability, edition="2").result(LONG)

        assert executions(tmp_path / "calls") == 2
        assert (first.run_uid, second.run_uid) == (f"run-scoring.{tag}", f"run-scoring.{tag}-2")
        store = open_store(options["analytics_store"])
        for ref in (first, second):
            assert [row["run_uid"] for row in store.read_run(ref).records["score"]] == [ref.run_uid]

    def test_the_report_of_a_run_is_stored_and_its_ref_says_where(
        self, tag: str, options: Options
    ) -> None:
        """The ref stays small, and is enough to find the report."""
        ref = submit_capability(Reports(tag)).result(LONG)

        store = open_store(options["analytics_store"])
        assert store.read_report(ref) == "# Good from 0.5 on\n"
        assert ref.outputs_uri is not None
        assert ref.outputs_uri == store.report_uri(ref)
        assert Path(ref.outputs_uri).read_text() == store.read_report(ref)
        assert {row["outputs_uri"] for row in store.read_run(ref).runs} == {ref.outputs_uri}
        assert len(json.dumps(asdict(ref))) < 600

    def test_the_log_of_a_job_can_be_read(self, tag: str, tmp_path: Path) -> None:
        """The log has the output of its code, and none of a job that runs at the same time."""
        gate, beats = tmp_path / "gate", [tmp_path / f"beats-{n}" for n in range(2)]
        does = {"until": str(gate)}
        runs = [Scoring(f"{tag}.{n}", beats=str(beats[n]), **does) for n in range(2)]
        jobs = [submit_capability(run, resources={"num_cpus": 0.5}) for run in runs]
        wait_for(lambda: all(path.exists() for path in beats))
        gate.touch()
        for job in jobs:
            job.wait(LONG)

        logs = [get_job(job.job_id).logs() for job in jobs]
        assert logs == [f"scoring scoring.{tag}.{n}\n" for n in range(2)]

    def test_a_job_that_waits_for_resources_is_pending(self, tag: str) -> None:
        """It does not read RUNNING. A timeout does not cancel it; `cancel` does, at once."""
        job = submit_capability(Scoring(tag), resources=self.too_much)

        with pytest.raises(JobTimeoutError, match=r"is pending after 0\.3 s"):
            job.result(0.3)
        assert job.wait(0) is JobStatus.PENDING
        assert job.cancel() is True
        assert job.status is JobStatus.CANCELLED
        with pytest.raises(JobCancelledError, match=job.job_id):
            job.result()
        assert job.cancel() is False

    def test_a_job_that_reads_cancelled_does_not_run(
        self, tag: str, tmp_path: Path, options: Options
    ) -> None:
        """CANCELLED means that the job has ended, not that its end was requested."""
        beats = tmp_path / "beats"
        capability = Scoring(tag, until=str(tmp_path / "never"), beats=str(beats))
        job = submit_capability(capability)
        wait_for(lambda: job.status is JobStatus.RUNNING and beats.exists())

        assert job.cancel() is True
        assert job.status is JobStatus.CANCELLED
        size = beats.stat().st_size
        # A fixed sleep: there is no condition to wait for when nothing is to happen.
        time.sleep(0.3)
        assert beats.stat().st_size == size
        assert not is_recorded(options, capability.run_uid)

    def test_a_job_that_has_ended_cannot_be_cancelled(self, tag: str) -> None:
        """A terminal state never changes."""
        job = submit_capability(Scoring(tag))
        job.wait(LONG)

        assert job.cancel() is False
        assert job.status is JobStatus.COMPLETED

    def test_what_cannot_be_pickled_is_named(self, tag: str) -> None:
        """`submit_capability` raises before anything starts."""
        with pytest.raises(Exception, match=r"its capability, a [\w.]+\.HoldsALock, cannot"):
            submit_capability(HoldsALock(tag))
        with pytest.raises(Exception, match=r"its datasets, a builtins.list, cannot be pickled"):
            submit_capability(Scoring(tag), datasets=[threading.Lock()])

    def test_a_large_payload_warns_and_says_what_to_do(
        self, tag: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The job runs nevertheless."""
        monkeypatch.setattr(requests, "LARGE_BYTES", 200_000)

        with pytest.warns(UserWarning, match="pass a URI"):
            job = submit_capability(Scoring(tag, ballast=b"x" * 300_000))

        assert job.wait(LONG) is JobStatus.COMPLETED

    def test_the_cache_of_a_worker_is_refused(self, tag: str) -> None:
        """That cache is neither durable nor shared."""
        with pytest.raises(ValueError, match="use_cache=True"):
            submit_capability(Scoring(tag), use_cache=True)

    def test_arguments_that_run_does_not_take_are_refused(self, tag: str) -> None:
        """`submit_capability` checks them, before a worker does."""
        with pytest.raises(ValueError, match="unexpected keyword argument 'thresold'"):
            submit_capability(Scoring(tag), thresold=0.5)
        with pytest.raises(ValueError, match="`id` and `run"):
            submit_capability(object())

    def test_jobs_are_listed_newest_first(self, tag: str) -> None:
        """They can be filtered by state and time, and limited in number."""
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

    def test_an_unknown_job_is_a_key_error(self) -> None:
        """Its message has the id that was asked for."""
        with pytest.raises(KeyError, match="no job 'unheard-of'"):
            get_job("unheard-of")

    def test_a_shutdown_does_not_wait_for_ever(self, tag: str) -> None:
        """A warning names the job that never gets its resources; it can still be cancelled."""
        job = submit_capability(Scoring(tag), resources=self.too_much)

        with pytest.warns(UserWarning, match=job.job_id):
            shutdown_job_backend(timeout=0.2)

        assert list_jobs() == []
        assert job.cancel() is True

    def test_another_configuration_interrupts_no_job(
        self, tag: str, tmp_path: Path, options: Options
    ) -> None:
        """A user who runs a notebook cell again does not lose the jobs that it submitted before."""
        gate = tmp_path / "gate"
        job = submit_capability(Scoring(tag, until=str(gate)))

        self.configure(options)
        gate.touch()

        assert job.wait(LONG) is JobStatus.COMPLETED

    def test_a_refused_configuration_leaves_the_backend_as_it_was(
        self, tag: str, options: Options
    ) -> None:
        """A mistake in a notebook cell does not lose the jobs of the cell before it."""
        job = submit_capability(Scoring(tag))

        with pytest.raises(ValueError, match="no_such_option"):
            self.configure(options, no_such_option=1)
        with pytest.raises(ValueError, match="kinds"):
            configure_job_backend("slurm", **options)

        assert get_job(job.job_id).job_id == job.job_id

    def test_no_secret_is_stored_or_shown(self, tag: str, tmp_path: Path, options: Options) -> None:
        """No file, log, message or repr has it, even if the user's code prints or raises it."""
        canary = f"SECRET-{tag}"
        store = {"uri": str(tmp_path / "secret"), "storage_options": {"secret": canary}}
        more = {"idempotency_scope": tag} if "idempotency_scope" in options else {}
        self.configure(options, analytics_store=store, **more)
        good = submit_capability(SaysSecrets(tag, secret=canary, raises=False))
        bad = submit_capability(SaysSecrets(f"{tag}.x", secret=canary, raises=True))
        error = bad.exception() if bad.wait(LONG) is JobStatus.FAILED else None

        assert error is not None
        assert good.wait(LONG) is JobStatus.COMPLETED
        assert str(error).endswith("ValueError: bad token ***")
        assert good.logs().count("token ***\n") == 2
        shown = f"{good!r} {error!r} {error.traceback} {error.__cause__!r} {bad.logs()}"
        assert canary not in shown
        files = [path for path in (tmp_path / "secret").rglob("*") if path.is_file()]
        assert len(files) > 3
        assert not [path for path in files if canary.encode() in path.read_bytes()]


class OneJobPerRunContract(_Jobs):
    """Tests of a backend that deduplicates: within a scope, the same run is one job."""

    def test_another_edition_is_another_job_and_the_same_one_is_not(self, tag: str) -> None:
        """Two submissions are the same run only if they have the same edition."""
        first, second = (submit_capability(Scoring(tag), edition=e) for e in ("", "2"))

        assert first.job_id != second.job_id
        assert submit_capability(Scoring(tag), edition="2").job_id == second.job_id
        with pytest.raises(ValueError, match="edition must be a word"):
            submit_capability(Scoring(tag), edition=" 2")

    def test_eight_threads_that_submit_one_run_get_one_job(self, tag: str, tmp_path: Path) -> None:
        """The run is executed once, too."""
        capability = Scoring(tag, calls=str(tmp_path / "calls"))

        with ThreadPoolExecutor(8) as pool:
            jobs = list(pool.map(lambda _: submit_capability(capability), range(8)))

        assert len({job.job_id for job in jobs}) == 1
        assert {job.result(LONG).run_uid for job in jobs} == {capability.run_uid}
        assert executions(tmp_path / "calls") == 1

    def test_a_completed_run_is_not_run_again(self, tag: str, tmp_path: Path) -> None:
        """The second submission gets the first job, even if it asks for other resources."""
        capability = Scoring(tag, calls=str(tmp_path / "calls"))
        first = submit_capability(capability)
        first.wait(LONG)

        second = submit_capability(capability, resources={"num_cpus": 2})

        assert (second.job_id, second.result()) == (first.job_id, first.result())
        assert executions(tmp_path / "calls") == 1

    def test_a_failed_or_cancelled_run_can_be_submitted_again(self, tag: str) -> None:
        """The retry is a new job; the first one keeps its status."""
        failing = Scoring(tag, fails="x")
        first = submit_capability(failing)
        first.wait(LONG)

        second = submit_capability(failing, resources=self.too_much)
        assert second.job_id != first.job_id
        second.cancel()
        third = submit_capability(Scoring(tag))

        assert third.wait(LONG) is JobStatus.COMPLETED
        states = [get_job(job.job_id).status.value for job in (first, second, third)]
        assert states == ["failed", "cancelled", "completed"]

    def test_scopes_share_nothing(self, tag: str, tmp_path: Path, options: Options) -> None:
        """The run is executed once in each scope, and each scope lists only its own job."""
        capability = Scoring(tag, calls=str(tmp_path / "calls"))
        first = submit_capability(capability)
        first.wait(LONG)

        self.configure(options, idempotency_scope=f"other-{tag}")
        with pytest.raises(KeyError):
            get_job(first.job_id)
        second = submit_capability(capability)

        assert second.wait(LONG) is JobStatus.COMPLETED
        assert second.job_id != first.job_id
        assert [job.job_id for job in list_jobs()] == [second.job_id]
        assert executions(tmp_path / "calls") == 2

    def test_history_outlives_a_shutdown(self, tag: str, tmp_path: Path, options: Options) -> None:
        """Ended jobs are stored durably: they can be listed and read, and are not run again."""
        capability = Scoring(tag, calls=str(tmp_path / "calls"))
        job = submit_capability(capability)
        ref = job.result(LONG)
        shutdown_job_backend()

        self.configure(options)

        assert list_jobs(limit=1)[0].job_id == job.job_id
        assert get_job(job.job_id).result(LONG) == ref
        assert get_job(job.job_id).logs() == job.logs()
        assert submit_capability(capability).job_id == job.job_id
        assert executions(tmp_path / "calls") == 1

    def test_listing_jobs_while_they_are_submitted_disturbs_none(self, tag: str) -> None:
        """`list_jobs` does not mistake a job that was just claimed for a lost one."""
        done = threading.Event()

        def list_until_done() -> None:
            while not done.is_set():
                list_jobs(limit=5)

        with ThreadPoolExecutor(6) as pool:
            listing = [pool.submit(list_until_done) for _ in range(3)]
            jobs = list(pool.map(lambda n: submit_capability(Scoring(f"{tag}.{n}")), range(60)))
            ends = {job.wait(LONG) for job in jobs}
            done.set()
            for one in listing:
                one.result()

        assert ends == {JobStatus.COMPLETED}


class OwnProcessContract(_Jobs):
    """Tests of a backend that runs jobs in processes of their own, which may die."""

    def test_a_worker_killed_between_run_and_write_never_reads_completed(
        self, tag: str, options: Options
    ) -> None:
        """A job is completed when its records are durable, not when they are computed."""
        submit_capability(Scoring(f"{tag}.first")).wait(LONG)  # so that there is a table `runs`
        capability = DiesBeforeWriting(tag)
        began = time.monotonic()

        job = submit_capability(capability)

        with pytest.raises(JobFailedError, match="its worker died"):
            job.result(LONG)
        assert time.monotonic() - began < LONG / 2
        assert not is_recorded(options, capability.run_uid)

    def test_a_worker_that_dies_is_replaced_max_retries_times(
        self, tag: str, tmp_path: Path, options: Options
    ) -> None:
        """A job whose worker died is retried; a job whose capability raised is not."""
        self.configure(options, max_retries=2)
        dying = Scoring(tag, calls=str(tmp_path / "dying"), dies=2)
        raising = Scoring(f"{tag}.raising", calls=str(tmp_path / "raising"), fails="no")

        assert submit_capability(dying).result(LONG).run_uid
        assert submit_capability(raising).wait(LONG) is JobStatus.FAILED
        assert executions(tmp_path / "dying") == 3
        assert executions(tmp_path / "raising") == 1

    def test_what_the_worker_cannot_import_is_named(
        self, tag: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The error names the way out, in place of a traceback of pickle."""
        only_here: Any = types.ModuleType("only_here")
        only_here.Here = type("Here", (Scoring,), {"__module__": "only_here"})
        monkeypatch.setitem(sys.modules, "only_here", only_here)

        job = submit_capability(only_here.Here(tag))

        with pytest.raises(JobFailedError, match=r"cannot import 'only_here'.*runtime_env"):
            job.result(LONG)


def is_recorded(options: Options, run_uid: str) -> bool:
    """Return whether the store in *options* has the run."""
    store = open_store(options["analytics_store"])
    if "runs" not in store.list_tables():
        return False
    return run_uid in store.read_table("runs").column("run_uid").to_pylist()


def executions(folder: Path) -> int:
    """Return how often a `Scoring` with `calls` set to *folder* was executed."""
    return len(list(folder.iterdir())) if folder.exists() else 0


def wait_for(condition: Callable[[], object], *, seconds: float = LONG) -> None:
    """Wait until *condition* returns something true."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"waited {seconds} s for {condition}"
        time.sleep(0.01)
