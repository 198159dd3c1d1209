"""Every request of every S3 operation fails in every way: the right answer, or a typed error."""

import io
import time
import traceback
from dataclasses import replace

import pytest
from aiobotocore.client import AioBaseClient

from batchrunner.errors import ObjectChangedError, StorageAccessError, StorageError
from batchrunner.storage.s3 import publishing as s3_publishing
from batchrunner.storage.s3.retry import RetryPolicy
from batchrunner.storage.s3.storage import S3Storage
from batchrunner.testing.fault_proxy import Fault, NetworkFaultKind
from batchrunner.testing.storage_contract import INTENT, entry_of, keys, publish, read_all
from buckets import prove_anew
from patience import PATIENCE

pytestmark = pytest.mark.s3

QUICK = RetryPolicy(max_attempts=3, deadline=60, first_delay=0.01, max_delay=0.02)
PATIENT = {"config_kwargs": {"read_timeout": PATIENCE, "connect_timeout": PATIENCE}}
IMPATIENT = {"config_kwargs": {"read_timeout": 1, "connect_timeout": PATIENCE}}
"""Where a request hangs, which only waiting shows: a second, and ten tries in a row.

On a busy machine a healthy request takes longer than that once or twice, and is repeated.
"""

INSISTENT = replace(QUICK, max_attempts=10)

AIOHTTP_REPEATS = 2
"""On a connection that was kept and turns out broken aiohttp repeats a request once by itself."""

ERROR = "<?xml version='1.0'?><Error><Code>InternalError</Code><Message>no</Message></Error>"
SMALL = b"small"
LARGE = bytes(range(256)) * (5 << 12) + b"and a second part"

FAULTS = {
    "503": Fault(NetworkFaultKind.STATUS, status=503, code="SlowDown"),
    "409": Fault(NetworkFaultKind.STATUS, status=409, code="ConditionalRequestConflict"),
    "reset_before": Fault(NetworkFaultKind.RESET_BEFORE),
    "reset_during": Fault(NetworkFaultKind.RESET_DURING),
    "reset_after": Fault(NetworkFaultKind.RESET_AFTER),
    "cut_body": Fault(NetworkFaultKind.CUT_BODY),
    "hang": Fault(NetworkFaultKind.HANG),
}


def a_storage(server, prefix, *, retry=QUICK, **options):
    options = server.storage_options | PATIENT | options
    return S3Storage(server.bucket, prefix, storage_options=options, retry=retry)


def a_storage_for(fault, server, prefix):
    """One that sees the *fault*."""
    if fault == "hang":
        return a_storage(server, prefix, retry=INSISTENT, **IMPATIENT)
    return a_storage(server, prefix)


@pytest.fixture
def storage(proxy, prefix):
    """A storage behind the proxy, with "there" and "there too" in it."""
    proxy.inject()
    made = a_storage(proxy.server, prefix)
    made.put("there", SMALL)
    publish(made, {"there too": SMALL})
    return made


@pytest.fixture
def in_small_parts(monkeypatch):
    """Uploads in parts begin at a megabyte rather than at 32."""
    monkeypatch.setattr(s3_publishing, "_WHOLE_UP_TO", 1 << 20)
    monkeypatch.setattr(s3_publishing, "_PART", 5 << 20)


def moved(storage):
    storage.move(entry_of(storage, "there"), "elsewhere")
    return storage.head("there"), storage.get("elsewhere")


def deleted(storage):
    storage.delete(["there", "never there"])
    return keys(storage)


def proven_anew(storage):
    prove_anew()
    return storage.check_conditional_writes()


def deleted_exactly(storage):
    """Of two that were seen, one was replaced since."""
    seen = list(storage.list())
    storage.put("there", b"another driver's")
    return storage.delete_exactly(seen), keys(storage)


