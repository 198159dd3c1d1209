"""JSON documents with a format version: the one codec of checkpoints, analytics stores and journals."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import orjson

from batchrunner.errors import BatchRunnerError, NewerFormatError

_CHECK = "check"


def to_json(fields: Mapping[str, Any], *, version: int) -> bytes:
    """Return the document of *fields*, with its format *version* first."""
    return orjson.dumps({"version": version, **fields})


def from_json(
    data: bytes, *, name: str, newest: int, damaged: type[BatchRunnerError], way_out: str = ""
) -> dict[str, Any]:
    """Return the fields of a document, with its version.

    Args:
        data: The document.
        name: What to call it in an error.
        newest: The latest format version that the caller reads.
        damaged: The error to raise for bytes that are torn or foreign.
        way_out: How that error ends.

    Raises:
        NewerFormatError: It is of a later version.
        BatchRunnerError: It is *damaged*.
    """
    try:
        fields = dict(orjson.loads(data))
        check_version(fields["version"], name=name, newest=newest)
    except (ValueError, TypeError, KeyError) as error:
        raise damaged(f"{name} is damaged: it holds no whole document{way_out}") from error
    return fields


def check_version(version: Any, *, name: str, newest: int) -> None:
    """Refuse the document called *name* if its *version* is above the *newest*.

    Raises:
        NewerFormatError: It is.
        TypeError: It is no number.
    """
    if version > newest:
        raise NewerFormatError(
            f"{name} has format version {version}; this batchrunner reads up to {newest}: use the "
            "version that wrote it"
        )


def sealed(document: bytes) -> bytes:
    """Return *document*, a JSON object, with a checksum of itself as its last field.

    For what is read long after it was written, and decides what is computed: a change by hand or by a
    disk is detected. What is only shown, or is replaced every few seconds, does without.
    """
    return document[:-1] + _seal(hashlib.sha256(document).hexdigest()[:16])


def unseal(data: bytes) -> tuple[dict[str, Any], bool]:
    """Return the fields of a sealed document, and whether it is as it was written.

    Raises:
        ValueError: It is no JSON object with a checksum.
    """
    try:
        fields: dict[str, Any] = orjson.loads(data)
        check = str(fields.pop(_CHECK))
    except (TypeError, KeyError, AttributeError) as error:
        raise ValueError("not a JSON object with a checksum") from error
    return fields, data == sealed(data[: -len(_seal(check))] + b"}")


def _seal(check: str) -> bytes:
    return f',"{_CHECK}":"{check}"}}'.encode()
