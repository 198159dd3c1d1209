"""The contract between batchrunner and any store of bytes: a disk, a bucket, a test's memory."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, BinaryIO, Protocol

Options = Mapping[str, Any]


_PLAIN = (str, bytes, int, float, bool, type(None))


def options_key(options: Options) -> Hashable:
    """Return a key for a cache: equal for equal *options*, whatever their order."""
    return frozenset((name, _key(value)) for name, value in options.items())


def _key(value: Any) -> Hashable:
    kind = type(value)
    if isinstance(value, Mapping):
        return (kind, options_key(value))
    if isinstance(value, (list, tuple)):
        return (kind, tuple(map(_key, value)))
    # Any other object equals only itself: its text may hide its content, as a secret's text does.
    return (kind, value) if isinstance(value, _PLAIN) else _Same(value)


@dataclass(frozen=True, eq=False, slots=True)
class _Same:
    """An object that is compared by identity, and kept, so that no other gets its address."""

    value: Any

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and self.value is other.value

    def __hash__(self) -> int:
        return id(self.value)


def copied_options(options: Options) -> Options:
    """Return *options* with copies of the mappings and lists in it, which the caller may change."""
    return {name: _copied(value) for name, value in options.items()}


def _copied(value: Any) -> Any:
    if isinstance(value, Mapping):
        return copied_options(value)
    return list(map(_copied, value)) if isinstance(value, list) else value


MAX_DOCUMENT_BYTES = 64 << 20
"""Documents (sentinels, leases, sentinel indexes) larger than this are refused, not read into memory."""

MAX_INTENT_BYTES = 1800
"""The longest intent: S3 allows 2 KB of metadata with an object."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One object, as a listing shows it.

    Attributes:
        key: Relative to the storage's root, "/" between folders.
        size: Bytes.
        identity: Differs whenever the bytes do: the ETag in a bucket, the time of the last change
            in nanoseconds on a disk.
        modified: When it was written to a bucket, in seconds of the store's own clock; 0.0 where
            `identity` already differs between two writes of the same bytes. Not compared.
    """

    key: str
    size: int
    identity: str
    modified: float = field(default=0.0, compare=False)


class Staged(Protocol):
    """Bytes that no reader sees yet: written here first, then published or discarded."""

    @property
    def file(self) -> BinaryIO:
        """The open file, unbuffered, for writing and reading back. Close it before it is published.

        `write` writes everything or raises `StorageError`.
        """

    def discard(self) -> None:
        """Discard the bytes. Idempotent; does nothing once they are published."""


class Storage(Protocol):
    """Objects under keys below one root. Safe to use from several threads, processes and machines.

    What is durable survives a power cut from the moment the call returns. What is atomic is seen
    whole or not at all. Every call retries failures that may pass (within a bounded number of requests
    and a bounded time), and for others raises a `StorageError` that names the object:
    `ObjectNotFoundError`, `StorageAccessError`, `ObjectChangedError` where they apply.

    A key is relative and plain: no empty, "." or ".." segment, and none called ".staging".
    """

    @property
    def uri(self) -> str:
        """The root, absolute, without credentials and without a trailing slash."""

    def list(self, prefix: str = "", *, recursive: bool = False) -> Iterator[Entry]:
        """Yield the objects in folder *prefix*, sorted by key; below it too when *recursive*.

        All pages of a listing are read. Staged bytes are never listed. A folder that does not exist is
        empty.
        """

    def head(self, key: str) -> Entry | None:
        """Return the object's entry, or None when there is none."""

    def get(self, key: str) -> bytes:
        """Return the bytes of a document.

        Raises:
            ObjectNotFoundError: There is no such object.
            StorageError: The object is larger than `MAX_DOCUMENT_BYTES`, which the message names.
                Nothing of it is read.
        """

    def open(self, entry: Entry) -> BinaryIO:
        """Open the object of *entry* for reading: seekable, and pinned to that identity.

        A read returns as many bytes as were asked for, except at the end of the object. A file that reads
        ahead may be an `Advised` (`storage/advice.py`), and is then advised how far it is read.

        Raises:
            ObjectNotFoundError: The object is gone. Raised here, or by the first read.
            ObjectChangedError: Other bytes are under the key. Raised here, by any read, or by `close`,
                which must be called for that reason.
        """

    def put(self, key: str, data: bytes) -> None:
        """Write *data* under *key*, replacing what was there. Atomic and durable."""

    def put_if_absent(self, objects: Mapping[str, bytes]) -> frozenset[str]:
        """Write each of *objects* whose key is free. Atomic and durable, one by one.

        Returns:
            The keys that hold exactly these bytes because of this call, also when the store's
            answer was lost on the way and the call had to look. The others belong to another
            caller, durably, and were left alone. Of several callers with different bytes, exactly
            one gets the key; callers with the same bytes are not distinguished, and all get it.
        """

    def stage(self) -> Staged:
        """Open a staged file, in which to write one object of any size."""

    def publish(self, objects: Mapping[str, tuple[Staged, bytes]]) -> frozenset[str]:
        """Give each staged object its key, if the key is free, with an *intent* attached to it.

        Atomic and durable, and returns the same keys, as `put_if_absent`; but of several attempts
        exactly one gets the key even if all have the same bytes. The intent (one line of printable
        ASCII, at most `MAX_INTENT_BYTES`) is durable before the object is visible. Staged bytes that
        lose are discarded. If an error is raised, all are, and some objects may be published by then.

        Raises:
            ObjectNotFoundError: `clean` removed the staged bytes.
            UnsafeStorageError: The file system has no hard links.
            ValueError: A staged file is not closed.
        """

    def intents(self, key: str) -> tuple[bytes, ...]:
        """Return the intents that may belong to the object under *key*.

        One of them is the winner's. A disk cannot tie an intent to its object: there the intents of
        attempts that lost, or died, are among them, and the caller matches them by checksum.
        Once this returns, the object, if it exists, is durable, and may be recorded as such.
        """

    def remove_intents(self, keys: Iterable[str]) -> None:
        """Remove the intents of *keys*, if they are stored apart from their objects. Idempotent.

        Intents that were published in one call may stay until the last of them is removed.
        """

    def delete(self, keys: Iterable[str]) -> None:
        """Remove the objects under *keys*, durably. Idempotent: an absent object is no error."""

    def delete_exactly(self, entries: Iterable[Entry]) -> frozenset[str]:
        """Remove each object that its entry still describes, durably; on a disk in the given order.

        For a driver that may have been displaced since it listed them: an object that another driver
        wrote under the key meanwhile stays, if the store supports conditional deletes. In a bucket that
        does not, each object is checked just before, and a write in between is lost.

        Returns:
            The keys that hold another object, which was left alone. An object that is gone is no error.
        """

    def move(self, entry: Entry, target: str) -> bool:
        """Move the object to the key *target*, if *entry* still describes it.

        Replaces what was under *target*. Durable; not atomic in a bucket, where a crash may leave the
        object under both keys. As with `delete_exactly`, an object that another writer put under the
        old key meanwhile stays.

        Returns:
            Whether this call moved it. False when it is gone, moved already, or another object.
        """

    def garbage(self, *, intents: bool = False) -> Sequence[Entry]:
        """Return what `clean` would remove, whether its writer is dead or alive.

        Staged bytes have keys below `.staging`; an unfinished upload has the key of the object to be,
        size 0 and an identity of its own.
        """

    def clean(self, *, intents: bool = False) -> None:
        """Remove what dead writers left behind: staged bytes, unfinished uploads.

        With *intents*, remove also all intents that are stored apart from their objects: only where
        nothing is adopted.

        Call it only with the lease: a live writer's staged bytes are removed, too. Its `publish` then
        raises `ObjectNotFoundError`, or uploads the bytes again from its own copy.
        """

    def check_conditional_writes(self) -> None:
        """Prove that `put_if_absent` refuses a second writer.

        Raises:
            UnsafeStorageError: A second writer is not refused.
        """
