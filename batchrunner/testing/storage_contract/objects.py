"""Promises about objects and keys: put, get, head, list, and put_if_absent."""

# A test suite, although it is shipped.
# ruff: noqa: S101

from __future__ import annotations

import threading
import tracemalloc
from collections.abc import Callable
from typing import ClassVar

import pytest

from batchrunner.errors import ObjectNotFoundError, StorageError
from batchrunner.storage.contract import MAX_DOCUMENT_BYTES, Storage
from batchrunner.testing.storage_contract.acts import (
    INTENT,
    NOT_KEYS,
    ODD_KEYS,
    Races,
    at_once,
    entry_of,
    keys,
    publish,
)


class ObjectPromises(Races):
    """Every process sees an object that was put, whole and under its own key."""

    has_server_in_process: ClassVar[bool] = False
    """Whether the store's server runs in the process of the tests, and allocates memory there."""

    def test_the_uri_is_absolute_and_has_no_slash_at_its_end(self, storage: Storage) -> None:
        """Reports and refs contain it."""
        assert storage.uri.startswith("/") or "://" in storage.uri
        assert not storage.uri.endswith("/")

    def test_a_twin_sees_what_was_put(self, storage: Storage, twin: Storage) -> None:
        """Drivers and workers meet in storage, not in memory."""
        storage.put("a/b", b"1")

        assert twin.get("a/b") == b"1"
        assert keys(twin, "a") == ["a/b"]

    def test_get_returns_what_was_put_last(self, storage: Storage) -> None:
        """A renewed lease must not read as the old one."""
        storage.put("key", b"old and longer")
        storage.put("key", b"new")

        assert storage.get("key") == b"new"

    @pytest.mark.parametrize("data", [b"", b"\0", bytes(range(256)) * 400], ids=["0", "1", "100k"])
    def test_any_bytes_come_back_as_they_were(self, storage: Storage, data: bytes) -> None:
        """Nothing is trimmed, encoded or guessed at."""
        storage.put("key", data)

        assert storage.get("key") == data
        assert entry_of(storage, "key").size == len(data)

    def test_get_of_nothing_says_what_was_not_found(self, storage: Storage) -> None:
        """The user needs the name of the missing object."""
        with pytest.raises(ObjectNotFoundError, match=r"a/missing\.json"):
            storage.get("a/missing.json")

    def test_a_record_too_large_is_refused_not_read(self, storage: Storage) -> None:
        """A foreign file of 100 GB under a sentinel's name must not fill the driver's memory.

        Only memory that Python allocates is counted: a buffer of a C library is not seen.
        """
        publish(storage, {"huge": bytes(MAX_DOCUMENT_BYTES + 1)})

        tracemalloc.start()
        try:
            with pytest.raises(StorageError, match=str(MAX_DOCUMENT_BYTES)):
                storage.get("huge")
            taken = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        if not self.has_server_in_process:
            assert taken < MAX_DOCUMENT_BYTES // 2, "get() read the object before it refused it"

    def test_head_shows_what_the_listing_shows(self, storage: Storage) -> None:
        """Plans compare the two."""
        storage.put("a/b", b"123")

        assert [storage.head("a/b")] == list(storage.list("a"))

    def test_head_of_nothing_or_of_a_folder_is_none(self, storage: Storage) -> None:
        """Neither a folder nor a key below an object's key is an object."""
        storage.put("a/b", b"1")

        assert [storage.head(key) for key in ("a", "b", "a/c", "a/b/c")] == [None] * 4

    def test_the_identity_changes_with_the_bytes(self, storage: Storage) -> None:
        """The driver detects a changed source file by its identity."""
        storage.put("key", b"one")
        first = entry_of(storage, "key")
        storage.put("key", b"two")

        assert entry_of(storage, "key").identity != first.identity

    def test_readers_never_see_half_an_object(self, storage: Storage, twin: Storage) -> None:
        """A sentinel index read while it is replaced is still a whole sentinel index."""
        whole = [bytes([number]) * 1_000_000 for number in range(2)]
        storage.put("key", whole[0])
        done = threading.Event()
        versions: set[bytes] = set()

        def read() -> None:
            while not done.is_set():
                versions.add(twin.get("key"))

        reader = threading.Thread(target=read)
        reader.start()
        for _ in range(2 * self.rounds):
            for data in whole:
                storage.put("key", data)
        done.set()
        reader.join()

        assert versions
        assert versions <= set(whole)

    @pytest.mark.parametrize("key", ODD_KEYS)
    def test_an_odd_key_is_a_key_to_every_call(self, storage: Storage, key: str) -> None:
        """Users choose the names of source files."""
        storage.put(key, b"1")
        assert storage.get(key) == b"1"
        assert keys(storage, recursive=True) == [key]
        assert storage.move(entry_of(storage, key), f"moved/{key}")
        assert publish(storage, {key: b"22"}) == {key}
        assert INTENT in storage.intents(key)
        assert storage.put_if_absent({key: b"3"}) == frozenset()
        with storage.open(entry_of(storage, key)) as file:
            assert file.read() == b"22"
        storage.delete([key, f"moved/{key}"])
        assert keys(storage, recursive=True) == []

    @pytest.mark.parametrize("key", NOT_KEYS)
    def test_a_key_that_leads_elsewhere_is_refused(self, storage: Storage, key: str) -> None:
        """No key may lead out of the root, whichever document it was read from."""
        with pytest.raises(StorageError):
            storage.put(key, b"1")
        with pytest.raises(StorageError):
            storage.put_if_absent({key: b"1"})
        with pytest.raises(StorageError):
            publish(storage, {key: b"1"})

        assert keys(storage, recursive=True) == []

    def test_a_folder_lists_its_own_objects_only(self, storage: Storage) -> None:
        """`part-0` must not list the objects under `part-00000`."""
        for key in ("top", "a/1", "a/2", "a/b/3", "ab/4", "a-b"):
            storage.put(key, b"1")

        assert keys(storage) == ["a-b", "top"]
        assert keys(storage, "a") == keys(storage, "a/") == ["a/1", "a/2"]
        assert keys(storage, "a/b") == ["a/b/3"]

    def test_a_recursive_listing_shows_everything_below_sorted_by_key(
        self, storage: Storage
    ) -> None:
        """Parts follow the order of their source files, on a disk as in a bucket."""
        unsorted = ["b", "a/c/d", "a0", "a/b", "a-b", "a b/x", "ab"]
        for key in unsorted:
            storage.put(key, b"1")

        assert keys(storage, recursive=True) == sorted(unsorted)
        assert keys(storage, "a", recursive=True) == ["a/b", "a/c/d"]

    def test_a_folder_that_is_not_there_is_empty(self, storage: Storage) -> None:
        """The first run of a sink lists it before it exists."""
        storage.put("object", b"1")

        assert keys(storage, "nowhere") == keys(storage, "object", recursive=True) == []

    def test_every_page_of_a_long_listing_is_read(self, storage: Storage) -> None:
        """S3 shows 1,000 keys at a time; shard 1,001 must not run twice."""
        names = [f"many/{number:05d}" for number in range(1_234)]
        storage.put_if_absent(dict.fromkeys(names, b"1"))

        assert keys(storage, "many") == names
        assert keys(storage, recursive=True) == names

    def test_free_keys_are_written_and_taken_ones_are_left_alone(self, storage: Storage) -> None:
        """The second sentinel of a shard must not replace the first."""
        storage.put("taken", b"first")

        won = storage.put_if_absent({"taken": b"second", "a/free": b"1", "free": b""})

        assert won == {"a/free", "free"}
        assert [storage.get(key) for key in ("taken", "a/free", "free")] == [b"first", b"1", b""]

    def test_nothing_to_write_is_nothing_won(self, storage: Storage) -> None:
        """A batch may be empty."""
        assert storage.put_if_absent({}) == storage.publish({}) == frozenset()

    def test_the_same_bytes_again_are_ours_again(self, storage: Storage, twin: Storage) -> None:
        """A call that is repeated because its answer was lost must not count as a lost race."""
        storage.put_if_absent({"key": b"same"})

        assert twin.put_if_absent({"key": b"same"}) == {"key"}

    def test_of_many_writers_one_gets_the_key(self, storage: Storage, twin: Storage) -> None:
        """Two zombies and a live worker leave one sentinel."""
        for number in range(self.rounds):
            key = f"race/{number}"
            offers = [b"writer %d" % writer for writer in range(self.contenders)]
            won = at_once(self._put_if_absent(storage, twin, {key: offer}) for offer in offers)

            winners = [offer for offer, keys_won in zip(offers, won, strict=True) if keys_won]
            assert winners == [storage.get(key)]

    def test_of_many_batches_each_key_goes_to_one(self, storage: Storage, twin: Storage) -> None:
        """Each key is atomic: a call may win some keys and lose others, but never shares one."""
        names = [f"batch/{number}" for number in range(10)]
        offers = [b"writer %d" % writer for writer in range(self.contenders)]

        won = at_once(
            self._put_if_absent(storage, twin, dict.fromkeys(names, offer)) for offer in offers
        )

        for name in names:
            winners = [o for o, keys_won in zip(offers, won, strict=True) if name in keys_won]
            assert winners == [storage.get(name)]

    def _put_if_absent(
        self, storage: Storage, twin: Storage, objects: dict[str, bytes]
    ) -> Callable[[], frozenset[str]]:
        one = twin if sum(next(iter(objects.values()))) % 2 else storage
        return lambda: one.put_if_absent(objects)

    def test_the_store_is_proven_and_left_as_it_was(self, storage: Storage) -> None:
        """The probe runs before each session, in a sink that may hold finished parts."""
        storage.put("a", b"1")

        storage.check_conditional_writes()

        assert keys(storage, recursive=True) == ["a"]
