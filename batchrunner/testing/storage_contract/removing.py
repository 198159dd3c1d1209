"""Promises of delete, move and clean: an object that replaced a listed one stays."""

# A test suite, although it is shipped.
# ruff: noqa: S101

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from batchrunner.errors import ObjectNotFoundError
from batchrunner.storage.contract import Entry, Storage
from batchrunner.testing.storage_contract.acts import (
    INTENT,
    Races,
    at_once,
    entry_of,
    keys,
    publish,
    staged,
)


class RemovePromises(Races):
    """An object that is removed by its entry must be the one that was listed."""

    def test_deleted_objects_are_gone_and_their_keys_free(self, storage: Storage) -> None:
        """The next driver can take a released lease."""
        for key in ("a/1", "a/2", "b"):
            storage.put(key, b"1")

        storage.delete(["a/1", "b"])

        assert keys(storage, recursive=True) == ["a/2"]
        assert storage.put_if_absent({"b": b"2"}) == {"b"}

    def test_deleting_what_is_not_there_is_no_error(self, storage: Storage) -> None:
        """A second clean-up lists objects that the first one deletes."""
        storage.put("key", b"1")
        storage.delete([])
        storage.delete(iter(["key", "never/there", "key"]))
        storage.delete(["key"])

        assert storage.head("key") is None

    def test_a_moved_object_is_under_its_new_key_only(self, storage: Storage) -> None:
        """Damaged objects are moved away with their intents, not copied."""
        publish(storage, {"a/part": b"1"})

        assert storage.move(entry_of(storage, "a/part"), "aside/b/part")

        assert keys(storage, recursive=True) == ["aside/b/part"]
        assert storage.get("aside/b/part") == b"1"

    def test_moving_again_is_no_error(self, storage: Storage) -> None:
        """After a crash, the next driver repeats the move."""
        storage.put("a", b"1")
        seen = entry_of(storage, "a")

        assert [storage.move(seen, "b"), storage.move(seen, "b")] == [True, False]
        assert (storage.head("a"), storage.get("b")) == (None, b"1")

    def test_what_came_after_the_look_is_not_moved(self, storage: Storage, twin: Storage) -> None:
        """A driver that lost its lease may move the object late."""
        storage.put("a", b"mine")
        storage.put("b", b"older")
        seen = entry_of(storage, "a")
        twin.put("a", b"another driver's")

        assert not storage.move(seen, "b")
        assert (storage.get("a"), storage.get("b")) == (b"another driver's", b"older")

    def test_exactly_what_was_seen_is_deleted(self, storage: Storage, twin: Storage) -> None:
        """A driver that lost its lease may delete late; objects that are gone are no error."""
        for key in ("gone", "mine", "theirs"):
            storage.put(key, b"1")
        seen = list(storage.list())
        twin.delete(["gone"])
        twin.put("theirs", b"another driver's")

        assert storage.delete_exactly(seen) == {"theirs"}
        assert [(entry.key, storage.get(entry.key)) for entry in storage.list()] == [
            ("theirs", b"another driver's")
        ]
        assert storage.delete_exactly([]) == storage.delete_exactly(seen[:2]) == frozenset()

    def test_of_a_deletion_and_a_new_object_none_is_lost(
        self, storage: Storage, twin: Storage
    ) -> None:
        """The writer that publishes under the freed key keeps its object."""
        for number in range(self.rounds):
            key = f"key/{number}"
            storage.put(key, b"old")
            seen = entry_of(storage, key)

            def delete(seen: Entry = seen) -> None:
                storage.delete_exactly([seen])

            def publish_new(key: str = key) -> None:
                while not twin.put_if_absent({key: b"new"}):
                    pass

            racers: list[Callable[[], None]] = [delete, publish_new]
            at_once(racers)
            assert storage.get(key) == b"new"
            assert storage.delete_exactly([seen]) == {key}

    def test_cleaning_keeps_objects_and_intents(self, storage: Storage) -> None:
        """Only garbage is removed: drivers and workers still need the rest."""
        publish(storage, {"a/part": b"1"})
        storage.put("record", b"2")

        storage.clean()

        assert keys(storage, recursive=True) == ["a/part", "record"]
        assert storage.intents("a/part") == (INTENT,)

    def test_what_is_left_over_can_be_listed_before_it_is_removed(
        self, storage: Storage, twin: Storage
    ) -> None:
        """A user wants to see what `clean` would remove."""
        publish(storage, {"a/part": b"1"})
        storage.put("record", b"2")
        staged(storage, b"discarded").discard()
        assert list(twin.garbage()) == []
        one = staged(storage, b"1234")

        garbage = twin.garbage()

        # A storage that stages bytes inside its process has nothing to list.
        assert {entry.key.partition("/")[0] for entry in garbage} <= {".staging"}
        twin.clean()
        assert list(storage.garbage()) == []
        one.discard()

    def test_intents_are_removed_if_that_is_asked_for(self, storage: Storage) -> None:
        """If no part is to be adopted, intents would stay for ever; their objects stay."""
        publish(storage, {"a/part": b"1"})

        storage.clean(intents=True)

        assert keys(storage, recursive=True) == ["a/part"]
        assert storage.get("a/part") == b"1"
        assert list(storage.garbage(intents=True)) == []

    def test_cleaning_nothing_is_no_error(self, storage: Storage) -> None:
        """The first driver of a run cleans an empty sink."""
        storage.clean()

    def test_what_was_cleaned_away_is_published_whole_or_not_at_all(
        self, storage: Storage, twin: Storage
    ) -> None:
        """A zombie whose staged bytes were removed must not publish a torn part."""
        one = staged(storage, b"whole")
        twin.clean()

        try:
            assert storage.publish({"key": (one, INTENT)}) == {"key"}
        except ObjectNotFoundError:
            assert storage.head("key") is None
        else:
            assert storage.get("key") == b"whole"

    def test_records_are_written_however_often_it_is_cleaned(
        self, storage: Storage, twin: Storage
    ) -> None:
        """A document can be written again, so `clean` at the wrong moment costs nothing."""

        def put(number: int) -> None:
            storage.put(f"put/{number}", b"1")

        def put_new(number: int) -> None:
            storage.put_if_absent({f"new/{number}": b"2"})

        for number in range(5 * self.rounds):
            racers: list[Callable[[], None]]
            racers = [partial(put, number), partial(put_new, number), twin.clean]
            at_once(racers)

        assert len(keys(storage, "put")) == len(keys(storage, "new")) == 5 * self.rounds