OPERATIONS = {
    "put": (lambda s: (s.put("new", SMALL), s.get("new"))[1], SMALL),
    "get": (lambda s: s.get("there"), SMALL),
    "head": (lambda s: s.head("there").size, len(SMALL)),
    "head of nothing": (lambda s: s.head("nothing"), None),
    "list": (keys, ["there", "there too"]),
    "intents": (lambda s: s.intents("there too"), (INTENT,)),
    "open": (lambda s: read_all(s, entry_of(s, "there")), SMALL),
    "put_if_absent": (lambda s: s.put_if_absent({"new": SMALL}), {"new"}),
    "put_if_absent, taken": (lambda s: s.put_if_absent({"there": b"other"}), set()),
    "publish": (lambda s: publish(s, {"new": SMALL}), {"new"}),
    "publish, taken": (lambda s: publish(s, {"there": SMALL}), set()),
    "publish in parts": (lambda s: publish(s, {"new": LARGE}), {"new"}),
    "publish in parts, taken": (lambda s: publish(s, {"there": LARGE}), set()),
    "move": (moved, (None, SMALL)),
    "delete": (deleted, ["there too"]),
    "delete exactly": (deleted_exactly, ({"there"}, ["there"])),
    "garbage": (lambda s: list(s.garbage()), []),
    "check": (proven_anew, None),
}


@pytest.mark.usefixtures("in_small_parts")
@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("operation", OPERATIONS)
def test_one_fault_at_any_request_changes_no_answer(proxy, prefix, operation, fault):
    """Lost acks included: what is ours is ours, and what is not is not."""
    act, expected = OPERATIONS[operation]
    nth = 0
    while nth == 0 or proxy.fired:
        nth += 1
        proxy.inject()
        storage = a_storage_for(fault, proxy.server, f"{prefix}/{nth}")
        storage.put("there", SMALL)
        publish(storage, {"there too": SMALL})

        proxy.inject(_nth(FAULTS[fault], nth))

        assert act(storage) == expected
    assert nth > 1


@pytest.mark.usefixtures("in_small_parts")
@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("data", [SMALL, LARGE], ids=["whole", "in parts"])
def test_what_is_sent_again_is_the_whole_of_it(proxy, prefix, data, fault):
    """The body was read to its end by the attempt that failed."""
    sends = Fault(FAULTS[fault].kind, "PUT", status=FAULTS[fault].status, code=FAULTS[fault].code)
    nth = 0
    while nth == 0 or proxy.fired:
        nth += 1
        proxy.inject()
        storage = a_storage_for(fault, proxy.server, f"{prefix}/{nth}")
        publish(storage, {"first": data})
        proxy.inject(replace(sends, nth=nth))

        publish(storage, {"new": data})

        assert storage.get("new") == data
    assert nth > 1


@pytest.fixture
def by_botocore(monkeypatch):
    """Names of the requests that botocore makes, and not a template."""
    made, real = [], AioBaseClient._make_api_call

    async def call(client, operation, parameters):
        made.append(operation)
        return await real(client, operation, parameters)

    monkeypatch.setattr(AioBaseClient, "_make_api_call", call)
    return made


def meet(proxy, prefix, operation, fault, by_botocore):
    """Do *operation* twice, the second time with *fault* at its first request by a template."""
    act, expected = OPERATIONS[operation]
    proxy.inject()
    for place in ("first", "second"):
        storage = a_storage(proxy.server, f"{prefix}/{place}")
        storage.put("there", SMALL)
        publish(storage, {"there too": SMALL})
        assert storage.get("there") == SMALL
        if place == "second":
            by_botocore.clear()
            proxy.inject(fault)
        assert act(storage) == expected
    assert proxy.fired == 1
    assert not {"GetObject", "PutObject"} & {*by_botocore}


BY_TEMPLATE = {
    "get": "GET",
    "open": "GET",
    "put": "PUT",
    "put_if_absent": "PUT",
    "put_if_absent, taken": "PUT",
    "publish": "PUT",
    "publish, taken": "PUT",
}


