"""Promises of staging and publishing: of many attempts to publish a key exactly one wins."""

# A test suite, although it is shipped.
# ruff: noqa: S101

from __future__ import annotations

import os
from collections.abc import Callable

import pytest

from batchrunner.errors import StorageError
from batchrunner.storage.contract import MAX_INTENT_BYTES, Storage
from batchrunner.testing.storage_contract.acts import (
    INTENT,
    Races,
    at_once,
    entry_of,
    keys,
    publish,
    staged,
)


class PublishPromises(Races):
    """Staged bytes are invisible until they are published, once and with their intent."""

    def test_a_published_object_has_its_bytes_and_its_intent(self, storage: Storage) -> None:
        """Data first, sentinel last: the intent makes the sentinel possible after a crash."""
        assert publish(storage, {"a/part": b"12", "b/part": b""}) == {"a/part", "b/part"}

        assert [storage.get("a/part"), storage.get("b/part")] == [b"12", b""]
        assert [storage.intents("a/part"), storage.intents("b/part")] == [(INTENT,), (INTENT,)]

    def test_the_longest_intent_comes_back_whole(self, storage: Storage) -> None:
        """S3's limit for metadata includes the intent's name."""
        intent = b'{"k": "' + bytes(range(35, 92)) * 30 + b"," * (MAX_INTENT_BYTES - 1719) + b'"}'
        assert len(intent) == MAX_INTENT_BYTES
        publish(storage, {"key": b"1"}, intent=intent)

        assert storage.intents("key") == (intent,)

    @pytest.mark.parametrize(
        "intent",
        [b"", b"x" * (MAX_INTENT_BYTES + 1), "é".encode(), b"two\nlines", b" blank", b"\0"],
    )
    def test_an_intent_that_no_header_can_carry_is_refused(
        self, storage: Storage, intent: bytes
    ) -> None:
        """Every storage refuses it, so that a run that works on a disk works in a bucket."""
        with pytest.raises(StorageError, match="intent"):
            publish(storage, {"key": b"1"}, intent=intent)

        assert keys(storage) == []

    def test_what_is_staged_is_not_seen(self, storage: Storage, twin: Storage) -> None:
        """A part that is still being written must not look complete."""
        one = storage.stage()
        one.file.write(b"half")
        other = staged(storage, b"whole")

        assert keys(twin, recursive=True) == []
        one.discard()
        other.discard()

    def test_an_exception_in_the_writer_publishes_nothing(self, storage: Storage) -> None:
        """The usual S3 writers publish a half-written object at the end of their `with` block."""

        def write() -> None:
            one = storage.stage()
            try:
                one.file.write(b"half")
                raise ZeroDivisionError
            finally:
                one.discard()

        with pytest.raises(ZeroDivisionError):
            write()

        assert keys(storage, recursive=True) == []

    def test_a_staged_file_takes_everything_it_is_given(self, storage: Storage) -> None:
        """It is unbuffered, yet writes all bytes of each call; the writer can read them back."""
        one = storage.stage()
        assert one.file.write(b"12345") == 5
        assert one.file.write(memoryview(b"678")) == 3
        one.file.seek(2)
        assert one.file.read(3) == b"345"
        one.file.close()
        storage.publish({"key": (one, INTENT)})

        assert storage.get("key") == b"12345678"

    def test_discarding_twice_or_after_publishing_does_nothing(self, storage: Storage) -> None:
        """Cleaning up in `finally` must be safe."""
        one, lost = staged(storage, b"1"), staged(storage, b"2")
        lost.discard()
        lost.discard()
        storage.publish({"key": (one, INTENT)})
        one.discard()

        assert storage.get("key") == b"1"

    def test_an_open_file_is_not_published(self, storage: Storage) -> None:
        """Its buffer may still hold the last bytes."""
        one = storage.stage()
        with pytest.raises(ValueError, match="close"):
            storage.publish({"key": (one, INTENT)})

        assert keys(storage) == []

    def test_the_second_publisher_loses_and_changes_nothing(
        self, storage: Storage, twin: Storage
    ) -> None:
        """The zombie's part is dropped; the published part keeps its bytes and its intent."""
        publish(storage, {"key": b"first"})
        before = storage.head("key")

        won = publish(twin, {"key": b"second", "free": b"2"}, intent=b"other")

        assert won == {"free"}
        assert (storage.get("key"), storage.head("key")) == (b"first", before)
        assert INTENT in storage.intents("key")

    def test_the_same_bytes_published_again_are_not_ours(
        self, storage: Storage, twin: Storage
    ) -> None:
        """Of two attempts one wins, even if both made the same bytes."""
        publish(storage, {"key": b"same"})

        assert publish(twin, {"key": b"same"}) == frozenset()

    def test_of_many_publishers_one_wins_and_its_intent_is_found(
        self, storage: Storage, twin: Storage
    ) -> None:
        """Adoption needs the intent that belongs to the bytes."""
        for number in range(self.rounds):
            key = f"race/part-{number}"
            offers = [b"attempt-%d" % writer for writer in range(self.contenders)]
            won = at_once(self._publish(storage, twin, key, offer) for offer in offers)

            winners = [offer for offer, keys_won in zip(offers, won, strict=True) if keys_won]
            assert winners == [storage.get(key)]
            assert winners[0] in storage.intents(key)

    def _publish(
        self, storage: Storage, twin: Storage, key: str, offer: bytes
    ) -> Callable[[], frozenset[str]]:
        one = twin if offer[-1] % 2 else storage
        return lambda: publish(one, {key: offer}, intent=offer)

    def test_an_object_of_any_size_is_published_whole(self, storage: Storage) -> None:
        """Large objects are uploaded to a bucket in parts."""
        block = os.urandom(1 << 20)
        one = storage.stage()
        for _ in range(40):
            one.file.write(block)
        one.file.write(b"end")
        one.file.close()

        assert storage.publish({"large": (one, INTENT)}) == {"large"}

        entry = entry_of(storage, "large")
        assert entry.size == (40 << 20) + 3
        with storage.open(entry) as file:
            assert all(file.read(1 << 20) == block for _ in range(40))
            assert file.read() == b"end"
        assert storage.intents("large") == (INTENT,)

    def test_of_two_large_publishers_one_wins(self, storage: Storage, twin: Storage) -> None:
        """Both writers upload their bytes; only one upload is completed, so no reader sees a mix."""
        offers = [bytes([number]) * (33 << 20) for number in range(2)]

        won = at_once(
            [
                lambda: publish(storage, {"large": offers[0]}),
                lambda: publish(twin, {"large": offers[1]}),
            ]
        )

        assert sorted(map(len, won)) == [0, 1]
        assert storage.get("large") == offers[won.index(frozenset({"large"}))]

    def test_there_are_no_intents_on_what_was_not_published(self, storage: Storage) -> None:
        """The driver does not adopt a part without an intent."""
        storage.put("plain", b"1")

        assert storage.intents("plain") == storage.intents("nothing") == ()

    def test_removing_intents_can_be_repeated_and_keeps_the_others(self, storage: Storage) -> None:
        """An intent is removed after its sentinel is written; other shards still need theirs."""
        publish(storage, {"done": b"1"})
        publish(storage, {"pending": b"2"})
        for _ in range(2):
            storage.remove_intents(["done", "never there"])

        assert storage.intents("pending") == (INTENT,)
        assert storage.get("done") == b"1"
