"""What S3 servers say, and what we make of it."""

import traceback
import tracemalloc
from dataclasses import replace

import pytest
from aiobotocore.client import AioBaseClient

from batchrunner.errors import StorageAccessError, StorageError, UnsafeStorageError
from batchrunner.storage import open_storage
from batchrunner.storage.s3 import publishing as s3_publishing
from batchrunner.storage.s3.calls import S3Calls
from batchrunner.storage.s3.errors import CallError, Verdict
from batchrunner.storage.s3.retry import RetryPolicy
from batchrunner.storage.s3.storage import S3Storage
from batchrunner.testing.storage_contract import INTENT, entry_of, keys, publish, read_all

QUICK = RetryPolicy(max_attempts=2, deadline=60, first_delay=0.01)


def a_storage(server, prefix, **options):
    return S3Storage(
        server.bucket, prefix, storage_options=server.storage_options | options, retry=QUICK
    )


@pytest.mark.s3
def test_a_store_that_ignores_conditions_is_refused_and_left_clean(rclone, prefix):
    """There sixteen writers out of sixteen win."""
    storage = a_storage(rclone, prefix)

    with pytest.raises(UnsafeStorageError, match="If-None-Match"):
        storage.check_conditional_writes()

    assert keys(a_storage(rclone, ""), recursive=True) == []


@pytest.mark.s3
@pytest.mark.parametrize("wrong", [{"secret": "hunter2"}, {"key": "nobody", "secret": "hunter2"}])
def test_wrong_credentials_are_named_but_not_shown(seaweedfs, prefix, wrong):
    """Logs are read by more people than vaults."""
    with pytest.raises(StorageAccessError, match=f"{prefix}/key: get_object") as caught:
        a_storage(seaweedfs, prefix, **wrong).get("key")

    assert "hunter2" not in "".join(traceback.format_exception(caught.value))


def test_a_bucket_that_is_not_there_is_named(moto, prefix):
    """Most often it is misspelt."""
    storage = S3Storage("no-such-bucket", prefix, storage_options=moto.storage_options)
    for act in (
        lambda: list(storage.list()),
        lambda: storage.get("key"),
        lambda: storage.put_if_absent({"key": b"1"}),
        lambda: publish(storage, {"key": b"1"}),
        storage.clean,
        storage.check_conditional_writes,
    ):
        with pytest.raises(StorageError, match=r"no-such-bucket.*bucket does not exist"):
            act()


@pytest.fixture
def no_credentials(monkeypatch, tmp_path):
    """An environment that has none, whatever this machine has."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    return tmp_path


def test_no_credentials_at_all_say_where_to_put_them(moto, prefix, no_credentials):
    """The first thing that everybody sees."""
    options = {"endpoint_url": moto.endpoint, "client_kwargs": {"region_name": "us-east-2"}}
    storage = S3Storage(moto.bucket, prefix, storage_options=options)

    with pytest.raises(StorageAccessError, match="AWS_ACCESS_KEY_ID"):
        storage.put("key", b"1")


@pytest.mark.s3
def test_credentials_come_from_wherever_s3fs_takes_them(
    seaweedfs, prefix, no_credentials, monkeypatch
):
    """Keys, a token, a profile, the environment, or somebody's arguments to boto."""
    key, secret = seaweedfs.key, seaweedfs.secret
    place = {"endpoint_url": seaweedfs.endpoint}
    region = {"region_name": "us-east-1"}
    login = {"aws_access_key_id": key, "aws_secret_access_key": secret}
    (no_credentials / "credentials").write_text(
        f"[ml]\naws_access_key_id = {key}\naws_secret_access_key = {secret}\n"
    )
    for options in (
        {**place, "key": key, "secret": secret, "client_kwargs": region},
        {**place, "username": key, "password": secret},
        {**place, "profile": "ml", "config_kwargs": {"s3": {"addressing_style": "path"}}},
        {"client_kwargs": {**login, **place, **region}},
        {**place, "profile": "ml", "s3_additional_kwargs": {"CacheControl": "no-store"}},
    ):
        storage = open_storage(f"s3://{seaweedfs.bucket}/{prefix}", storage_options=options)
        storage.put("key", b"1")
        assert storage.get("key") == b"1"
    monkeypatch.setenv("AWS_PROFILE", "ml")
    assert a_storage(seaweedfs, prefix, key=None, secret=None).get("key") == b"1"


