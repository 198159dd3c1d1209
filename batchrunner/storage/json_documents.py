"""JSON documents with a format version: one codec for checkpoints, analytics stores, journals."""

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
        name: What to call the document in an error.
        newest: The latest format version that the caller reads.
        damaged: The type of error to raise for bytes that are torn or foreign.
        way_out: The end of that error's message.

    Raises:
        NewerFormatError: The document is of a later format version.
        BatchRunnerError: The bytes are torn or foreign: an error of type *damaged*.
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
        NewerFormatError: The version is above *newest*.
        TypeError: The version is not a number.
    """
    if version > newest:
        raise NewerFormatError(
            f"{name} has format version {version}; this batchrunner reads up to {newest}: use the "
            "version that wrote it"
        )


def sealed(document: bytes) -> bytes:
    """Return *document*, a JSON object, with a checksum of itself as its last field.

    It is for documents that are read long after they were written, and decide what is computed: a change
    by hand or by a failing disk is detected. Documents that are only shown, or that are replaced every
    few seconds, have none.
    """
    return document[:-1] + _seal(hashlib.sha256(document).hexdigest()[:16])


def unseal(data: bytes) -> tuple[dict[str, Any], bool]:
    """Return the fields of a document with a checksum, and whether its bytes still match it.

    Raises:
        ValueError: *data* is not a JSON object with a checksum.
    """
    try:
        fields: dict[str, Any] = orjson.loads(data)
        check = str(fields.pop(_CHECK))
    except (TypeError, KeyError, AttributeError) as error:
        raise ValueError("not a JSON object with a checksum") from error
    return fields, data == sealed(data[: -len(_seal(check))] + b"}")


def _seal(check: str) -> bytes:
    return f',"{_CHECK}":"{check}"}}'.encode()
