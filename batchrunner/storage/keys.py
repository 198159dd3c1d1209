"""Which keys and intents are allowed: the same rules for every storage."""

from __future__ import annotations

from batchrunner.errors import StorageError
from batchrunner.storage.contract import MAX_INTENT_BYTES

STAGING = ".staging"
"""Folder below a root for staged bytes. It is never listed, and refused in keys."""

_NOT_PLAIN = frozenset({"", ".", "..", STAGING})


def plain_key(key: str) -> str:
    """Return *key* unchanged, if it is relative, has "/" between folders and stays below the root.

    Raises:
        StorageError: A segment is empty, ".", ".." or the staging folder, or there is a NUL.
    """
    if "\0" in key or not _NOT_PLAIN.isdisjoint(key.split("/")):
        raise StorageError(
            f"{key!r} cannot be a key: write 'folder/name', without empty segments, '.', '..', "
            f"'{STAGING}' or NUL"
        )
    return key


def plain_folder(prefix: str) -> str:
    """Return *prefix* as "" (the root) or "folder/"."""
    return f"{plain_key(prefix.strip('/'))}/" if prefix.strip("/") else ""


def is_staging(key: str) -> bool:
    """Return whether *key* lies in a staging folder, this root's or a nested one's."""
    return STAGING in key.split("/")[:-1]


def is_hidden(key: str) -> bool:
    """Return whether *key* is never data: one of its folders or its name begins with "." or "_"."""
    return any(segment[0] in "._" for segment in key.split("/") if segment)


def plain_intent(intent: bytes) -> str:
    """Return *intent* as text that every store keeps byte for byte.

    Raises:
        StorageError: *intent* is empty, too long, or not one line of printable ASCII.
    """
    text = intent.decode("latin-1")
    if not text or len(text) > MAX_INTENT_BYTES or not text.isascii():
        raise StorageError(
            f"an intent is 1 to {MAX_INTENT_BYTES} bytes of ASCII, this one has {len(intent)}: shorten it"
        )
    if not text.isprintable() or text != text.strip():
        raise StorageError("an intent is one line of printable ASCII without blanks at its ends")
    return text
