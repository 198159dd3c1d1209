"""Helpers of the storage tests: stage, publish, list, read, and run races."""

# A test suite, although it is shipped.
# ruff: noqa: S101

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import ClassVar, TypeVar

from batchrunner.storage.contract import Entry, Staged, Storage

T = TypeVar("T")

INTENT = b'{"attempt": 1}'

ODD_KEYS = (
    "a b",
    "a+b",
    "a%2Fb",
    "a&b=c?d#e",
    "naïve/日本語",
    "quote'\"<>",
    "tilde~/.hidden",
    "x" * 200,
)

NOT_KEYS = ("", "/a", "a/", "a//b", ".", "..", "../a", "a/../b", "a/./b", ".staging/a", "a\0b")


def staged(storage: Storage, data: bytes) -> Staged:
    """Stage *data*, and close the file so that it can be published."""
    one = storage.stage()
    one.file.write(data)
    one.file.close()
    return one


def publish(
    storage: Storage, objects: Mapping[str, bytes], *, intent: bytes = INTENT
) -> frozenset[str]:
    """Publish *objects* with one intent for all."""
    return storage.publish({key: (staged(storage, data), intent) for key, data in objects.items()})


def keys(storage: Storage, prefix: str = "", *, recursive: bool = False) -> list[str]:
    """Return the keys of a listing."""
    return [entry.key for entry in storage.list(prefix, recursive=recursive)]


def entry_of(storage: Storage, key: str) -> Entry:
    """Return the entry of an existing object."""
    entry = storage.head(key)
    assert entry is not None
    return entry


def at_once(work: Iterable[Callable[[], T]]) -> list[T]:
    """Start all of *work* at the same instant, in threads; return what they return, in order."""
    todo = list(work)
    start = threading.Barrier(len(todo))

    def run(one: Callable[[], T]) -> T:
        start.wait()
        return one()

    with ThreadPoolExecutor(len(todo)) as pool:
        return list(pool.map(run, todo))


def read_all(storage: Storage, entry: Entry) -> bytes:
    """Read the object of *entry* from end to end."""
    with storage.open(entry) as file:
        return file.read()


class Races:
    """The size of races in tests; a subclass for a slow store may lower it."""

    contenders: ClassVar[int] = 8
    """Threads in a race."""
    rounds: ClassVar[int] = 5
    """Races in a test."""