@pytest.mark.parametrize("fault", [name for name in FAULTS if name != "hang"] + ["429"])
@pytest.mark.parametrize("operation", BY_TEMPLATE)
def test_a_fault_at_a_request_by_template_changes_no_answer(
    proxy, prefix, by_botocore, operation, fault
):
    """Their answers are looked at by code of ours."""
    too_many = Fault(NetworkFaultKind.STATUS, status=429, code="TooManyRequests")
    one = replace(FAULTS.get(fault, too_many), method=BY_TEMPLATE[operation], nth=1)

    meet(proxy, prefix, operation, one, by_botocore)


@pytest.mark.parametrize("body", [ERROR, ERROR[:-9]], ids=["whole", "cut short"])
@pytest.mark.parametrize("operation", ["put", "put_if_absent", "publish"])
def test_a_success_around_an_error_is_no_success(proxy, prefix, by_botocore, operation, body):
    """Some stores say 200 before they know; the object is not there."""
    early = Fault(
        NetworkFaultKind.STATUS, "PUT", nth=1, status=200, headers=('ETag: "1"',), body=body
    )

    meet(proxy, prefix, operation, early, by_botocore)


@pytest.mark.parametrize("status", [301, 307])
def test_a_request_by_template_that_is_redirected_is_sent_as_botocore_does(proxy, storage, status):
    """Only botocore knows how to follow; the body begins anew, and no attempt is lost."""
    moved = Fault(NetworkFaultKind.STATUS, "PUT", nth=1, status=status, code="TemporaryRedirect")
    proxy.inject(moved)

    assert publish(storage, {"new": SMALL}) == {"new"}

    assert proxy.fired == 1
    assert [line.split(" ")[0] for line in proxy.requests] == ["PUT", "PUT"]
    assert storage.get("new") == SMALL


def _nth(fault, nth):
    return Fault(fault.kind, nth=nth, status=fault.status, code=fault.code)


@pytest.mark.usefixtures("in_small_parts")
@pytest.mark.parametrize("fault", [name for name in FAULTS if name != "hang"])
@pytest.mark.parametrize("operation", [name for name in OPERATIONS if "taken" not in name])
def test_a_fault_that_stays_ends_in_a_typed_error_soon(proxy, storage, operation, fault):
    """A dead bucket costs seconds and a few requests, not a night."""
    act, expected = OPERATIONS[operation]
    proxy.inject(FAULTS[fault])
    start = time.monotonic()

    try:
        answer = act(storage)
    except StorageError as error:
        answer = f"{error}"
    named = isinstance(answer, str) and f"s3://{proxy.server.bucket}" in answer
    assert named or answer == expected  # an answer without a body is not cut

    assert time.monotonic() - start < 2 * QUICK.deadline
    assert len(proxy.requests) <= 3 * QUICK.max_attempts * AIOHTTP_REPEATS


@pytest.mark.parametrize("fault", ["503", "hang"])
def test_a_store_that_is_down_gets_no_more_requests_than_the_policy_says(proxy, prefix, fault):
    """Ours is the only layer that retries: botocore and s3fs are turned down."""
    storage = a_storage(proxy.server, prefix, **(IMPATIENT if fault == "hang" else PATIENT))
    proxy.inject(FAULTS[fault])

    with pytest.raises(StorageError, match=f"after {QUICK.max_attempts} attempts"):
        storage.get("there")

    assert len(proxy.requests) == QUICK.max_attempts


def test_a_slow_store_is_not_a_broken_one(proxy, storage):
    """Patience comes before repetition."""
    proxy.inject(Fault(NetworkFaultKind.DELAY, seconds=0.3))

    assert storage.put_if_absent({"new": SMALL}) == {"new"}
    assert len(proxy.requests) == 1


@pytest.mark.usefixtures("in_small_parts")
@pytest.mark.parametrize("data", [SMALL, LARGE], ids=["whole", "in parts"])
@pytest.mark.parametrize("method", ["PUT", "POST"])
def test_acks_that_are_always_lost_still_tell_whose_the_object_is(proxy, storage, data, method):
    """When no answer ever comes, looking is the answer."""
    proxy.inject(Fault(NetworkFaultKind.RESET_AFTER, method=method, target=r"/new($|\?uploadId)"))
    assert publish(storage, {"new": data}) == {"new"}
    assert storage.put_if_absent({"new": data[:1]}) == frozenset()
    assert storage.put_if_absent({"new": data}) == {"new"}