@pytest.mark.s3
def test_without_credentials_a_private_bucket_is_closed(seaweedfs, prefix):
    """`anon` reaches the requests."""
    with pytest.raises(StorageAccessError, match="get_object"):
        a_storage(seaweedfs, prefix, anon=True, key=None, secret=None).get("key")


def test_a_profile_that_is_not_there_is_named(moto, prefix, no_credentials):
    """On the worker's machine, most often."""
    options = {"endpoint_url": moto.endpoint, "profile": "elsewhere"}

    with pytest.raises(StorageAccessError, match="ProfileNotFound"):
        S3Storage(moto.bucket, prefix, storage_options=options).get("key")


def test_nobody_listening_is_a_typed_error_after_a_few_attempts(prefix):
    """A wrong endpoint is seen before any row is computed."""
    options = {"key": "a", "secret": "b", "endpoint_url": "http://127.0.0.1:9"}
    storage = S3Storage("bucket", prefix, storage_options=options, retry=QUICK)

    with pytest.raises(StorageError, match=r"after 2 attempts \(EndpointConnectionError"):
        storage.get("key")


def test_markers_of_folders_are_not_objects(moto, prefix):
    """Consoles make empty objects that end in a slash."""
    top = a_storage(moto, "")
    for marker in (f"{prefix}/", f"{prefix}/a/"):
        top._calls.run(lambda key=marker: top._calls.request("put_object", Key=key, Body=b""))
    storage = a_storage(moto, prefix)
    storage.put("a/part", b"1")

    assert keys(storage) == []
    assert keys(storage, "a") == keys(storage, recursive=True) == ["a/part"]


def test_a_probe_that_was_killed_is_not_seen_and_is_swept(moto, prefix):
    """It must not pass for somebody's part."""
    top, storage = a_storage(moto, ""), a_storage(moto, prefix)
    left = {"Key": f"{prefix}/.staging/probe-x", "Body": b"1"}
    top._calls.run(lambda: top._calls.request("put_object", **left))
    assert keys(storage, recursive=True) == []

    storage.clean()

    found = top._calls.run(lambda: top._objects({"Prefix": prefix}))
    assert found == []


def test_more_keys_than_one_request_deletes_are_deleted(moto, prefix):
    """S3 takes a thousand at a time."""
    storage = a_storage(moto, prefix)
    names = [f"many/{number:04d}" for number in range(1_100)]
    storage.put_if_absent(dict.fromkeys(names, b""))

    storage.delete(names)

    assert keys(storage, "many") == []


@pytest.mark.s3
def test_a_large_object_is_uploaded_and_read_in_bounded_memory(seaweedfs, prefix):
    """A shard of 10 GB must not need a worker of 10 GB."""
    storage = a_storage(seaweedfs, prefix)
    size = 192 << 20
    one = storage.stage()
    one.file.truncate(size)
    one.file.close()
    tracemalloc.start()
    try:
        assert storage.publish({"large": (one, INTENT)}) == {"large"}
        uploading = tracemalloc.get_traced_memory()[1]
        tracemalloc.reset_peak()
        with storage.open(entry_of(storage, "large")) as file:
            assert sum(map(len, iter(lambda: file.read(1 << 20), b""))) == size
        reading = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()

    assert uploading < 176 << 20  # four parts of 16 MiB, a copy of each on its way out, and slack
    assert reading < 30 << 20  # a block of 8 MiB, and a copy of it on its way in


def test_an_upload_that_another_replaces_as_it_completes_has_not_won(moto, prefix, monkeypatch):
    """Some stores tell both that they did; the one that looks again knows."""
    storage = a_storage(moto, prefix)
    request = S3Calls.request

    async def then_the_other(calls, method, **parameters):
        answer = await request(calls, method, **parameters)
        if method == "complete_multipart_upload":
            await request(calls, "put_object", Key=parameters["Key"], Body=b"theirs")
        return answer

    monkeypatch.setattr(S3Calls, "request", then_the_other)
    monkeypatch.setattr(s3_publishing, "_WHOLE_UP_TO", 0)

    assert publish(storage, {"large": b"ours"}) == frozenset()
    assert storage.get("large") == b"theirs"


