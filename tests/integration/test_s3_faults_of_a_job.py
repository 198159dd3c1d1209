"""A small job in a bucket, each of whose requests fails in every way that HTTP has."""

from __future__ import annotations

import time
import uuid
from dataclasses import replace
from itertools import count

import pytest

from batchrunner import BatchRunner, BatchSpec
from batchrunner.errors import BatchRunnerError, StorageError
from batchrunner.storage import schemes
from batchrunner.storage.s3.retry import RetryPolicy
from batchrunner.storage.s3.storage import S3Storage
from batchrunner.testing.fault_proxy import Fault, NetworkFaultKind, fault_proxy
from batchrunner.verify import verify
from buckets import Bucket, prove_anew
from builders import rows
from patience import PATIENCE

QUICK = RetryPolicy(max_attempts=3, deadline=60, first_delay=0.01, max_delay=0.02)
HANGING = 2
"""Seconds until a request that hangs is given up; no other fault is found by waiting.

A healthy request that takes longer on a busy machine is repeated, as one that hangs is.
"""
EXPECTED = rows(0, 4)
REPEATS = 2
"""aiohttp repeats a request once by itself on a connection that turns out broken."""

FAULTS = {
    "503": Fault(NetworkFaultKind.STATUS, status=503, code="SlowDown"),
    "500": Fault(NetworkFaultKind.STATUS, status=500, code="InternalError"),
    "429": Fault(NetworkFaultKind.STATUS, status=429, code="TooManyRequests"),
    "409": Fault(NetworkFaultKind.STATUS, status=409, code="ConditionalRequestConflict"),
    "reset before": Fault(NetworkFaultKind.RESET_BEFORE),
    "reset after": Fault(NetworkFaultKind.RESET_AFTER),
    "cut body": Fault(NetworkFaultKind.CUT_BODY),
    "hang": Fault(NetworkFaultKind.HANG),
}

PAGE = "<html><body>Log in to go on<br></body></html>"
HTML = ("Content-Type: text/html", 'ETag: "5f3c-61a"')
LIES = {
    "nothing": Fault(NetworkFaultKind.STATUS, status=200, body=""),
    "a page": Fault(NetworkFaultKind.STATUS, status=200, body=PAGE, headers=HTML[:1]),
    "a page with an etag": Fault(NetworkFaultKind.STATUS, status=200, body=PAGE, headers=HTML),
    "another document": Fault(NetworkFaultKind.STATUS, status=200, body="<ok/>"),
    "a redirect": Fault(
        NetworkFaultKind.STATUS, status=302, body=PAGE, headers=("Location: /login",)
    ),
    "no such page": Fault(NetworkFaultKind.STATUS, status=404, body=PAGE, headers=HTML[:1]),
    "NoSuchKey": Fault(NetworkFaultKind.STATUS, status=404, code="NoSuchKey"),
    "412": Fault(NetworkFaultKind.STATUS, status=412, code="PreconditionFailed"),
    "403": Fault(NetworkFaultKind.STATUS, status=403, code="AccessDenied"),
    "400": Fault(NetworkFaultKind.STATUS, status=400, code="ExpiredToken"),
    "301": Fault(NetworkFaultKind.STATUS, status=301, code="PermanentRedirect"),
}
"""What a store does not say, but what stands in front of it does."""


