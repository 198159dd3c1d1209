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
    # Any other object is equal to itself alone: what it prints may hide what it holds, as a secret does.
    return (kind, value) if isinstance(value, _PLAIN) else _Same(value)


@dataclass(frozen=True, eq=False, slots=True)
class _Same:
    """An object, compared by identity; kept, so that no other one gets its address."""

    value: Any

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and self.value is other.value

    def __hash__(self) -> int:
        return id(self.value)


def copied_options(options: Options) -> Options:
    """Return *options* with mappings and lists of their own: the caller may change its own later."""
    return {name: _copied(value) for name, value in options.items()}


def _copied(value: Any) -> Any:
    if isinstance(value, Mapping):
        return copied_options(value)
    return list(map(_copied, value)) if isinstance(value, list) else value


MAX_DOCUMENT_BYTES = 64 << 20
"""Documents (sentinels, leases, sentinel indexes) larger than this are refused, not read into memory."""

MAX_INTENT_BYTES = 1800
"""S3 allows 2 KB of metadata with an object."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One object, as a listing shows it.

    Attributes:
        key: Relative to the storage's root, "/" between folders.
        size: Bytes.
        identity: Differs whenever the bytes do: the ETag in a bucket, the time of the last change
            in nanoseconds on a disk.
        modified: When a bucket says it was written, in seconds of the store's own clock; 0.0 where
            `identity` differs between two writes of the same bytes. Not compared.
    """

    key: str
    size: int
    identity: str
    modified: float = field(default=0.0, compare=False)


class Staged(Protocol):
    """Bytes that no reader sees yet: written here first, then published or discarded."""

    @property
    def file(self) -> BinaryIO:
        """Open for writing, unbuffered, and for reading back. Close it before it is published.

        `write` writes everything or raises `StorageError`.
        """

    def discard(self) -> None:
        """Give the bytes up. Idempotent; does nothing once they are published."""


class Storage(Protocol):
    """Objects under keys below one root. Safe to use from several threads, processes and machines.

    What is durable survives a power cut from the moment the call returns. What is atomic is seen
    whole or not at all. Every call retries what passes (within a bounded number of requests and
    a bounded time) and raises `StorageError`, naming the object, for what does not:
    `ObjectNotFoundError`, `StorageAccessError`, `ObjectChangedError` where they apply.

    A key is relative and plain: no empty, "." or ".." segment, and none called ".staging".
    """

    @property
    def uri(self) -> str:
        """The root, absolute, without credentials and without a trailing slash."""

    def list(self, prefix: str = "", *, recursive: bool = False) -> Iterator[Entry]:
        """Yield the objects in folder *prefix*, sorted by key; below it too when *recursive*.

        Every page is read. What is staged is never listed. A folder that does not exist is empty.
        """

    def head(self, key: str) -> Entry | None:
        """Return the object's entry, or None when there is none."""

    def get(self, key: str) -> bytes:
        """Return the bytes of a document.

        Raises:
            ObjectNotFoundError: There is none.
            StorageError: It is larger than `MAX_DOCUMENT_BYTES`, a number that the message names.
                Nothing of it is read.
        """

    def open(self, entry: Entry) -> BinaryIO:
        """Open the object of *entry* for reading: seekable, and pinned to that identity.

        A read returns as much as was asked for, but at the end.

        Raises:
            ObjectNotFoundError: It is gone. Here, or from the first read.
            ObjectChangedError: Other bytes are under the key. Here, or from any read, or from
                `close`, which must not be left out for that reason.
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
        """Open a place to write one object of any size."""

    def publish(self, objects: Mapping[str, tuple[Staged, bytes]]) -> frozenset[str]:
        """Give each staged object its key, if the key is free, with an *intent* attached to it.

        As `put_if_absent`: atomic, durable, and the same answer, but of several attempts exactly
        one gets the key even if all have the same bytes. The intent (one line of printable ASCII, at
        most `MAX_INTENT_BYTES`) is durable before the object is visible. What lost is discarded,
        and so is everything when an error is raised; some objects may be published then.

        Raises:
            ObjectNotFoundError: What was staged was cleaned away.
            UnsafeStorageError: The file system has no hard links.
            ValueError: A staged file is not closed.
        """

    def intents(self, key: str) -> tuple[bytes, ...]:
        """Return the intents that may belong to the object under *key*.

        One of them is the winner's. A disk cannot tie an intent to its object: there the intents of
        attempts that lost, or died, are among them, and the caller matches them by checksum.
        Afterwards the object, if it is there, is durable, and may be recorded as such.
        """

    def remove_intents(self, keys: Iterable[str]) -> None:
        """Drop the intents of *keys*, where they are objects of their own. Idempotent.

        Intents that were published in one call may stay until the last of them is dropped.
        """

    def delete(self, keys: Iterable[str]) -> None:
        """Remove the objects, durably. Idempotent: what is not there is no error."""

    def delete_exactly(self, entries: Iterable[Entry]) -> frozenset[str]:
        """Remove each object that is still the one of its entry, in this order, durably.

        For a driver that may have been displaced since it looked: what another one wrote under the
        key meanwhile stays, where the store honours the condition of a deletion. A bucket that ignores
        it is asked just before, and a write in between is lost.

        Returns:
            The keys that hold another object, which was left alone. What is gone is no error.
        """

    def move(self, entry: Entry, target: str) -> bool:
        """Give the object of *entry* another key, if it is still that object.

        Replaces what was under *target*. Durable; not atomic in a bucket, where a crash may leave
        both. As with `delete_exactly`, what another writer put there meanwhile stays.

        Returns:
            Whether this call moved it. False when it is gone, moved already, or another object.
        """

    def garbage(self, *, intents: bool = False) -> Sequence[Entry]:
        """Return what `clean` would remove, dead or alive.

        Staged bytes have keys below `.staging`; an unfinished upload has the key that it is for,
        size 0 and an identity of its own.
        """

    def clean(self, *, intents: bool = False) -> None:
        """Remove what dead writers left behind: staged bytes, unfinished uploads.

        With *intents* also all intents that are objects of their own: only where nothing is adopted.

        Call it with the right to run only: a live writer's staged bytes go too. Its publish then
        raises `ObjectNotFoundError`, or uploads them again from where they are kept.
        """

    def check_conditional_writes(self) -> None:
        """Prove that `put_if_absent` refuses a second writer.

        Raises:
            UnsafeStorageError: It does not.
        """
