import io
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchrunner.errors import StorageError
from batchrunner.storage.s3 import reading as s3_reading
from batchrunner.storage.s3.calls import connect
from batchrunner.storage.s3.errors import CallError, Verdict, typed, understand
from batchrunner.storage.s3.reading import RangedReader
from batchrunner.storage.s3.retry import RetryPolicy
from batchrunner.storage.s3.storage import S3Storage


def an_answer(status, code, **headers):
    """The error that botocore raises for an answer."""
    from botocore.exceptions import ClientError

    meta = {"HTTPStatusCode": status, "HTTPHeaders": headers}
    return ClientError({"Error": {"Code": code, "Message": "so"}, "ResponseMetadata": meta}, "X")


@pytest.mark.parametrize(
    ("status", "code", "verdict"),
    [
        (412, "PreconditionFailed", Verdict.TAKEN),
        (412, "412", Verdict.TAKEN),
        (409, "ConditionalRequestConflict", Verdict.CONFLICT),
        (409, "OperationAborted", Verdict.CONFLICT),
        (404, "NoSuchKey", Verdict.ABSENT),
        (404, "404", Verdict.ABSENT),
        (404, "NoSuchUpload", Verdict.ABSENT),
        (404, "NoSuchBucket", Verdict.NO_BUCKET),
        (503, "SlowDown", Verdict.PASSES),
        (500, "InternalError", Verdict.PASSES),
        (502, "502", Verdict.PASSES),
        (429, "TooManyRequests", Verdict.PASSES),
        (400, "RequestTimeout", Verdict.PASSES),
        (400, "BadDigest", Verdict.PASSES),
        (501, "NotImplemented", Verdict.FINAL),
        (400, "InvalidRequest", Verdict.FINAL),
        (403, "AccessDenied", Verdict.REFUSED),
        (403, "403", Verdict.REFUSED),
        (401, "Unauthorized", Verdict.REFUSED),
        (400, "ExpiredToken", Verdict.REFUSED),
        (403, "RequestTimeTooSkewed", Verdict.SKEWED),
        (301, "PermanentRedirect", Verdict.FINAL),
        (302, "302", Verdict.NO_S3),
        (307, "TemporaryRedirect", Verdict.FINAL),
    ],
)
def test_every_answer_has_one_meaning(status, code, verdict):
    """HEAD says it with a number, GET with a word, and stores differ."""
    assert understand(an_answer(status, code)).verdict is verdict


@pytest.mark.parametrize("status", [200, 403, 404, 503])
def test_a_page_for_people_means_nothing_whatever_its_status(status):
    """A login page is no proof that an object is missing, or that the credentials are wrong."""
    page = {"content-type": "text/html; charset=utf-8", "content-length": "9"}
    bare = {**page, "content-length": "0"}
    stores_own = {**page, "x-amz-request-id": "7"}

    said = [understand(an_answer(status, str(status), **h)).verdict for h in (bare, stores_own)]

    assert understand(an_answer(status, str(status), **page)).verdict is Verdict.NO_S3
    assert Verdict.NO_S3 not in said


def test_an_answer_that_cannot_be_read_is_none_of_a_store():
    """Nothing is known then, so the object is looked at."""
    from botocore.parsers import ResponseParserError

    assert understand(ResponseParserError("<html>")).verdict is Verdict.NO_S3


def test_a_missing_answer_may_be_a_lost_one():
    """Then it is tried again, and the object is looked at."""
    from aiohttp import ServerDisconnectedError
    from botocore.exceptions import EndpointConnectionError, ReadTimeoutError

    for error in (
        EndpointConnectionError(endpoint_url="http://x"),
        ReadTimeoutError(endpoint_url="http://x"),
        ServerDisconnectedError(),
        ConnectionResetError(),
        TimeoutError(),
    ):
        assert understand(error).verdict is Verdict.PASSES


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("127.0.0.1:9", "nothing answers at http://127.0.0.1:9 (connection refused): check endp"),
        ("nosuch.invalid:9000", "nothing answers at http://nosuch.invalid:9000 (no such host): ch"),
    ],
)
def test_an_address_where_nothing_answers_is_named_and_holds_no_secret(host, expected):
    """No second try of the same line mends a misspelt endpoint."""
    options = {"key": "hunter1", "secret": "hunter2", "endpoint_url": f"http://{host}"}
    once = RetryPolicy(max_attempts=1, deadline=60, first_delay=0.01)

    with pytest.raises(StorageError) as error:
        S3Storage("bucket", "a", storage_options=options, retry=once).get("key")

    assert expected in str(error.value)
    assert "hunter" not in str(error.value)
    assert "run the same line" not in str(error.value)


