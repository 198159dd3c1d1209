"""What stands in front of a bucket is not believed, what refuses is asked why, and asked seldom."""

import re
import uuid

import pytest

from batchrunner import BatchRunner, BatchSpec
from batchrunner.checkpoint import Checkpoint
from batchrunner.errors import ObjectChangedError, StorageAccessError, StorageError
from batchrunner.storage import open_storage
from batchrunner.storage.s3.retry import RetryPolicy
from batchrunner.storage.s3.storage import S3Storage
from batchrunner.testing.fault_proxy import Fault, NetworkFaultKind, fault_proxy
from batchrunner.testing.storage_contract import entry_of, publish, read_all
from batchrunner.views.status import status_of
from buckets import Bucket
from builders import rows

QUICK = RetryPolicy(max_attempts=2, deadline=60, first_delay=0.01, max_delay=0.02)
PAGE = "<html><body>Log in<br></body></html>"
NOTHING = Fault(NetworkFaultKind.STATUS, status=200, body="")
WEB_PAGE = Fault(
    NetworkFaultKind.STATUS,
    status=200,
    body=PAGE,
    headers=("Content-Type: text/html", 'ETag: "1-2"'),
)


@pytest.fixture(scope="module")
def proxy(moto):
    with fault_proxy(moto) as running:
        yield running


@pytest.fixture
def storage(proxy, prefix):
    """A storage behind the proxy, with "there" in it."""
    proxy.inject()
    made = S3Storage(
        proxy.server.bucket, prefix, storage_options=proxy.server.storage_options, retry=QUICK
    )
    made.put("there", b"bytes")
    return made


OPERATIONS = {
    "put": lambda s: s.put("new", b"1"),
    "put_if_absent": lambda s: s.put_if_absent({"new": b"1"}),
    "publish": lambda s: publish(s, {"new": b"1"}),
    "get": lambda s: s.get("there"),
    "list": lambda s: list(s.list()),
    "delete": lambda s: s.delete(["there"]),
    "garbage": lambda s: s.garbage(),
    "move": lambda s: s.move(entry_of(s, "there"), "new"),
}


@pytest.mark.parametrize("fault", [NOTHING, WEB_PAGE], ids=["nothing", "a web page"])
@pytest.mark.parametrize("operation", OPERATIONS)
def test_a_success_that_no_s3_server_says_is_an_error_that_says_so(
    proxy, storage, operation, fault
):
    """A gateway that answers 200 without storing would cost rows, and an empty listing a run."""
    proxy.inject(fault)

    with pytest.raises(StorageError, match="no S3 server answers so"):
        OPERATIONS[operation](storage)


def test_a_look_that_is_answered_by_nothing_shows_no_object(proxy, storage):
    """Neither that it is there nor that it is not."""
    proxy.inject(NOTHING)

    with pytest.raises(StorageError, match="without ETag"):
        storage.head("there")


@pytest.mark.parametrize("write", ["put", "put_if_absent", "publish"])
def test_a_write_without_its_etag_is_looked_at_and_done_again(proxy, storage, write):
    """Once such an answer is no reason to give up: the bucket shows whether the object is there."""
    proxy.inject(Fault(NetworkFaultKind.STATUS, "PUT", status=200, body="", nth=1))

    OPERATIONS[write](storage)

    assert proxy.fired == 1
    assert storage.get("new") == b"1"


def test_fewer_bytes_than_were_asked_for_are_not_read_as_the_end(proxy, storage):
    """A line would be cut, or a reader wait for ever."""
    entry = entry_of(storage, "there")
    short = (f'ETag: "{entry.identity}"', "Content-Type: text/plain")
    proxy.inject(Fault(NetworkFaultKind.STATUS, "GET", status=200, headers=short, body="by"))

    with pytest.raises(StorageError, match="2 bytes came where 5 were asked for"):
        read_all(storage, entry)


