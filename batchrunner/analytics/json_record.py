"""The store's small records: JSON objects that say which format they are in."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from batchrunner.analytics.layout import FORMAT_VERSION
from batchrunner.errors import NewerFormatError, StorageError
from batchrunner.storage import Storage


def to_bytes(fields: Mapping[str, Any]) -> bytes:
    """Return the record of *fields*."""
    return orjson.dumps({"version": FORMAT_VERSION, **fields})


def read_json(storage: Storage, key: str) -> dict[str, Any]:
    """Return the fields of the record under *key*.

    Raises:
        ObjectNotFoundError: There is none.
        NewerFormatError: A later version wrote it.
        StorageError: It is torn, or nothing of ours.
    """
    place = f"{storage.uri}/{key}"
    try:
        fields = orjson.loads(storage.get(key))
        version = fields["version"]
    except (ValueError, TypeError, KeyError) as error:
        raise StorageError(
            f"{place} is damaged: it holds no whole record; restore it from a copy"
        ) from error
    if not isinstance(version, int) or version > FORMAT_VERSION:
        raise NewerFormatError(
            f"{place} has format version {version}; this batchrunner reads up to {FORMAT_VERSION}: "
            "use the version that wrote it"
        )
    return dict(fields)
