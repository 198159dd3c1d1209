"""Removes or moves an object in a bucket only if it is still the one that was listed."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from batchrunner.storage.contract import Entry
from batchrunner.storage.s3.calls import S3Calls, together
from batchrunner.storage.s3.errors import CallError, Verdict

_KEYS_A_DELETE = 1000
_LOOKS = 3
_SECONDS_APART = 2.0
"""Times closer than this are of one write: a listing has fractions of a second, other answers only whole
ones. A driver that displaces one of another machine has waited for longer."""


def modified_in(answer: Mapping[str, Any]) -> float:
    """Return when the object was written, by the store's clock; 0.0 if the answer has no time."""
    time = answer.get("LastModified")
    return time.timestamp() if isinstance(time, datetime) else 0.0


async def delete_exactly(calls: S3Calls, seen: Mapping[str, Entry]) -> set[str]:
    """Remove each object that its entry in *seen* still describes; return keys that hold another.

    Keys are full, with the storage's prefix. The deletion carries the condition, for stores that
    support it; for those that do not, each object is checked just before.
    """
    # Repeated, because one object that changed makes some stores refuse the whole batch.
    others: set[str] = set()
    todo = dict(seen)
    for look in range(_LOOKS):
        still = await together(is_still(calls, key, entry) for key, entry in todo.items())
        checked = dict(zip(todo, still, strict=True))
        others |= {key for key, same in checked.items() if same is False}
        todo = {key: todo[key] for key, same in checked.items() if same}
        try:
            await _delete(calls, todo)
        except CallError as failure:
            if not _is_refused_by_condition(failure) or look + 1 == _LOOKS:
                raise
        else:
            break
    return others


async def move_exactly(calls: S3Calls, entry: Entry, old: str, new: str) -> bool:
    """Copy *old* to *new* and remove *old* if *entry* still describes it; return whether it did."""
    if not await is_still(calls, old, entry):
        return False
    place = {"Bucket": calls.bucket, "Key": old}
    etag = f'"{entry.identity}"'
    try:
        await calls.request("copy_object", Key=new, CopySource=place, CopySourceIfMatch=etag)
    except CallError as failure:
        if failure.verdict not in (Verdict.ABSENT, Verdict.TAKEN):
            raise
        return False
    return not await delete_exactly(calls, {old: entry})


async def is_still(calls: S3Calls, key: str, entry: Entry) -> bool | None:
    """Return whether *entry* still describes the object under *key*; None when there is none.

    Two writes of the same bytes have the same ETag, and differ in their time.
    """
    try:
        answer = await calls.request("head_object", Key=key)
    except CallError as failure:
        if failure.verdict is Verdict.ABSENT:
            return None
        raise
    apart = abs(modified_in(answer) - entry.modified) if entry.modified else 0.0
    there = (answer["ETag"].strip('"'), answer["ContentLength"])
    return there == (entry.identity, entry.size) and apart < _SECONDS_APART


async def _delete(calls: S3Calls, todo: Mapping[str, Entry]) -> None:
    objects = [{"Key": key, "ETag": f'"{entry.identity}"'} for key, entry in todo.items()]
    batches = [
        objects[start : start + _KEYS_A_DELETE] for start in range(0, len(objects), _KEYS_A_DELETE)
    ]
    await together(calls.request("delete_objects", Delete={"Objects": batch}) for batch in batches)


def _is_refused_by_condition(failure: CallError) -> bool:
    return failure.verdict is Verdict.TAKEN or failure.code in ("PreconditionFailed", "NoSuchKey")