@pytest.fixture(scope="module")
def place(moto):
    """A bucket, and a proxy in front of it."""
    bucket = Bucket(moto, "faults")
    with fault_proxy(moto) as proxy:
        yield bucket, proxy
    bucket.close()


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Insists for seconds rather than minutes."""

    def opened(root, options):
        bucket, _, prefix = root.partition("/")
        return S3Storage(bucket, prefix, storage_options=options, retry=QUICK)

    monkeypatch.setitem(schemes.SCHEMES, "s3", opened)


class Job:
    """Four rows in a bucket of their own, behind the proxy, in two shards or in four."""

    def __init__(self, bucket, proxy, *, shards=2, fault="") -> None:
        self._proxy = proxy
        self.bucket = bucket.beside(uuid.uuid4().hex)
        for shard in range(shards):
            first = shard * 4 // shards
            self.bucket.put_rows(f"in/{shard}.jsonl", EXPECTED[first : first + 4 // shards])
        patience = HANGING if fault == "hang" else PATIENCE
        timeouts = {"read_timeout": patience, "connect_timeout": PATIENCE}
        options = proxy.server.storage_options | {"config_kwargs": timeouts}
        self.spec = BatchSpec(
            capability="capabilities:echo",
            source={"uri": f"{self.bucket.uri}/in", "storage_options": options},
            sink={"uri": f"{self.bucket.uri}/out", "storage_options": options},
            execution={"engine": "local"},
        )

    def run(self, *faults: Fault, may_fail: type[BatchRunnerError] = StorageError) -> bool:
        """Return whether it got to its end."""
        prove_anew()
        self._proxy.inject(*faults)
        try:
            return BatchRunner(self.spec).run().ok
        except BatchRunnerError as error:
            assert isinstance(error, may_fail), error  # noqa: PT017 - what kind is the claim
            return False

    def lose_half(self) -> None:
        """Leave what a killed run leaves: a part without a sentinel, and a shard without both."""
        if not self.bucket.listed("half/"):
            assert self.run()
            self.bucket.copy_folder("out", "half")
            sentinels = [f"half/_checkpoint/sentinels/part-0000{shard}.json" for shard in (1, 3)]
            ledgers = self.bucket.listed("half/_checkpoint/sentinel_index/")
            for key in ("half/_SUCCESS", "half/part-00003.jsonl", *sentinels, *ledgers):
                self.bucket.delete(key)
        self.bucket.copy_folder("half", "out")

    def is_there(self) -> bool:
        """Ask the server itself whether all of the output is there."""
        found = {"out/_SUCCESS", "out/_manifest.json"} <= self.bucket.listed("out/_").keys()
        parts = self.bucket.listed("out/part-").keys()
        return (
            found and parts == self.bucket.sentinels().keys() and self.bucket.rows_out() == EXPECTED
        )

    def finish(self) -> None:
        """Go on without faults; then everything is there, once."""
        assert self.run()
        assert self.is_there()

    def recovers(self) -> bool:
        return self.run(may_fail=BatchRunnerError) and self.is_there()


def requests_of_a_run(bucket, proxy) -> int:
    assert Job(bucket, proxy).run()
    return len(proxy.requests)


def fail_each(place, name, *, stride, first=1, fully=False):
    """Let each request of a job fail once, one job after the other; the job must not notice."""
    survived = fired = 0
    for nth in count(first, stride):
        job = Job(*place, fault=name)
        ended = job.run(replace(FAULTS[name], nth=nth))
        if not place[1].fired:
            break
        fired, survived = fired + 1, survived + ended
        job.finish()
        assert not fully or verify(job.spec).ok
    return fired, survived


@pytest.mark.parametrize("name", FAULTS)
def test_one_fault_at_some_requests_of_a_job_goes_unnoticed(place, name):
    """A sample of the sweep below; each kind begins at another request."""
    # A run makes some fifty requests: two of them fail for every kind, whichever it begins at.
    first = 1 + 3 * [*FAULTS].index(name) % 24
    fired, survived = fail_each(place, name, stride=25, first=first)

    assert fired >= 2
    assert survived == fired


@pytest.mark.soak
@pytest.mark.parametrize("name", FAULTS)
def test_one_fault_at_any_request_of_a_job_goes_unnoticed(place, name):
    """Right the first time, or stopped and right the second time; nearly always the first."""
    fired, survived = fail_each(place, name, stride=1, fully=True)

    assert fired > 40
    assert survived >= 0.95 * fired


def fail_for_good(place, fault, *, resumed, stride=1):
    """Let each request of a job fail, however often it is repeated; return how many, and what broke.

    A *resumed* job has lost half of its output.
    """
    job, fired, wrong = Job(*place, shards=4), 0, []
    for nth in count(1, stride):
        if resumed:
            job.lose_half()
        else:
            job = Job(*place, shards=4)
        ended = job.run(replace(fault, nth=nth, sticks=True), may_fail=BatchRunnerError)
        if not place[1].fired:
            return fired, wrong
        fired, struck = fired + 1, place[1].struck
        if ended and not job.is_there():
            wrong.append(f"a false success after {struck}")
        if not ended and not job.recovers():
            wrong.append(f"nothing goes on after {struck}")
    return fired, wrong


@pytest.mark.parametrize(
    ("which", "resumed", "stride"), [({"method": "PUT"}, False, 3), ({}, True, 13)]
)
def test_no_answer_that_lies_makes_a_success(place, which, resumed, stride):
    """A sample of the sweep below: of PUTs most, for what they do not store is missing."""
    fault = replace(LIES["nothing"], **which)

    fired, wrong = fail_for_good(place, fault, resumed=resumed, stride=stride)

    assert wrong == []
    assert fired >= 3


@pytest.mark.soak
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("resumed", [False, True], ids=["new", "resumed"])
@pytest.mark.parametrize("name", LIES | FAULTS)
def test_no_answer_to_any_request_makes_a_success_that_is_none(place, name, resumed):
    """A proxy, a gateway, a login page: what they call done, the bucket has to show."""
    fired, wrong = fail_for_good(place, (LIES | FAULTS)[name], resumed=resumed)

    assert wrong == []
    assert fired > 40


@pytest.mark.parametrize("name", [name for name in FAULTS if name != "cut body"])
def test_a_store_that_is_down_is_given_up_soon_and_gone_on_with_later(place, name):
    """A typed error after a bounded number of requests, in bounded time."""
    job = Job(*place, fault=name)
    began = time.monotonic()

    ended = job.run(FAULTS[name])

    assert not ended
    assert time.monotonic() - began < 2 * QUICK.deadline
    assert len(place[1].requests) <= 4 * QUICK.max_attempts * REPEATS
    job.finish()


@pytest.mark.parametrize("name", ["503", pytest.param("hang", marks=pytest.mark.soak)])
def test_a_store_that_goes_down_in_the_middle_stops_the_job_and_it_goes_on(place, name):
    """From some request on nothing is answered any more."""
    requests = requests_of_a_run(*place)
    for number in range(11, requests, requests // 3):
        job = Job(*place, fault=name)
        began = time.monotonic()
        job.run(replace(FAULTS[name], nth=number, lasts=True))

        assert time.monotonic() - began < 2 * QUICK.deadline
        job.finish()