def test_the_same_bytes_written_anew_are_another_object(moto, prefix):
    """One ETag, but the part is that of the driver that took over: it was written later."""
    storage = a_storage(moto, prefix)
    storage.put("part", b"1")
    now = entry_of(storage, "part")
    seen = replace(now, modified=now.modified - 30)

    assert storage.delete_exactly([seen]) == {"part"}
    assert not storage.move(seen, "aside")
    assert storage.delete_exactly([now]) == frozenset()


@pytest.mark.parametrize("code", ["PreconditionFailed", "NoSuchKey"])
def test_a_store_that_refuses_a_deletion_by_its_condition_is_asked_again(
    moto, prefix, monkeypatch, code
):
    """Between the look and the deletion, somebody wrote."""
    storage = a_storage(moto, prefix)
    storage.put_if_absent({"a": b"1", "b": b"1"})
    seen = list(storage.list())
    real, deletions = S3Calls.request, []

    async def request(self, method, **parameters):
        if method == "delete_objects" and not deletions:
            deletions.append(parameters["Delete"])
            await real(self, "put_object", Key=f"{prefix}/b", Body=b"another")
            raise CallError(Verdict.FINAL, code=code)
        return await real(self, method, **parameters)

    monkeypatch.setattr(S3Calls, "request", request)

    assert storage.delete_exactly(seen) == {"b"}
    assert all(one["ETag"] for one in deletions[0]["Objects"])
    assert keys(storage) == ["b"]


ODD_KEYS = ["plain", "a b+c", "100%25", "~x/y=z&q?", "été/東京", "(1)'!*", "#frag;ment"]


@pytest.mark.s3
def test_any_key_is_written_and_read_however_many_were_before(seaweedfs, prefix):
    """The first request shapes those that follow; SeaweedFS checks the signature of each."""
    storage = a_storage(seaweedfs, "")
    for key in (f"{prefix}/{name}" for name in ODD_KEYS):
        data = key.encode()
        assert storage.put_if_absent({key: data}) == {key}
        assert storage.put_if_absent({key: b"another"}) == frozenset()
        assert publish(storage, {f"{key}-2": data}) == {f"{key}-2"}
        assert (storage.get(key), read_all(storage, entry_of(storage, f"{key}-2"))) == (data, data)


def test_the_options_of_the_user_are_in_every_request(moto, prefix):
    """Not only in the first, of which the others are made."""
    more = {"CacheControl": "no-store", "ServerSideEncryption": "AES256"}
    storage = a_storage(moto, prefix, s3_additional_kwargs=more)
    names = ["first", "second", "third"]
    for name in names:
        storage.put(name, b"1")
        publish(storage, {f"{name} published": b"1"})

    heads = [
        storage._calls.run(lambda key=name: storage._head(storage._full(key)))
        for one in names
        for name in (one, f"{one} published")
    ]

    assert [{name: head.get(name) for name in more} for head in heads] == [more] * 6


def test_intents_of_several_objects_are_not_mixed_up(moto, prefix):
    """Each object has its own, though their requests are made of one."""
    storage = a_storage(moto, prefix)
    intents = {f"part-{number}": f"intent {number}".encode() for number in range(4)}
    for name, intent in intents.items():
        publish(storage, {name: b"the same bytes"}, intent=intent)

    assert {name: storage.intents(name) for name in intents} == {
        name: (intent,) for name, intent in intents.items()
    }


def test_only_the_first_request_of_a_kind_is_made_by_botocore(moto, prefix, monkeypatch):
    """It takes several times as long. A new version of botocore might end that without a word."""
    made, real = [], AioBaseClient._make_api_call

    async def call(client, operation, parameters):
        made.append(operation)
        return await real(client, operation, parameters)

    monkeypatch.setattr(AioBaseClient, "_make_api_call", call)
    storage = a_storage(moto, prefix, s3_additional_kwargs={"CacheControl": prefix})
    for name in ("one", "two", "three"):
        storage.put(name, b"1")
        assert storage.get(name) == b"1"

    assert made == ["PutObject", "GetObject"]
