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
from batchrunner.storage.retry import RetryPolicy
from batchrunner.storage.s3 import S3Storage
from batchrunner.testing.fault_proxy import Fault, Kind, fault_proxy
from batchrunner.verify import verify
from buckets import Bucket
from builders import rows

QUICK = RetryPolicy(max_attempts=3, deadline=8, first_delay=0.01, max_delay=0.02)
READ_TIMEOUT = 0.4
EXPECTED = rows(0, 4)
REPEATS = 2
"""aiohttp repeats a request once by itself on a connection that turns out broken."""

FAULTS = {
    "503": Fault(Kind.STATUS, status=503, code="SlowDown"),
    "500": Fault(Kind.STATUS, status=500, code="InternalError"),
    "429": Fault(Kind.STATUS, status=429, code="TooManyRequests"),
    "409": Fault(Kind.STATUS, status=409, code="ConditionalRequestConflict"),
    "reset before": Fault(Kind.RESET_BEFORE),
    "reset after": Fault(Kind.RESET_AFTER),
    "cut body": Fault(Kind.CUT_BODY),
    "hang": Fault(Kind.HANG),
}


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
    """Two shards of two rows in a bucket of their own, behind the proxy."""

    def __init__(self, bucket, proxy) -> None:
        self._proxy = proxy
        self.bucket = bucket.beside(uuid.uuid4().hex)
        self.bucket.put_rows("in/0.jsonl", EXPECTED[:2])
        self.bucket.put_rows("in/1.jsonl", EXPECTED[2:])
        timeouts = {"read_timeout": READ_TIMEOUT, "connect_timeout": READ_TIMEOUT}
        options = proxy.server.storage_options | {"config_kwargs": timeouts}
        self.spec = BatchSpec(
            capability="capabilities:echo",
            source={"uri": f"{self.bucket.uri}/in", "storage_options": options},
            sink={"uri": f"{self.bucket.uri}/out", "storage_options": options},
            execution={"engine": "local"},
        )

    def run(self, *faults: Fault) -> bool:
        """Tell whether it got to its end."""
        self._proxy.inject(*faults)
        try:
            return BatchRunner(self.spec).run().ok
        except BatchRunnerError as error:
            assert isinstance(error, StorageError), error  # noqa: PT017 - what kind is the claim
            return False

    def finish(self) -> None:
        """Go on without faults; then everything is there, once."""
        assert self.run()
        assert self.bucket.rows_out() == EXPECTED
        assert self.bucket.listed("out/_SUCCESS")


def requests_of_a_run(bucket, proxy) -> int:
    assert Job(bucket, proxy).run()
    return len(proxy.requests)


def fail_each(place, name, *, stride, first=1, fully=False):
    """Let each request of a job fail once, one job after the other; the job must not notice."""
    survived = fired = 0
    for nth in count(first, stride):
        job = Job(*place)
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
    fired, survived = fail_each(place, name, stride=29, first=1 + 3 * [*FAULTS].index(name))

    assert fired >= 2
    assert survived == fired


@pytest.mark.soak
@pytest.mark.parametrize("name", FAULTS)
def test_one_fault_at_any_request_of_a_job_goes_unnoticed(place, name):
    """Right the first time, or stopped and right the second time; nearly always the first."""
    fired, survived = fail_each(place, name, stride=1, fully=True)

    assert fired > 40
    assert survived >= 0.95 * fired


@pytest.mark.parametrize("name", [name for name in FAULTS if name != "cut body"])
def test_a_store_that_is_down_is_given_up_soon_and_gone_on_with_later(place, name):
    """A typed error after a bounded number of requests, in bounded time."""
    job = Job(*place)
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
        job = Job(*place)
        began = time.monotonic()
        job.run(replace(FAULTS[name], nth=number, lasts=True))

        assert time.monotonic() - began < 30
        job.finish()
