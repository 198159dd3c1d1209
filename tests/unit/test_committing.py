"""Exactly once: of any attempts, in any order, dead or alive, one part and one sentinel of it."""

from __future__ import annotations

import hashlib
import threading
import uuid
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from orjson import dumps

from batchrunner.checkpoint import Checkpoint, Sentinel
from batchrunner.checkpoint.commit import Finished, adopt, commit
from batchrunner.errors import ForeignOutputError, ObjectNotFoundError
from batchrunner.storage.contract import MAX_INTENT_BYTES
from batchrunner.storage.disk.storage import LocalStorage
from batchrunner.testing.memory import MemoryStorage

STEM, PART = "part-00000", "part-00000.jsonl"


def a_sentinel(data, *, by="me", run="run", shard=0):
    return Sentinel(
        run_uid=run,
        shard=shard,
        part=f"part-{shard:05d}.jsonl",
        rows_in=1,
        rows_out=1,
        rows_failed=0,
        bytes=len(data),
        sha256=hashlib.sha256(data).hexdigest(),
        write_id=by,
        session=by,
        seconds=0.5,
    )


def staged(sink, data):
    one = sink.stage()
    one.file.write(data)
    one.file.close()
    return one


def an_attempt(sink, data, **kwargs):
    """Stage a part that says *data*, ready to be committed."""
    sentinel = a_sentinel(data, **kwargs)
    return Finished(sentinel.part.removesuffix(".jsonl"), staged(sink, data), sentinel)


def publish_alone(sink, data, **kwargs):
    """Do what an attempt does that dies before its sentinel."""
    one = an_attempt(sink, data, **kwargs)
    assert sink.publish({one.sentinel.part: (one.staged, one.sentinel.to_bytes())})
    return one.sentinel


def content(sink, key=PART):
    entry = sink.head(key)
    if entry is None:
        return None
    with sink.open(entry) as file:
        return file.read()


@pytest.fixture(params=["memory", "disk"])
def place(request, tmp_path):
    """Sink and checkpoint."""
    if request.param == "memory":
        name = uuid.uuid4().hex
        return MemoryStorage(f"{name}/out"), Checkpoint(MemoryStorage(f"{name}/checkpoint"))
    return LocalStorage(str(tmp_path / "out")), Checkpoint(LocalStorage(str(tmp_path / "check")))


def adopted(place, run="run"):
    sink, checkpoint = place
    return adopt(STEM, PART, run_uid=run, sink=sink, checkpoint=checkpoint)


def committed(place, *attempts):
    sink, checkpoint = place
    return commit(attempts, sink=sink, checkpoint=checkpoint)


def test_a_commit_leaves_a_part_and_a_sentinel_that_describes_it(place):
    """And nothing else."""
    sink, checkpoint = place
    attempt = an_attempt(sink, b"mine")

    assert committed(place, attempt) == {STEM: attempt.sentinel}

    assert content(sink) == b"mine"
    assert checkpoint.sentinel(STEM, run_uid="run") == attempt.sentinel
    assert [entry.key for entry in sink.list(recursive=True)] == [PART]


def test_many_parts_are_committed_together(place):
    """They share the cost of becoming durable; each is still committed by itself."""
    sink, checkpoint = place
    attempts = [an_attempt(sink, b"%d" % n, shard=n) for n in range(40)]

    found = committed(place, *attempts)

    assert found == {attempt.stem: attempt.sentinel for attempt in attempts}
    assert set(checkpoint.sentinels().good) == set(range(40))
    assert [content(sink, attempt.sentinel.part) for attempt in attempts] == [
        b"%d" % n for n in range(40)
    ]


def test_the_next_attempt_after_a_whole_commit_gets_its_sentinel(place):
    """And drops its own part."""
    sink, checkpoint = place
    first = an_attempt(sink, b"first", by="a")
    committed(place, first)

    assert committed(place, an_attempt(sink, b"second", by="b")) == {STEM: first.sentinel}

    assert content(sink) == b"first"
    assert checkpoint.sentinel(STEM, run_uid="run") == first.sentinel


@pytest.mark.parametrize("data", [b"second", b"first"])
def test_the_next_attempt_after_half_a_commit_finishes_it(place, data):
    """The one that died had published its part: that part counts, also if ours is the same."""
    sink, checkpoint = place
    first = publish_alone(sink, b"first", by="a")

    found = committed(place, an_attempt(sink, data, by="b"))

    assert content(sink) == b"first"
    assert checkpoint.sentinel(STEM, run_uid="run") == found[STEM]
    assert (found[STEM].sha256, found[STEM].bytes) == (first.sha256, first.bytes)


def test_a_part_without_a_sentinel_is_adopted_by_its_note(place):
    """No row of it is computed again."""
    first = publish_alone(place[0], b"first")

    assert adopted(place) == first