def test_missing_credentials_are_a_refusal():
    """Nothing was sent, and nothing will be."""
    from botocore.exceptions import NoCredentialsError, ProfileNotFound

    for error in (NoCredentialsError(), ProfileNotFound(profile="x")):
        assert understand(error).verdict is Verdict.REFUSED


def test_retry_after_is_read_in_seconds():
    """As a date it would compare two clocks, so it is left out."""
    dated = {"retry-after": "Fri, 31 Dec 1999 23:59:59 GMT"}

    assert understand(an_answer(503, "SlowDown", **{"retry-after": "7"})).retry_after == 7
    assert understand(an_answer(503, "SlowDown", **dated)).retry_after == 0


@pytest.mark.parametrize("verdict", Verdict)
def test_errors_survive_the_way_back_from_a_worker(verdict):
    """Ray pickles them."""
    failure = CallError(verdict, code="Code", message="sentence")
    failure.doing, failure.place = "put_object", "s3://b/k"
    error = typed(failure)

    copy = pickle.loads(pickle.dumps(error))

    assert isinstance(error, StorageError)
    assert (type(copy), str(copy)) == (type(error), str(error))
    assert all(word in str(error) for word in ("s3://b/k", "put_object", "Code", "sentence"))


@pytest.mark.parametrize(
    ("given", "expected"),
    [({}, (5, 60)), ({"config_kwargs": {"read_timeout": 7, "connect_timeout": 3}}, (3, 7))],
)
def test_no_request_waits_for_ever(given, expected):
    """Unless the user says how long."""
    place = {"key": "a", "secret": "b", "endpoint_url": "http://127.0.0.1:9"}
    config = connect(place | given).fs.s3.meta.config

    assert (config.connect_timeout, config.read_timeout) == expected
    assert config.retries["total_max_attempts"] == 1


DATA = bytes(range(251)) * 40
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("read"), st.integers(-1, 3_000)),
        st.tuples(st.just("seek"), st.integers(0, 12_000)),
        st.tuples(st.just("back"), st.integers(0, 10_040)),
    ),
    max_size=12,
)


@given(STEPS)
def test_a_ranged_reader_reads_as_a_file_does(steps):
    """Whatever is read, skipped or read again."""
    asked = []

    def fetch(start, end):
        assert 0 <= start < end <= len(DATA)
        asked.append(end - start)
        return DATA[start:end]

    reader, model = RangedReader(fetch, name="x", size=len(DATA)), io.BytesIO(DATA)
    for step, number in steps:
        if step == "read":
            assert reader.read(number) == model.read(number)
        elif step == "seek":
            assert reader.seek(number) == model.seek(number)
        else:
            assert reader.seek(-number, io.SEEK_END) == model.seek(-number, io.SEEK_END)
        assert reader.tell() == model.tell()


def test_a_reader_that_jumps_is_not_given_what_it_does_not_want():
    """A few columns of a wide Parquet file are a small part of it."""
    asked = []

    def fetch(start, end):
        asked.append((start, end))
        return bytes(end - start)

    reader = RangedReader(fetch, name="x", size=50_000_000)
    for start, size in [(49_999_992, 8), (5_000_000, 1_000_000), (100, 8)]:
        reader.seek(start)
        assert len(reader.read(size)) == size

    assert asked == [(50_000_000 - 65_536, 50_000_000), (5_000_000, 6_000_000), (100, 100 + 65_536)]


def test_a_reader_that_was_advised_is_not_given_what_follows():
    """A slice of two megabytes cost nine: the next slice's bytes were fetched, and thrown away."""
    asked = []

    def fetch(start, end):
        asked.append((start, end))
        return bytes(end - start)

    reader = RangedReader(fetch, name="x", size=50_000_000)
    reader.advise(12_000_000)
    reader.seek(10_000_000)
    for _ in range(4):
        reader.read(500_000)
    first = list(asked)
    reader.read(1_000_000)

    assert first == [(10_000_000, 10_500_000), (10_500_000, 12_000_000 + 65_536)]
    assert [start for start, _ in asked[2:]] == [12_065_536]
    assert asked[-1][1] < 14_000_000  # a long line goes on, and is not the rest of the file


def test_no_request_asks_for_more_than_its_deadline_allows(monkeypatch):
    """A gigabyte in one request would be started again from its beginning."""
    monkeypatch.setattr(s3_reading, "_LEAST", 100)
    monkeypatch.setattr(s3_reading, "_MOST", 1_000)
    asked = []

    def fetch(start, end):
        asked.append(end - start)
        return DATA[start:end]

    assert RangedReader(fetch, name="x", size=len(DATA)).read() == DATA
    assert max(asked) == 1_000


def test_a_closed_reader_says_so():
    """As files do."""
    reader = RangedReader(lambda *_: b"", name="s3://b/k", size=1)
    reader.close()

    with pytest.raises(ValueError, match="closed"):
        reader.read()
