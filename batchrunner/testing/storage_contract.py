"""What every `Storage` must do, as tests: subclass `StorageContract` and give it a storage.

    class TestMyStorage(StorageContract):
        @pytest.fixture
        def storage(self): return MyStorage(...)          # an empty one for each test

Override `twin` to give the races a second storage on the same root.
"""
# A test suite, although it is shipped.
# ruff: noqa: S101

from __future__ import annotations

import contextlib
import io
import os
import threading
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import ClassVar, TypeVar, cast

import pytest

from batchrunner.errors import ObjectChangedError, ObjectNotFoundError, StorageError
from batchrunner.storage.contract import MAX_INTENT_BYTES, MAX_RECORD_BYTES, Entry, Staged, Storage

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
    """Stage *data*, closed and ready to publish."""
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
    """Return the entry of an object that is there."""
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


class StorageContract:
    """The promises of the seam, one test each."""

    contenders: ClassVar[int] = 8
    """Threads in a race."""
    rounds: ClassVar[int] = 5
    """Races in a test."""

    @pytest.fixture
    def twin(self, storage: Storage) -> Storage:
        """A second storage on the same root, as another process would have it."""
        return storage

    # The root

    def test_the_uri_is_absolute_and_has_no_slash_at_its_end(self, storage: Storage) -> None:
        """Reports and refs are made of it."""
        assert storage.uri.startswith("/") or "://" in storage.uri
        assert not storage.uri.endswith("/")

    def test_a_twin_sees_what_was_put(self, storage: Storage, twin: Storage) -> None:
        """Drivers and workers meet in storage, not in memory."""
        storage.put("a/b", b"1")

        assert twin.get("a/b") == b"1"
        assert keys(twin, "a") == ["a/b"]

    # put, get, head

    def test_get_returns_what_was_put_last(self, storage: Storage) -> None:
        """A lease that is renewed must not read as it was."""
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
        """The reader must know which object is missing."""
        with pytest.raises(ObjectNotFoundError, match=r"a/missing\.json"):
            storage.get("a/missing.json")

    def test_a_record_too_large_is_refused_not_read(self, storage: Storage) -> None:
        """A foreign file of 100 GB under a sentinel's name must not fill the driver's memory."""
        publish(storage, {"huge": bytes(MAX_RECORD_BYTES + 1)})

        with pytest.raises(StorageError, match=str(MAX_RECORD_BYTES)):
            storage.get("huge")

    def test_head_shows_what_the_listing_shows(self, storage: Storage) -> None:
        """Plans compare the two."""
        storage.put("a/b", b"123")

        assert [storage.head("a/b")] == list(storage.list("a"))

    def test_head_of_nothing_or_of_a_folder_is_none(self, storage: Storage) -> None:
        """A folder is not an object, and neither is what lies under an object's name."""
        storage.put("a/b", b"1")

        assert [storage.head(key) for key in ("a", "b", "a/c", "a/b/c")] == [None] * 4

    def test_the_identity_changes_with_the_bytes(self, storage: Storage) -> None:
        """A source file that changed is noticed by its identity."""
        storage.put("key", b"one")
        first = entry_of(storage, "key")
        storage.put("key", b"two")

        assert entry_of(storage, "key").identity != first.identity

    def test_readers_never_see_half_an_object(self, storage: Storage, twin: Storage) -> None:
        """A sentinel index read while it is replaced is still a whole sentinel index."""
        whole = [bytes([number]) * 1_000_000 for number in range(2)]
        storage.put("key", whole[0])
        done = threading.Event()
        seen: set[bytes] = set()

        def read() -> None:
            while not done.is_set():
                seen.add(twin.get("key"))

        reader = threading.Thread(target=read)
        reader.start()
        for _ in range(2 * self.rounds):
            for data in whole:
                storage.put("key", data)
        done.set()
        reader.join()

        assert seen
        assert seen <= set(whole)

    # Keys

    @pytest.mark.parametrize("key", ODD_KEYS)
    def test_an_odd_key_is_a_key_to_every_call(self, storage: Storage, key: str) -> None:
        """Source files are named by other people."""
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
        """No name that was read from anywhere may lead out of the root."""
        with pytest.raises(StorageError):
            storage.put(key, b"1")
        with pytest.raises(StorageError):
            storage.put_if_absent({key: b"1"})
        with pytest.raises(StorageError):
            publish(storage, {key: b"1"})

        assert keys(storage, recursive=True) == []

    # list

    def test_a_folder_lists_its_own_objects_only(self, storage: Storage) -> None:
        """`part-0` must not list what stands under `part-00000`."""
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

    # put_if_absent

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
        """A call that is repeated because its answer got lost must not look like a loss."""
        storage.put_if_absent({"key": b"same"})

        assert twin.put_if_absent({"key": b"same"}) == {"key"}

    def test_of_many_writers_one_gets_the_key(self, storage: Storage, twin: Storage) -> None:
        """Two zombies and a live worker: one sentinel."""
        for number in range(self.rounds):
            key = f"race/{number}"
            offers = [b"writer %d" % writer for writer in range(self.contenders)]
            won = at_once(self._put_if_absent(storage, twin, {key: offer}) for offer in offers)

            winners = [offer for offer, keys_won in zip(offers, won, strict=True) if keys_won]
            assert winners == [storage.get(key)]

    def test_of_many_batches_each_key_goes_to_one(self, storage: Storage, twin: Storage) -> None:
        """Atomic one by one: a batch may win some and lose some, but never share."""
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

    # stage, publish, intents

    def test_a_published_object_has_its_bytes_and_its_note(self, storage: Storage) -> None:
        """Data first, record last: the intent makes the record possible after a crash."""
        assert publish(storage, {"a/part": b"12", "b/part": b""}) == {"a/part", "b/part"}

        assert [storage.get("a/part"), storage.get("b/part")] == [b"12", b""]
        assert [storage.intents("a/part"), storage.intents("b/part")] == [(INTENT,), (INTENT,)]

    def test_the_longest_note_comes_back_whole(self, storage: Storage) -> None:
        """S3 counts the intent's name too."""
        intent = b'{"k": "' + bytes(range(35, 92)) * 30 + b"," * (MAX_INTENT_BYTES - 1719) + b'"}'
        assert len(intent) == MAX_INTENT_BYTES
        publish(storage, {"key": b"1"}, intent=intent)

        assert storage.intents("key") == (intent,)

    @pytest.mark.parametrize(
        "intent",
        [b"", b"x" * (MAX_INTENT_BYTES + 1), "é".encode(), b"two\nlines", b" blank", b"\0"],
    )
    def test_a_note_that_no_header_can_carry_is_refused(
        self, storage: Storage, intent: bytes
    ) -> None:
        """Refused everywhere, so that what works on a disk works in a bucket."""
        with pytest.raises(StorageError, match="intent"):
            publish(storage, {"key": b"1"}, intent=intent)

        assert keys(storage) == []

    def test_what_is_staged_is_seen_by_nobody(self, storage: Storage, twin: Storage) -> None:
        """A part that is still written must not look like a part."""
        one = storage.stage()
        one.file.write(b"half")
        other = staged(storage, b"whole")

        assert keys(twin, recursive=True) == []
        one.discard()
        other.discard()

    def test_an_exception_in_the_writer_publishes_nothing(self, storage: Storage) -> None:
        """Every S3 writer we know publishes the half-written object when its block is left."""

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
        """Unbuffered, yet no write is cut short; what was written can be read back."""
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
        """Its writer may hold back the last bytes."""
        one = storage.stage()
        with pytest.raises(ValueError, match="close"):
            storage.publish({"key": (one, INTENT)})

        assert keys(storage) == []

    def test_whoever_publishes_second_loses_and_changes_nothing(
        self, storage: Storage, twin: Storage
    ) -> None:
        """The zombie's part is dropped; the part that stands keeps its bytes and its intent."""
        publish(storage, {"key": b"first"})
        before = storage.head("key")

        won = publish(twin, {"key": b"second", "free": b"2"}, intent=b"other")

        assert won == {"free"}
        assert (storage.get("key"), storage.head("key")) == (b"first", before)
        assert INTENT in storage.intents("key")

    def test_the_same_bytes_published_again_are_not_ours(
        self, storage: Storage, twin: Storage
    ) -> None:
        """Of two attempts one is the winner, also when both made the same part."""
        publish(storage, {"key": b"same"})

        assert publish(twin, {"key": b"same"}) == frozenset()

    def test_of_many_publishers_one_wins_and_its_note_is_found(
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
        """Large ones go to a bucket in parts."""
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
        """Parts are uploaded twice, completed once."""
        offers = [bytes([number]) * (33 << 20) for number in range(2)]

        won = at_once(
            [
                lambda: publish(storage, {"large": offers[0]}),
                lambda: publish(twin, {"large": offers[1]}),
            ]
        )

        assert sorted(map(len, won)) == [0, 1]
        assert storage.get("large") == offers[won.index(frozenset({"large"}))]

    def test_there_are_no_notes_on_what_nobody_published(self, storage: Storage) -> None:
        """A part without an intent is not ours to adopt."""
        storage.put("plain", b"1")

        assert storage.intents("plain") == storage.intents("nothing") == ()

    def test_forgetting_notes_can_be_repeated_and_keeps_the_others(self, storage: Storage) -> None:
        """Notes go when the sentinel stands; those of other shards are still needed."""
        publish(storage, {"done": b"1"})
        publish(storage, {"pending": b"2"})
        for _ in range(2):
            storage.remove_intents(["done", "never there"])

        assert storage.intents("pending") == (INTENT,)
        assert storage.get("done") == b"1"

    # open

    def test_an_open_object_reads_like_a_file(self, storage: Storage) -> None:
        """Parquet jumps, JSONL goes on, and both stop at the end."""
        data = os.urandom(300_000)
        storage.put("key", data)

        with storage.open(entry_of(storage, "key")) as file:
            assert file.seekable()
            assert file.readable()
            assert file.read(10) == data[:10]
            assert file.tell() == 10
            assert file.seek(-5, io.SEEK_END) == 299_995
            assert file.read(100) == data[-5:]
            assert file.read(100) == b""
            assert file.seek(1_000) == 1_000
            assert file.seek(500, io.SEEK_CUR) == 1_500
            assert file.read(200_000) == data[1_500:201_500]
            file.seek(400_000)
            assert file.read() == b""
            file.seek(0)
            assert file.read() == data

    def test_an_open_object_can_be_buffered(self, storage: Storage) -> None:
        """Line readers wrap it."""
        lines = [b"line %d\n" % number for number in range(5_000)]
        storage.put("key", b"".join(lines))

        raw = cast(io.RawIOBase, storage.open(entry_of(storage, "key")))
        with io.BufferedReader(raw) as file:
            assert list(file) == lines

    def test_an_empty_object_reads_as_nothing(self, storage: Storage) -> None:
        """There is no first byte to ask for."""
        storage.put("key", b"")

        with storage.open(entry_of(storage, "key")) as file:
            assert file.read() == b""

    def test_several_readers_do_not_disturb_each_other(self, storage: Storage) -> None:
        """Shards of one file are read at the same time."""
        data = os.urandom(200_000)
        storage.put("key", data)
        entry = entry_of(storage, "key")

        def read(start: int) -> bytes:
            with storage.open(entry) as file:
                file.seek(start)
                return b"".join(file.read(1_000) for _ in range(50))

        starts = [0, 50_000, 100_000, 150_000]
        found = at_once(partial(read, start) for start in starts)

        assert found == [data[start : start + 50_000] for start in starts]

    def test_an_object_replaced_since_it_was_listed_is_not_read(self, storage: Storage) -> None:
        """Its bytes are not those that the plan was made of."""
        storage.put("key", b"old!")
        entry = entry_of(storage, "key")
        storage.put("key", b"new!")

        with pytest.raises(ObjectChangedError, match="key"):
            read_all(storage, entry)

    def test_an_object_that_is_gone_is_not_read(self, storage: Storage) -> None:
        """And says so in another way than one that changed."""
        storage.put("key", b"old!")
        entry = entry_of(storage, "key")
        storage.delete(["key"])

        with pytest.raises(ObjectNotFoundError, match="key"):
            read_all(storage, entry)

    def test_an_object_replaced_while_it_is_read_never_reads_as_a_mixture(
        self, storage: Storage
    ) -> None:
        """Half of each version would pass for rows."""
        old, new = b"o" * 30_000_000, b"n" * 30_000_000
        storage.put("key", old)
        entry = entry_of(storage, "key")

        def read() -> bytes:
            with storage.open(entry) as file:
                first = file.read(10)
                storage.put("key", new)
                return first + file.read()

        with contextlib.suppress(ObjectChangedError):
            assert read() == old

    # delete, move, sweep

    def test_deleted_objects_are_gone_and_their_keys_free(self, storage: Storage) -> None:
        """A released lease can be taken."""
        for key in ("a/1", "a/2", "b"):
            storage.put(key, b"1")

        storage.delete(["a/1", "b"])

        assert keys(storage, recursive=True) == ["a/2"]
        assert storage.put_if_absent({"b": b"2"}) == {"b"}

    def test_deleting_what_is_not_there_is_no_error(self, storage: Storage) -> None:
        """A second clean-up finds the first one's work."""
        storage.put("key", b"1")
        storage.delete([])
        storage.delete(iter(["key", "never/there", "key"]))
        storage.delete(["key"])

        assert storage.head("key") is None

    def test_a_moved_object_is_under_its_new_key_only(self, storage: Storage) -> None:
        """What is damaged is set aside, intent and all, not copied."""
        publish(storage, {"a/part": b"1"})

        assert storage.move(entry_of(storage, "a/part"), "aside/b/part")

        assert keys(storage, recursive=True) == ["aside/b/part"]
        assert storage.get("aside/b/part") == b"1"

    def test_moving_again_is_no_error(self, storage: Storage) -> None:
        """A crash after the move repeats it."""
        storage.put("a", b"1")
        seen = entry_of(storage, "a")

        assert [storage.move(seen, "b"), storage.move(seen, "b")] == [True, False]
        assert (storage.head("a"), storage.get("b")) == (None, b"1")

    def test_what_came_after_the_look_is_not_moved(self, storage: Storage, twin: Storage) -> None:
        """A driver that was displaced may come late with a move."""
        storage.put("a", b"mine")
        storage.put("b", b"older")
        seen = entry_of(storage, "a")
        twin.put("a", b"another driver's")

        assert not storage.move(seen, "b")
        assert (storage.get("a"), storage.get("b")) == (b"another driver's", b"older")

    def test_exactly_what_was_seen_is_deleted(self, storage: Storage, twin: Storage) -> None:
        """A driver that was displaced may come late with a deletion; gone already is fine."""
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
        """Whoever publishes under the name that becomes free keeps it."""
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

    def test_a_sweep_keeps_objects_and_notes(self, storage: Storage) -> None:
        """Only what nobody will ever ask for again goes."""
        publish(storage, {"a/part": b"1"})
        storage.put("record", b"2")

        storage.clean()

        assert keys(storage, recursive=True) == ["a/part", "record"]
        assert storage.intents("a/part") == (INTENT,)

    def test_what_is_left_over_can_be_listed_before_it_is_swept(
        self, storage: Storage, twin: Storage
    ) -> None:
        """Nobody removes what they have not seen."""
        publish(storage, {"a/part": b"1"})
        storage.put("record", b"2")
        staged(storage, b"given up").discard()
        assert list(twin.garbage()) == []
        one = staged(storage, b"1234")

        left = twin.garbage()

        # Where staged bytes are nobody's but their process's, there is nothing to see.
        assert {entry.key.partition("/")[0] for entry in left} <= {".staging"}
        twin.clean()
        assert list(storage.garbage()) == []
        one.discard()

    def test_notes_that_nobody_needs_are_swept_if_that_is_asked_for(self, storage: Storage) -> None:
        """Where nothing is adopted they would stay for ever; the object that had them stays."""
        publish(storage, {"a/part": b"1"})

        storage.clean(intents=True)

        assert keys(storage, recursive=True) == ["a/part"]
        assert storage.get("a/part") == b"1"
        assert list(storage.garbage(intents=True)) == []

    def test_a_sweep_of_nothing_is_no_error(self, storage: Storage) -> None:
        """The first driver of a run sweeps too."""
        storage.clean()

    def test_what_was_swept_is_published_whole_or_not_at_all(
        self, storage: Storage, twin: Storage
    ) -> None:
        """A zombie that was taken for dead must not publish a torn part."""
        one = staged(storage, b"whole")
        twin.clean()

        try:
            assert storage.publish({"key": (one, INTENT)}) == {"key"}
        except ObjectNotFoundError:
            assert storage.head("key") is None
        else:
            assert storage.get("key") == b"whole"

    def test_records_are_written_however_much_is_swept(
        self, storage: Storage, twin: Storage
    ) -> None:
        """A record can be written again, so a sweep at the wrong moment costs nothing."""

        def put(number: int) -> None:
            storage.put(f"put/{number}", b"1")

        def put_new(number: int) -> None:
            storage.put_if_absent({f"new/{number}": b"2"})

        for number in range(5 * self.rounds):
            racers: list[Callable[[], None]]
            racers = [partial(put, number), partial(put_new, number), twin.clean]
            at_once(racers)

        assert len(keys(storage, "put")) == len(keys(storage, "new")) == 5 * self.rounds

    # Conditional writes

    def test_the_store_is_proven_and_left_as_it_was(self, storage: Storage) -> None:
        """The probe runs before each session, in a sink that may hold finished parts."""
        storage.put("a", b"1")

        storage.check_conditional_writes()

        assert keys(storage, recursive=True) == ["a"]


def read_all(storage: Storage, entry: Entry) -> bytes:
    """Read the object of *entry* from end to end."""
    with storage.open(entry) as file:
        return file.read()