def test_a_lost_ack_does_not_make_the_object_of_another_ours(proxy, storage):
    """Their object stands; ours was refused, and the refusal was lost."""
    proxy.inject(Fault(NetworkFaultKind.RESET_AFTER, method="PUT"))

    assert publish(storage, {"there": SMALL}) == frozenset()
    assert storage.put_if_absent({"there": b"other"}) == frozenset()


def test_an_upload_that_is_swept_away_begins_again(proxy, storage, in_small_parts):
    """A lost complete looks the same as a swept upload; neither loses the part."""
    gone = {"status": 404, "code": "NoSuchUpload", "nth": 1}
    proxy.inject(
        Fault(NetworkFaultKind.STATUS, "POST", r"\?uploadId", **gone),
        Fault(NetworkFaultKind.STATUS, "PUT", r"partNumber=2", **gone),
    )

    assert publish(storage, {"new": LARGE}) == {"new"}
    assert proxy.fired == 2
    assert storage.get("new") == LARGE


def test_a_failed_upload_leaves_no_parts_behind(proxy, seaweedfs, prefix, in_small_parts):
    """Nobody sees the parts of an unfinished upload, but somebody pays for them."""
    storage = a_storage(proxy.server, prefix)
    proxy.inject(
        Fault(NetworkFaultKind.STATUS, "PUT", "partNumber=2", status=403, code="AccessDenied")
    )

    with pytest.raises(StorageAccessError):
        publish(storage, {"new": LARGE})

    assert uploads(seaweedfs, prefix) == []


def test_a_sweep_aborts_what_a_killed_upload_left(proxy, seaweedfs, prefix, in_small_parts):
    """Only below the root: the uploads of a neighbour are alive."""
    dies = [
        Fault(NetworkFaultKind.STATUS, method, r"uploadId", status=403)
        for method in ("POST", "DELETE")
    ]
    for name in (prefix, f"{prefix}-neighbour"):
        proxy.inject(*dies)
        with pytest.raises(StorageAccessError):
            publish(a_storage(proxy.server, name), {"new": LARGE})
    assert len(uploads(seaweedfs, prefix)) == 2
    proxy.inject()

    a_storage(proxy.server, prefix).clean()

    assert uploads(seaweedfs, prefix) == [f"{prefix}-neighbour/new"]


def uploads(server, prefix):
    """Keys of the unfinished uploads that start with *prefix*."""
    calls = a_storage(server, "")._calls
    answer = calls.run(lambda: calls.request("list_multipart_uploads", Prefix=prefix))
    return [upload["Key"] for upload in answer.get("Uploads", [])]


@pytest.mark.parametrize(
    ("code", "raises"),
    [("InternalError", False), ("SlowDown", False), ("AccessDenied", True)],
)
def test_an_object_that_stayed_is_deleted_again_or_named(proxy, storage, code, raises):
    """S3 answers 200 to a deletion that was done in part."""
    error = f"<Error><Key>there</Key><Code>{code}</Code><Message>no</Message></Error>"
    partly = f"<DeleteResult>{error}</DeleteResult>"
    proxy.inject(Fault(NetworkFaultKind.STATUS, "POST", status=200, nth=1, body=partly))

    if raises:
        with pytest.raises(StorageAccessError, match="there is still there"):
            storage.delete(["there"])
    else:
        storage.delete(["there"])
        assert storage.head("there") is None


def test_a_store_that_asks_for_patience_beyond_the_deadline_is_left_alone(proxy, storage):
    """Retry-After is honoured, and waiting for nothing is not."""
    later = Fault(NetworkFaultKind.STATUS, status=503, headers=("Retry-After: 600",))
    proxy.inject(later)

    with pytest.raises(StorageError, match="SlowDown"):
        storage.get("there")

    assert len(proxy.requests) == 1


