"""Torn files that a write finds under its own names: moved away, and written again."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from batchrunner.analytics.table_files import is_torn
from batchrunner.errors import StorageError
from batchrunner.storage import Storage

DAMAGED = "_damaged"
"""Where torn files go, under the key that they had: somebody may want to look at them."""

_log = logging.getLogger(__name__)


def put_whole(storage: Storage, objects: Mapping[str, bytes]) -> frozenset[str]:
    """Write each of *objects* whose key is free, or holds a torn file; return their keys.

    As `put_if_absent`: atomic and durable, one by one. Only what was there before is read, and
    whole files stay as they are. Dying in between leaves what a deleted file would.

    Raises:
        StorageError: It could not be done. Call again.
    """
    if not objects:
        return frozenset()
    new = storage.put_if_absent(objects)
    torn = {key: objects[key] for key in objects if key not in new and _moved_away(storage, key)}
    return new | storage.put_if_absent(torn) if torn else new


def _moved_away(storage: Storage, key: str) -> bool:
    """Move the file at *key* to `DAMAGED` if it is torn; tell whether that was so."""
    try:
        entry = storage.head(key)
        if entry is None or not is_torn(storage, entry):
            return False
    except StorageError as error:  # whoever may only write goes on as ever
        _log.info("cannot look at %s: %s", key, error, extra={"action": "file_not_checked"})
        return False
    # Exactly this one: of several writers that find it, the others meet the whole file of the first.
    storage.move(entry, f"{DAMAGED}/{key}")
    _log.warning(
        "%s/%s was torn: moved it to %s, and wrote it again",
        storage.uri,
        key,
        DAMAGED,
        extra={"action": "file_mended", "key": key},
    )
    return True