def test_a_412_about_an_object_that_is_as_it_was_is_no_change(proxy, storage):
    """A shard whose file changed is quarantined; one that the store failed is tried again."""
    entry = entry_of(storage, "there")
    proxy.inject(Fault(NetworkFaultKind.STATUS, "GET", status=412, code="PreconditionFailed"))

    with pytest.raises(StorageError, match="PreconditionFailed") as caught:
        read_all(storage, entry)

    assert not isinstance(caught.value, ObjectChangedError)


@pytest.mark.parametrize("method", ["HEAD", "GET", "PUT"])
@pytest.mark.parametrize("header", [True, False], ids=["named", "not named"])
def test_a_bucket_of_another_region_is_reported_with_the_region(proxy, storage, method, header):
    """To be redirected, botocore asks for the region; that was redirected in turn, for ever."""
    where = ("x-amz-bucket-region: eu-west-9",) if header else ()
    proxy.inject(
        Fault(NetworkFaultKind.STATUS, status=301, code="PermanentRedirect", headers=where)
    )
    ask = {"HEAD": "garbage", "GET": "get", "PUT": "put"}[method]
    act = OPERATIONS[ask] if method != "HEAD" else lambda s: s.head("there")
    wanted = "in the region eu-west-9.*region_name: eu-west-9" if header else "in another region"

    with pytest.raises(StorageError, match=wanted):
        act(storage)

    assert len(proxy.requests) < 6


@pytest.mark.parametrize(
    ("status", "code", "hint"),
    [
        (400, "ExpiredToken", "the session token has expired"),
        (403, "AccessDenied", "check the policy"),
        (403, "InvalidAccessKeyId", "has no such access key"),
        (400, "AuthorizationHeaderMalformed", "in another region"),
    ],
)
def test_a_refusal_without_a_word_is_asked_for_its_reason(proxy, storage, status, code, hint):
    """The first request of a run is a HEAD, and the answer to a HEAD has no body."""
    proxy.inject(Fault(NetworkFaultKind.STATUS, status=status, code=code))

    with pytest.raises(StorageError, match=f"head_object failed \\({code}: .*{hint}") as caught:
        storage.head("there")

    assert isinstance(caught.value, StorageAccessError) or code.startswith("Authorization")


@pytest.fixture
def killed(moto, proxy):
    """A run of twelve shards whose driver was killed before the last of them."""
    bucket = Bucket(moto, uuid.uuid4().hex)
    bucket.put_rows("in/0.jsonl", rows(0, 12))
    options = {"storage_options": proxy.server.storage_options}
    spec = BatchSpec(
        capability="capabilities:echo",
        source={"uri": f"{bucket.uri}/in", "shard": {"rows": 1}, **options},
        sink={"uri": f"{bucket.uri}/out", **options},
        execution={"engine": "local"},
    )
    proxy.inject()
    assert BatchRunner(spec).run().ok
    gone = [
        *bucket.listed("out/_checkpoint/sentinel_index/"),
        "out/_SUCCESS",
        "out/part-00011.jsonl",
    ]
    for key in [*gone, "out/_checkpoint/sentinels/part-00011.json"]:
        bucket.delete(key)
    proxy.inject()
    yield spec, bucket
    bucket.close()


def test_resuming_reads_each_sentinel_once(proxy, killed):
    """The survey is made twice, and the sentinels are as they were: 5,000 of them were half a minute."""
    spec, bucket = killed

    assert BatchRunner(spec).run().shards_new == 1

    assert len(sentinels_read(proxy)) == 11
    assert len(set(sentinels_read(proxy))) == 11
    assert bucket.rows_out() == rows(0, 12)


def test_a_status_reads_each_sentinel_once(proxy, killed):
    """As resuming does."""
    _, bucket = killed
    options = proxy.server.storage_options
    storage = open_storage(f"{bucket.uri}/out/_checkpoint", storage_options=options)

    assert status_of(Checkpoint.current(storage)).committed == 11

    assert len(sentinels_read(proxy)) == 11


def sentinels_read(proxy):
    found = [re.fullmatch(r"GET .*/sentinels/(part-\d+)\.json", one) for one in proxy.requests]
    return [match[1] for match in found if match]