def test_of_a_committed_part_the_sentinel_is_returned(place):
    """Whatever the intents say: it was there first."""
    sink, checkpoint = place
    publish_alone(sink, b"first", by="a")
    stored = a_sentinel(b"first", by="b")
    checkpoint.publish({STEM: stored})

    assert adopted(place) == stored


def test_a_part_without_any_record_is_foreign_and_not_touched(place):
    """It may be the user's only copy."""
    sink, _ = place
    sink.put(PART, b"foreign")

    with pytest.raises(ForeignOutputError, match=rf"{PART} was not written by this run"):
        adopted(place)
    attempts = [an_attempt(sink, b"%d" % n, shard=n) for n in range(3)]
    found = committed(place, *attempts)

    assert set(found) == {"part-00001", "part-00002"}
    assert content(sink) == b"foreign"
    assert place[1].sentinel(STEM, run_uid="run") is None


def test_a_part_of_another_run_is_foreign(place):
    """Its rows are of another spec."""
    publish_alone(place[0], b"first", run="another")

    with pytest.raises(ForeignOutputError):
        adopted(place)


def test_a_part_that_was_replaced_after_its_note_is_foreign(place):
    """The intent describes other bytes, even if there are as many."""
    sink, _ = place
    publish_alone(sink, b"first")
    sink.put(PART, b"tsrif")

    with pytest.raises(ForeignOutputError):
        adopted(place)


def test_a_part_that_is_gone_is_said_to_be(place):
    """The next session makes it anew."""
    with pytest.raises(ObjectNotFoundError, match=rf"{PART} was there and is gone; run again"):
        adopted(place)


@pytest.fixture
def disk(tmp_path):
    """A disk keeps intents beside the parts, also those of attempts that lost or died."""
    return LocalStorage(str(tmp_path / "out")), Checkpoint(LocalStorage(str(tmp_path / "check")))


def leave_note(disk, data):
    staging = Path(disk[0].uri) / ".staging"
    (staging / f"{uuid.uuid4().hex}.intents").write_bytes(data)


def test_of_several_notes_the_one_that_fits_the_bytes_counts(disk):
    """The others are of attempts that died before they could publish."""
    sentinel = publish_alone(disk[0], b"first", by="a")
    for data in (b"other", b"tsrif", b"first, and more"):
        intent = a_sentinel(data, by="b").to_bytes().decode()
        leave_note(disk, dumps({PART: intent}))
        leave_note(disk, dumps({"part-00001.jsonl": intent}))

    assert adopted(disk) == sentinel


def test_torn_and_foreign_notes_do_no_harm(disk):
    """A disk that lost power keeps what it likes."""
    whole = a_sentinel(b"first", by="b").to_bytes()
    other = a_sentinel(b"first", by="b", shard=1).to_bytes()
    sentinel = publish_alone(disk[0], b"first", by="a")
    for data in (b"", b"{", b"\xff", dumps({PART: ""}), dumps({PART: "{}"})):
        leave_note(disk, data)
    for intent in (whole[:-1], whole[:40], other, whole.replace(b'"run"', b'"nur"')):
        leave_note(disk, dumps({PART: intent.decode()}))

    assert adopted(disk) == sentinel


@pytest.mark.parametrize("whose", [{"shard": 1}, {"run": "another"}])
def test_a_note_of_something_else_is_no_proof_even_if_the_bytes_agree(disk, whose):
    """Empty parts all have the same bytes."""
    publish_alone(disk[0], b"", shard=2)
    disk[0].put(PART, b"")
    leave_note(disk, dumps({PART: a_sentinel(b"", **whose).to_bytes().decode()}))

    with pytest.raises(ForeignOutputError):
        adopted(disk)


def test_a_sentinel_fits_into_a_note():
    """On S3 it travels as metadata of the part, of which there may be little."""
    most, long = 2**63 - 1, "f" * 64
    sentinel = Sentinel(long, most, f"part-{most}.jsonl.zst", most, most, most, most, long, long,
                        long, 123456789.123, worker=long + "-4194304", began=1e10 + 0.123,
                        reading=123456789.123, calling=123456789.123, writing=123456789.123)  # fmt: skip

    assert len(sentinel.to_bytes()) < MAX_INTENT_BYTES / 2
    assert sentinel.to_bytes().isascii()


class Killed(BaseException):
    """An attempt dies: nothing of it is done any more, not even cleaning up."""


class Attempt(threading.Thread):
    """A commit that stands still before each of its calls to storage until it may go on."""

    def __init__(self, place, data, by):
        super().__init__(daemon=True)
        self.found, self.over, self._dead = None, False, False
        self._go, self._paused = threading.Semaphore(0), threading.Semaphore(0)
        self._place, self._finished = place, an_attempt(place[0], data, by=by)
        self.start()
        self._paused.acquire()

    def run(self):
        try:
            self.pause()
            self.found = committed(self._place, self._finished)[STEM]
        except Killed:
            pass
        finally:
            self.over = True
            self._paused.release()

    def pause(self):
        self._paused.release()
        self._go.acquire()
        if self._dead:
            raise Killed

    def advance(self):
        """Let it do one thing."""
        self._go.release()
        self._paused.acquire()

    def kill(self):
        self._dead = True
        if not self.over:
            self.advance()


