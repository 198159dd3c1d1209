"""Writes objects to a bucket under free keys, and decides afterwards whether they are ours."""

from __future__ import annotations

import contextlib
import os
import uuid
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from dataclasses import dataclass
from typing import Any

from batchrunner.storage.s3.bodies import Window
from batchrunner.storage.s3.calls import S3Calls, together
from batchrunner.storage.s3.errors import CallError, Verdict
from batchrunner.storage.staging import StagedFile, stage_anonymously

INTENT = "batchrunner-intent"
_ATTEMPT = "batchrunner-attempt"

_WHOLE_UP_TO = 32 << 20
_PART = 16 << 20
_MOST_PARTS = 10_000
_BIG = 1 << 20
"""A body of at least so many bytes counts as large."""
_UPLOADS = 3
"""How many multipart uploads of one object another driver may clean away before we give up."""

_LOST = frozenset({Verdict.PASSES, Verdict.UNREACHED, Verdict.NO_S3})
"""The store did not answer, or its answer did not come through."""
_LOOK = _LOST | {Verdict.TAKEN, Verdict.CONFLICT, Verdict.ABSENT}
"""After these the object may still be ours: an answer may have been lost, here or inside the store."""


@dataclass(frozen=True, slots=True)
class Upload:
    """One object to publish.

    Attributes:
        key: Its full key.
        fd: The file with its bytes.
        size: How many there are.
        metadata: What S3 stores with it: the intent, and a unique id of this attempt.
    """

    key: str
    fd: int
    size: int
    metadata: dict[str, str]

    @classmethod
    @contextlib.contextmanager
    def of(cls, key: str, *, staged: StagedFile, intent: str) -> Iterator[Upload]:
        """Hold the file open, also if the caller is interrupted, and discards it, while it is read here.

        Otherwise another file might get its number, and be uploaded in its place.
        """
        fd = os.dup(staged.fd)
        try:
            size = os.fstat(fd).st_size
            yield cls(key, fd, size, {INTENT: intent, _ATTEMPT: uuid.uuid4().hex})
        finally:
            os.close(fd)


async def put_new(calls: S3Calls, key: str, data: bytes) -> bool:
    """Write *data* under *key* if it is free; return whether the key holds *data* now."""

    async def write() -> None:
        await calls.request("put_object", Key=key, Body=data, IfNoneMatch="*")

    return await _claim(write, lambda: _holds(calls, key, data))


async def publish_new(calls: S3Calls, key: str, *, staged: StagedFile, intent: str) -> bool:
    """Upload *staged* if *key* is free; return whether the object there is from this upload."""
    with Upload.of(key, staged=staged, intent=intent) as upload:
        return await _publish(calls, upload)


async def _publish(calls: S3Calls, upload: Upload) -> bool:
    in_parts = upload.size > _WHOLE_UP_TO

    async def write() -> None:
        await (_put_in_parts if in_parts else _put_whole)(calls, upload)

    won = await _claim(write, lambda: _is_of(calls, upload))
    # A store may check that the key is free and write a little later: of two uploads that SeaweedFS
    # 4.48 completes at the same instant, both get a success.
    return bool(await _is_of(calls, upload)) if won and in_parts else won


async def second_writers_are_refused(calls: S3Calls, key: str) -> bool:
    """Write *key* three times; return whether the last two, whole and in parts, are refused.

    Leaves the object there.
    """
    await put_new(calls, key, b"first")
    staged = stage_anonymously()
    try:
        staged.file.write(b"second")
        staged.file.close()
        with Upload.of(key, staged=staged, intent="probe") as upload:
            return await _is_refused(_put_whole(calls, upload)) and await _is_refused(
                _put_in_parts(calls, upload)
            )
    finally:
        staged.discard()


async def _is_refused(write: Coroutine[Any, Any, None]) -> bool:
    try:
        await write
    except CallError as failure:
        if failure.verdict is Verdict.TAKEN:
            return True
        if failure.code != "NotImplemented":
            raise
    return False


async def _claim(
    write: Callable[[], Awaitable[None]], is_ours: Callable[[], Awaitable[bool | None]]
) -> bool:
    """Write, and return whether the object is ours, also if the answer was an error or was lost."""
    uploads = 0
    while True:
        try:
            await write()
        except CallError as failure:
            uploads += 1
            if failure.verdict not in _LOOK:
                raise
            ours = await is_ours()
            # After a 412 another object was there, even if none is now.
            if ours is not None or failure.verdict is Verdict.TAKEN:
                return bool(ours)
            if failure.verdict in _LOST or uploads >= _UPLOADS:
                raise
        else:
            return True


async def _holds(calls: S3Calls, key: str, data: bytes) -> bool | None:
    """Return whether the object under *key* is exactly *data*; None when there is none."""
    try:
        answer = await calls.request("get_object", Key=key, most=len(data))
    except CallError as failure:
        if failure.verdict is Verdict.ABSENT:
            return None
        if failure.verdict is Verdict.TOO_LARGE:
            return False
        raise
    return bool(answer["Body"] == data)


async def _is_of(calls: S3Calls, upload: Upload) -> bool | None:
    """Return whether the object came from this very *upload*; None when there is none."""
    try:
        answer = await calls.request("head_object", Key=upload.key)
    except CallError as failure:
        if failure.verdict is Verdict.ABSENT:
            return None
        raise
    return bool(answer["Metadata"].get(_ATTEMPT) == upload.metadata[_ATTEMPT])


async def _put_whole(calls: S3Calls, upload: Upload) -> None:
    async with calls.big_body() if upload.size >= _BIG else contextlib.nullcontext():
        await calls.request(
            "put_object",
            Key=upload.key,
            Body=Window(upload.fd, 0, upload.size),
            Metadata=upload.metadata,
            IfNoneMatch="*",
        )


async def _put_in_parts(calls: S3Calls, upload: Upload) -> None:
    begun = await calls.request("create_multipart_upload", Key=upload.key, Metadata=upload.metadata)
    target: dict[str, Any] = {"Key": upload.key, "UploadId": begun["UploadId"]}
    try:
        parts = await _put_parts(calls, upload, target)
        named = {"ETag", "PartNumber", f"Checksum{begun.get('ChecksumAlgorithm')}"}
        complete = [{name: part[name] for name in named & part.keys()} for part in parts]
        await calls.request(
            "complete_multipart_upload",
            MultipartUpload={"Parts": complete},
            IfNoneMatch="*",
            **target,
        )
    except BaseException:
        with contextlib.suppress(CallError):  # `clean` removes what is left
            await calls.request("abort_multipart_upload", **target)
        raise


async def _put_parts(
    calls: S3Calls, upload: Upload, target: dict[str, Any]
) -> list[dict[str, Any]]:
    size = max(_PART, -(-upload.size // _MOST_PARTS))

    async def put(number: int) -> dict[str, Any]:
        start = number * size
        body = Window(upload.fd, start, min(size, upload.size - start))
        async with calls.big_body():
            answer = await calls.request("upload_part", PartNumber=number + 1, Body=body, **target)
        return {**answer, "PartNumber": number + 1}

    return await together(put(number) for number in range(-(-upload.size // size)))
