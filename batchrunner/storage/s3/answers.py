"""Distinguishes answers of an S3 server from those of a proxy, by the fields that S3 always sends.

A proxy, a gateway or a login page answers 200 to any request. What it "stored" is nowhere.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from batchrunner.storage.s3.errors import CallError, Verdict, from_answer, is_web_page

_ALWAYS_SENT = {
    "complete_multipart_upload": ("ETag",),
    "copy_object": ("CopyObjectResult",),
    "create_multipart_upload": ("UploadId",),
    "get_object": ("ETag", "ContentLength"),
    "head_object": ("ETag", "ContentLength"),
    "list_multipart_uploads": ("IsTruncated",),
    "list_objects_v2": ("IsTruncated",),
    "put_object": ("ETag",),
    "upload_part": ("ETag",),
}
"""The fields are checked because an empty answer looks like an empty listing, or like stored bytes."""


def check_answer(method: str, answer: Mapping[str, Any], asked: Mapping[str, Any]) -> None:
    """Refuse an *answer* to *method* that no S3 server gives; *asked* are the request's parameters.

    Raises:
        CallError: The answer is not from S3, so what was done is unknown; or a deletion was done in part.
    """
    missing = [name for name in _ALWAYS_SENT.get(method, ()) if name not in answer]
    if missing:
        raise _no_answer(f"a success without {' and '.join(missing)}")
    if is_web_page(answer["ResponseMetadata"]["HTTPHeaders"]):
        raise _no_answer("a web page")
    if method == "delete_objects":
        _check_deletion(answer, asked["Delete"]["Objects"])


def _check_deletion(answer: Mapping[str, Any], objects: list[Any]) -> None:
    """Check that the answer covers all *objects*, by their number: XML cannot hold every key."""
    errors = answer.get("Errors", [])
    for error in errors:
        raise from_answer({"Error": {**error, "Message": f"{error['Key']} is still there"}})
    if len(answer.get("Deleted", [])) < len(objects):
        raise _no_answer(
            f"a success that does not say of {len(objects)} objects that they are gone"
        )


def _no_answer(what: str) -> CallError:
    return CallError(Verdict.NO_S3, code="NoAnswerOfS3", message=what)