def pause():
    thread = threading.current_thread()
    if isinstance(thread, Attempt):
        thread.pause()


class Stepped(MemoryStorage):
    """As a bucket: an intent is part of its object."""

    def publish(self, objects):
        pause()
        return super().publish(objects)

    def put_if_absent(self, objects):
        pause()
        return super().put_if_absent(objects)

    def head(self, key):
        pause()
        return super().head(key)

    def get(self, key):
        pause()
        return super().get(key)

    def open(self, entry):
        pause()
        return super().open(entry)

    def intents(self, key):
        pause()
        return super().intents(key)

    def remove_intents(self, keys):
        pause()
        super().remove_intents(keys)


class SteppedDisk(Stepped):
    """As a disk: intents come before their objects, stay when those lost, and can be forgotten."""

    def __init__(self, root):
        super().__init__(root)
        self._loose = {}

    def publish(self, objects):
        pause()
        for key, (_, intent) in objects.items():
            self._loose.setdefault(key, []).append(intent)
        won = super().publish(objects)
        pause()
        for key in objects.keys() - won:
            intent = objects[key][1]
            self._loose[key] = [one for one in self._loose.get(key, []) if one != intent]
        return won

    def intents(self, key):
        pause()
        return tuple(self._loose.get(key, ()))

    def remove_intents(self, keys):
        pause()
        for key in keys:
            self._loose.pop(key, None)


def a_stepped_place(kind):
    name = uuid.uuid4().hex
    return kind(f"{name}/out"), Checkpoint(Stepped(f"{name}/checkpoint"))


def check_whole(place):
    """A sentinel never stands without its part, nor beside another one."""
    sentinel = place[1].sentinel(STEM, run_uid="run")
    if sentinel is not None:
        assert sentinel.sha256 == hashlib.sha256(content(place[0])).hexdigest()


def interleave(kind, texts, choices):
    """Run attempts step by step; *choices* says whose turn it is. Return how many had a turn."""
    place = a_stepped_place(kind)
    attempts = [Attempt(place, text, str(n)) for n, text in enumerate(texts)]
    options = []
    while running := [one for one in attempts if not one.over]:
        turn = choices[len(options)] if len(options) < len(choices) else 0
        options.append(len(running))
        running[turn].advance()
        check_whole(place)
    return place, attempts, options


def every_interleaving(kind, texts):
    """Yield the ends of all ways in which two attempts can take turns, the first one beginning."""
    choices = [0]
    while True:
        place, attempts, options = interleave(kind, texts, choices)
        yield place, attempts
        choices += [0] * (len(options) - len(choices))
        while choices[-1] + 1 == options[len(choices) - 1]:
            choices.pop()
        if len(choices) == 1:
            return
        choices[-1] += 1


@pytest.mark.parametrize(
    ("kind", "texts"),
    [
        (Stepped, (b"first", b"second")),
        (Stepped, (b"same", b"same")),
        pytest.param(SteppedDisk, (b"first", b"second"), marks=pytest.mark.soak),
    ],
)
def test_two_attempts_in_any_order_of_their_steps_commit_one_part(kind, texts):
    """Every way in which two workers can get into each other's way, one storage call at a time."""
    ends = 0
    for place, attempts in every_interleaving(kind, texts):
        ends += 1
        stored = place[1].sentinel(STEM, run_uid="run")
        assert [attempt.found for attempt in attempts] == [stored, stored]
        assert content(place[0]) == texts[int(stored.write_id)]
        check_whole(place)

    assert ends > 50


@pytest.mark.parametrize("kind", [Stepped, SteppedDisk])
@given(
    turns=st.lists(st.tuples(st.integers(0, 2), st.integers(0, 20)), max_size=40),
    texts=st.lists(st.sampled_from([b"one", b"other"]), min_size=3, max_size=3),
)
@settings(max_examples=150)
def test_attempts_that_die_at_any_step_leave_what_the_next_one_can_finish(kind, turns, texts):
    """Three workers, some of them killed in the middle: then one that lives completes the shard."""
    place = a_stepped_place(kind)
    attempts = [Attempt(place, text, str(n)) for n, text in enumerate(texts)]
    for who, what in turns:
        attempt = attempts[who]
        if not attempt.over:
            attempt.kill() if what == 0 else attempt.advance()
            check_whole(place)
    for attempt in attempts:
        attempt.kill()

    before = content(place[0])
    found = committed(place, an_attempt(place[0], b"last", by="3"))[STEM]

    assert found == place[1].sentinel(STEM, run_uid="run")
    assert content(place[0]) == (before or b"last") == [*texts, b"last"][int(found.write_id)]
    assert all(attempt.found in (None, found) for attempt in attempts)
