"""Objects in an S3 bucket, published with conditional writes."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from email.utils import parsedate_to_datetime
from typing import Any, BinaryIO, cast

from batchrunner.errors import ObjectChangedError, StorageError, UnsafeStorageError
from batchrunner.storage.contract import MAX_DOCUMENT_BYTES, Entry, Options, Staged
from batchrunner.storage.keys import STAGING, is_staging, plain_folder, plain_intent, plain_key
from batchrunner.storage.s3.calls import S3Calls, together
from batchrunner.storage.s3.errors import CallError, Verdict
from batchrunner.storage.s3.exact import delete_exactly, is_still, modified_in, move_exactly
from batchrunner.storage.s3.publishing import (
    INTENT,
    publish_new,
    put_new,
    second_writers_are_refused,
)
from batchrunner.storage.s3.reading import RangedReader
from batchrunner.storage.s3.retry import STANDARD, RetryPolicy
from batchrunner.storage.staging import StagedFile, stage_anonymously

_KEYS_A_DELETE = 1000
_REFUSED_READ = {None: Verdict.ABSENT, True: Verdict.PASSES, False: Verdict.TAKEN}


class S3Storage:
    """A `Storage` below *prefix* in *bucket*, over s3fs.

    Args:
        bucket: Name of the bucket.
        prefix: What all keys start with, without slashes at its ends; "" for the whole bucket.
        storage_options: Options of s3fs: key, secret, token, profile, anon, endpoint_url,
            client_kwargs, config_kwargs and so on. The retries of s3fs are turned off.
        retry: How often each request is retried.
    """

    def __init__(
        self,
        bucket: str,
        prefix: str = "",
        *,
        storage_options: Options | None = None,
        retry: RetryPolicy = STANDARD,
    ) -> None:
        self._calls = S3Calls(bucket, options=storage_options or {}, retry=retry)
        self._prefix = f"{prefix}/" if prefix else ""

    @property
    def uri(self) -> str:
        return f"s3://{self._calls.bucket}/{self._prefix}".rstrip("/")

    def list(self, prefix: str = "", *, recursive: bool = False) -> Iterator[Entry]:
        where = {"Prefix": self._prefix + plain_folder(prefix)}
        if not recursive:
            where["Delimiter"] = "/"
        items = self._calls.run(lambda: self._objects(where))
        entries = [self._entry(item["Key"], item, size=item["Size"]) for item in items]
        # SeaweedFS sorts each folder by itself, and S3's directory buckets do not sort at all.
        entries.sort(key=lambda entry: entry.key)
        yield from (entry for entry in entries if _is_listed(entry.key))

    def head(self, key: str) -> Entry | None:
        answer = self._calls.run(lambda: self._head(self._full(key)))
        if answer is None:
            return None
        return self._entry(self._full(key), answer, size=answer["ContentLength"])

    def get(self, key: str) -> bytes:
        full = self._full(key)
        answer = self._calls.run(
            lambda: self._calls.request("get_object", Key=full, most=MAX_DOCUMENT_BYTES)
        )
        return cast(bytes, answer["Body"])

    def open(self, entry: Entry) -> BinaryIO:
        def fetch(start: int, end: int) -> bytes:
            return self._calls.run(lambda: self._fetch(entry, start, end))

        reader = RangedReader(fetch, name=f"{self.uri}/{entry.key}", size=entry.size)
        return cast(BinaryIO, reader)

    def put(self, key: str, data: bytes) -> None:
        full = self._full(key)
        self._calls.run(lambda: self._calls.request("put_object", Key=full, Body=data))

    def put_if_absent(self, objects: Mapping[str, bytes]) -> frozenset[str]:
        full = {self._full(key): data for key, data in objects.items()}
        won = self._calls.run(
            lambda: together(put_new(self._calls, key, data) for key, data in full.items())
        )
        return _those(objects, won)

    def stage(self) -> StagedFile:
        return stage_anonymously()

    def publish(self, objects: Mapping[str, tuple[Staged, bytes]]) -> frozenset[str]:
        try:
            uploads = [
                (self._full(key), cast(StagedFile, staged), plain_intent(intent))
                for key, (staged, intent) in objects.items()
            ]
            won = self._calls.run(
                lambda: together(
                    publish_new(self._calls, key, staged=staged, intent=intent)
                    for key, staged, intent in uploads
                )
            )
        finally:
            for staged, _ in objects.values():
                staged.discard()
        return _those(objects, won)

    def intents(self, key: str) -> tuple[bytes, ...]:
        answer = self._calls.run(lambda: self._head(self._full(key)))
        intent = None if answer is None else answer["Metadata"].get(INTENT)
        return () if intent is None else (intent.encode(),)

    def remove_intents(self, keys: Iterable[str]) -> None:
        """Do nothing: an intent is part of its object."""

    def delete(self, keys: Iterable[str]) -> None:
        full = [self._full(key) for key in keys]
        self._calls.run(lambda: self._delete(full))

    def delete_exactly(self, entries: Iterable[Entry]) -> frozenset[str]:
        seen = {self._full(entry.key): entry for entry in entries}
        others = self._calls.run(lambda: delete_exactly(self._calls, seen))
        return frozenset(seen[key].key for key in others)

    def move(self, entry: Entry, target: str) -> bool:
        """Copy the object, then delete it; at most 5 GB, the most that S3 copies in one request.

        Raises:
            StorageError: The object is larger.
        """
        old, new = self._full(entry.key), self._full(target)
        return self._calls.run(lambda: move_exactly(self._calls, entry, old, new))

    def garbage(self, *, intents: bool = False) -> Sequence[Entry]:  # noqa: ARG002 -- an intent is part of its object
        uploads, staged = self._calls.run(self._garbage)
        return [
            *(Entry(self._short(upload["Key"]), 0, upload["UploadId"]) for upload in uploads),
            *(self._entry(one["Key"], one, size=one["Size"]) for one in staged),
        ]

    def clean(self, *, intents: bool = False) -> None:  # noqa: ARG002 -- an intent is part of its object
        self._calls.run(self._clean)

    def check_conditional_writes(self) -> None:
        if not self._calls.run(self._probe):
            raise UnsafeStorageError(
                f"{self.uri}: this store ignores If-None-Match, so a second writer could replace "
                "what is published; use a store with conditional writes, or see to it that only one "
                "process writes and say unsafe_single_writer: true"
            )

    def server_time(self) -> float:
        """Return the server's clock, in seconds since 1970 UTC, as the header of an answer has it."""
        answer = self._calls.run(
            lambda: self._calls.request("list_objects_v2", Prefix=self._prefix, MaxKeys=1)
        )
        date: str = answer["ResponseMetadata"]["HTTPHeaders"]["date"]
        return parsedate_to_datetime(date).timestamp()

    def _full(self, key: str) -> str:
        return self._prefix + plain_key(key)

    def _short(self, full: str) -> str:
        return full.removeprefix(self._prefix)

    def _entry(self, full: str, answer: Mapping[str, Any], *, size: int) -> Entry:
        return Entry(self._short(full), size, answer["ETag"].strip('"'), modified_in(answer))

    async def _head(self, full: str) -> dict[str, Any] | None:
        try:
            return await self._calls.request("head_object", Key=full)
        except CallError as failure:
            if failure.verdict is Verdict.ABSENT:
                return None
            raise

    async def _fetch(self, entry: Entry, start: int, end: int) -> bytes:
        full = self._prefix + entry.key
        part = {"Range": f"bytes={start}-{end - 1}"} if end > start else {}
        try:
            answer = await self._calls.request(
                "get_object", most=end - start, Key=full, IfMatch=f'"{entry.identity}"', **part
            )
        except CallError as failure:
            # Some stores answer 412 for an object that is gone, and some for one that is unchanged.
            if failure.verdict is Verdict.TAKEN:
                still = await is_still(self._calls, full, entry)
                failure.verdict = _REFUSED_READ[still]
            raise
        if answer["ETag"].strip('"') != entry.identity:  # some stores ignore If-Match
            raise ObjectChangedError(
                f"{self.uri}/{entry.key}: it is not the object that was listed; run the same line again, "
                "which lists anew"
            )
        data = cast(bytes, answer["Body"])
        if len(data) != end - start:
            raise StorageError(
                f"{self.uri}/{entry.key}: {len(data)} bytes came where {end - start} were asked for; "
                "run the same line again"
            )
        return data

    async def _delete(self, full: Iterable[str]) -> None:
        objects = [{"Key": key} for key in dict.fromkeys(full)]
        starts = range(0, len(objects), _KEYS_A_DELETE)
        batches = [objects[start : start + _KEYS_A_DELETE] for start in starts]
        await together(
            self._calls.request("delete_objects", Delete={"Objects": batch}) for batch in batches
        )

    async def _objects(self, where: Mapping[str, str]) -> Iterable[dict[str, Any]]:
        markers = {"ContinuationToken": "NextContinuationToken"}
        return await self._calls.pages("list_objects_v2", of="Contents", markers=markers, **where)

    async def _garbage(self) -> tuple[Iterable[dict[str, Any]], Iterable[dict[str, Any]]]:
        """Return unfinished uploads, and the objects that probes of killed processes left."""
        uploads = await self._calls.pages(
            "list_multipart_uploads",
            of="Uploads",
            markers={"KeyMarker": "NextKeyMarker", "UploadIdMarker": "NextUploadIdMarker"},
            Prefix=self._prefix,
        )
        return uploads, await self._objects({"Prefix": f"{self._prefix}{STAGING}/"})

    async def _clean(self) -> None:
        uploads, probes = await self._garbage()
        await together(self._abort(upload["Key"], upload["UploadId"]) for upload in uploads)
        await self._delete(probe["Key"] for probe in probes)

    async def _abort(self, full: str, upload: str) -> None:
        try:
            await self._calls.request("abort_multipart_upload", Key=full, UploadId=upload)
        except CallError as failure:
            if failure.verdict is not Verdict.ABSENT:
                raise

    async def _probe(self) -> bool:
        # Once per bucket and process: sink and checkpoint often share a bucket, and the server refuses
        # second writers whatever the prefix.
        proven = self._calls.proven_buckets()
        if self._calls.bucket in proven:
            return True
        full = f"{self._prefix}{STAGING}/probe-{uuid.uuid4().hex}"
        try:
            is_safe = await second_writers_are_refused(self._calls, full)
        finally:
            await self._delete([full])
        if is_safe:
            proven.add(self._calls.bucket)
        return is_safe


def open_bucket(root: str, options: Options) -> S3Storage:
    """Open the storage of `bucket` or `bucket/prefix`."""
    bucket, _, prefix = root.partition("/")
    return S3Storage(bucket, prefix, storage_options=options)


def _those(keys: Iterable[str], won: Iterable[bool]) -> frozenset[str]:
    return frozenset(key for key, ours in zip(keys, won, strict=True) if ours)


def _is_listed(key: str) -> bool:
    """Return False for staged objects, and for the empty objects with which tools mark folders."""
    return key != "" and not key.endswith("/") and not is_staging(key)