def test_a_hanging_store_is_given_up_at_the_deadline(proxy, prefix):
    """Also when the client's own timeout is longer."""
    storage = a_storage(proxy.server, prefix, retry=RetryPolicy(deadline=2))
    proxy.inject(Fault(NetworkFaultKind.HANG))
    start = time.monotonic()

    with pytest.raises(StorageError, match="TimeoutError"):
        storage.get("there")

    assert time.monotonic() - start < PATIENCE / 2
    assert len(proxy.requests) == 1


@pytest.mark.parametrize(
    ("status", "code", "hint"),
    [
        (403, "AccessDenied", "policy"),
        (403, "InvalidAccessKeyId", "access key"),
        (403, "SignatureDoesNotMatch", "secret"),
        (400, "ExpiredToken", "expired"),
        (403, "RequestTimeTooSkewed", "clock"),
    ],
)
def test_a_refusal_is_not_repeated_and_says_what_to_check(proxy, storage, status, code, hint):
    """Trying ten times locks accounts; a bare 403 costs an afternoon."""
    proxy.inject(Fault(NetworkFaultKind.STATUS, status=status, code=code))

    with pytest.raises(StorageAccessError, match=hint) as caught:
        storage.put_if_absent({"folder/key": b"1"})

    assert len(proxy.requests) == 1
    assert f"{storage.uri}/folder/key: put_object" in str(caught.value)
    assert proxy.server.secret not in "".join(traceback.format_exception(caught.value))


def test_an_object_replaced_between_two_reads_is_noticed(proxy, prefix):
    """Each range is asked for with the identity that was listed."""
    proxy.inject()
    storage = a_storage(proxy.server, prefix)
    storage.put("big", b"o" * (20 << 20))
    with storage.open(entry_of(storage, "big")) as file:
        file.read(10)
        storage.put("big", b"n" * (20 << 20))
        file.seek(15 << 20)
        with pytest.raises(ObjectChangedError, match="big"):
            file.read(10)


def test_bytes_of_another_identity_are_not_returned(proxy, storage):
    """Some stores do not know If-Match, and answer it with whatever is there."""
    entry = entry_of(storage, "there")
    other = Fault(
        NetworkFaultKind.STATUS, "GET", status=200, headers=('ETag: "other"',), body="OTHER"
    )
    proxy.inject(other)

    with pytest.raises(ObjectChangedError, match="there"):
        read_all(storage, entry)


def test_reading_on_costs_one_request_for_8_mib_and_jumping_no_more_than_is_asked(proxy, prefix):
    """Line readers ask for 64 KiB at a time, Parquet's for columns."""
    proxy.inject()
    storage = a_storage(proxy.server, prefix)
    data = bytes(range(256)) * (20 << 12)
    storage.put("big", data)
    entry = entry_of(storage, "big")
    proxy.inject()
    with io.BufferedReader(storage.open(entry), 1 << 16) as file:
        assert b"".join(iter(lambda: file.read(1 << 16), b"")) == data
    assert len(proxy.requests) == 3
    proxy.inject()
    with storage.open(entry) as file:
        file.seek(-8, io.SEEK_END)
        assert file.read() == data[-8:]
        file.seek(5_000_000)
        assert file.read(1_000_000) == data[5_000_000:6_000_000]
    assert len(proxy.requests) == 2


def test_every_other_small_piece_is_not_a_request_each(proxy, prefix):
    """As the columns of record batches are read: a thousand batches were a thousand round trips."""
    proxy.inject()
    storage = a_storage(proxy.server, prefix)
    data = bytes(range(256)) * (40 << 12)
    storage.put("big", data)
    entry = entry_of(storage, "big")
    proxy.inject()
    with storage.open(entry) as file:
        for start in range(0, len(data), 200_000):
            file.seek(start)
            assert file.read(50_000) == data[start : start + 50_000]
    assert len(proxy.requests) <= 12
