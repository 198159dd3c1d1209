"""Of any attempts, in any order, dead or alive: the files of the part that won, and a sentinel after them."""

from __future__ import annotations

import hashlib
import threading
import uuid

import pytest

from batchrunner.checkpoint import Checkpoint, Sentinel
from batchrunner.checkpoint import bundles as bundling
from batchrunner.checkpoint.bundles import Bundle, check_files, publish_files, reopened
from batchrunner.checkpoint.commit import Finished, adopt, claim, commit
from batchrunner.errors import DamagedOutputError, ObjectNotFoundError, TakenPathError
from batchrunner.formats.listing import Listing, frames
from batchrunner.storage.contract import MAX_INTENT_BYTES
from batchrunner.storage.disk.storage import LocalStorage
from batchrunner.testing.memory import MemoryStorage

STEM, PART = "part-00000", "part-00000.jsonl"


@pytest.fixture(params=["disk", "memory"])
def sink(request, tmp_path):
    """A disk, and a store that stages where no file can be opened again."""
    return (
        LocalStorage(str(tmp_path)) if request.param == "disk" else MemoryStorage(uuid.uuid4().hex)
    )


@pytest.fixture
def checkpoint(request, tmp_path):
    return Checkpoint(LocalStorage(str(tmp_path / "_checkpoint")))


def written(storage, data):
    staged = storage.stage()
    staged.file.write(data)
    again = reopened(staged.file)
    staged.file.close()
    return staged, again


def an_attempt(sink, checkpoint, files, *, by="me", number=0):
    """Stage the part of *files* and its bundle, ready to be committed."""
    encoded = list(frames(Listing().encode([{"path": p, "bytes": d} for p, d in files.items()])))
    lines, data = (b"".join(map(bytes, some)) for some in zip(*encoded, strict=True))
    stem = f"part-{number:05d}"
    part, again = written(sink, lines)
    staged, bundle = written(checkpoint.records, data)
    sentinel = Sentinel(
        run_uid="run",
        shard=number,
        part=f"{stem}.jsonl",
        rows_in=len(files),
        rows_out=len(files),
        rows_failed=0,
        bytes=len(lines),
        sha256=hashlib.sha256(lines).hexdigest(),
        write_id=by,
        session=by,
        seconds=0.5,
        files=f"{stem}.{by}",
    )
    return Finished(stem, part, sentinel, bundle=Bundle(staged, len(data), again, bundle))


def dies_after_its_part(sink, checkpoint, files, **kwargs):
    one = an_attempt(sink, checkpoint, files, **kwargs)
    checkpoint.publish_bundles({one.sentinel.files: one.bundle.staged}, paths={})
    assert sink.publish({one.sentinel.part: (one.staged, one.sentinel.to_intent())})
    one.bundle.close()
    return one.sentinel


def committed(sink, checkpoint, files, **kwargs):
    return commit([an_attempt(sink, checkpoint, files, **kwargs)], sink=sink, checkpoint=checkpoint)


def adopted(sink, checkpoint):
    return adopt(STEM, PART, run_uid="run", sink=sink, checkpoint=checkpoint)


def files_in(sink):
    entries = [
        e for e in sink.list(recursive=True) if e.key[0] not in "_." and "part-" not in e.key
    ]
    return {entry.key: sink.get(entry.key) for entry in entries}


def bundles_in(checkpoint):
    return [entry.key for entry in checkpoint.records.list("files")]


FILES = {"a/1": b"one", "a/2": b"", "b": bytes(1000)}


def test_files_are_published_and_the_bundle_goes(sink, checkpoint):
    """Nothing is stored twice for longer than the commit takes."""
    counting = committed(sink, checkpoint, FILES)

    assert files_in(sink) == FILES
    assert counting == checkpoint.find([STEM], run_uid="run")
    assert bundles_in(checkpoint) == []


def test_an_attempt_that_loses_publishes_the_files_of_the_winner(sink, checkpoint):
    """It made other bytes, and finishes what the dead one began."""
    winner = dies_after_its_part(sink, checkpoint, FILES, by="dead")
    mine = {path: data + b"!" for path, data in FILES.items()}

    assert committed(sink, checkpoint, mine) == {STEM: winner}
    assert files_in(sink) == FILES
    assert bundles_in(checkpoint) == []


@pytest.mark.parametrize("there", [{}, {"a/1": b"one"}, FILES])
def test_adoption_publishes_what_is_not_there_yet(sink, checkpoint, there):
    """Wherever the process died that published the part."""
    winner = dies_after_its_part(sink, checkpoint, FILES)
    sink.put_if_absent(there)

    assert adopted(sink, checkpoint) == winner
    assert files_in(sink) == FILES


def test_a_claim_writes_nothing(sink, checkpoint):
    """`verify` and `--fresh` ask whose a part is, and change nothing by that."""
    winner = dies_after_its_part(sink, checkpoint, FILES)

    assert claim(STEM, PART, run_uid="run", sink=sink, checkpoint=checkpoint) == winner
    check_files(winner, sink=sink, checkpoint=checkpoint)
    assert files_in(sink) == {}


@pytest.mark.parametrize("other", [b"two", b"longer", b""])
def test_a_path_of_other_bytes_keeps_the_shard_uncommitted(sink, checkpoint, other):
    """The bytes that were there stay, all other files are published, and the message names both."""
    sink.put("a/1", other)
    refused = {}
    attempt = an_attempt(sink, checkpoint, FILES)
    counting = commit([attempt], sink=sink, checkpoint=checkpoint, refused=refused)

    assert counting == checkpoint.find([STEM], run_uid="run") == {}
    assert isinstance(refused[STEM], TakenPathError)
    assert f"{PART} lists files whose paths have other bytes" in str(refused[STEM])
    assert "a/1; `batchrunner retry SPEC` makes its rows again" in str(refused[STEM])
    assert files_in(sink) == {**FILES, "a/1": other}
    assert bundles_in(checkpoint) != []


def test_a_path_that_becomes_free_is_published(sink, checkpoint):
    """By the next session, from the bundle: nothing is computed again."""
    sink.put("a/1", b"other")
    committed(sink, checkpoint, FILES)
    with pytest.raises(TakenPathError):
        adopted(sink, checkpoint)

    sink.delete(["a/1"])
    adopted(sink, checkpoint)
    assert files_in(sink) == FILES


def test_a_refused_attempt_leaves_the_winners_bundle_and_its_own(sink, checkpoint):
    """On a disk, two attempts with equal lines cannot be told apart by them: either bundle may be needed."""
    sink.put("b", b"other")
    dies_after_its_part(sink, checkpoint, FILES, by="dead")
    assert committed(sink, checkpoint, FILES) == {}
    sink.delete(["b"])

    adopted(sink, checkpoint)
    assert files_in(sink) == FILES


def test_two_shards_cannot_have_other_bytes_under_one_path(sink, checkpoint):
    """The one that came second is not committed; with the same bytes, both are."""
    both = [an_attempt(sink, checkpoint, {"x": b"%d" % n, "same": b""}, number=n) for n in range(2)]
    refused = {}

    counting = commit(both, sink=sink, checkpoint=checkpoint, refused=refused)

    assert (list(counting), list(refused)) == (["part-00000"], ["part-00001"])
    assert files_in(sink) == {"x": b"0", "same": b""}


@pytest.mark.parametrize("there", ["a", "b/inside"])
def test_a_folder_and_a_file_cannot_have_one_path(tmp_path, checkpoint, there):
    """On a disk. It is no failure of the disk, for which the shard would be tried again and again."""
    sink = LocalStorage(str(tmp_path))
    sink.put(there, b"")
    refused = {}
    commit([an_attempt(sink, checkpoint, FILES)], sink=sink, checkpoint=checkpoint, refused=refused)

    assert isinstance(refused[STEM], TakenPathError)
    assert {there: b""}.items() <= files_in(sink).items()


@pytest.mark.parametrize("damage", ["gone", "torn", "other"])
def test_a_damaged_bundle_never_becomes_a_file(sink, checkpoint, damage):
    """A file has the bytes that its line lists, or is not there; and `verify --repair` has to know."""
    winner = dies_after_its_part(sink, checkpoint, FILES)
    key = f"files/{winner.files}"
    data = checkpoint.records.get(key)
    checkpoint.records.delete([key])
    if damage != "gone":
        checkpoint.records.put(key, data[:-1] if damage == "torn" else bytes(len(data)))

    for look in (check_files, publish_files):
        with pytest.raises(DamagedOutputError, match="verify --repair SPEC"):
            look(winner, sink=sink, checkpoint=checkpoint)
    assert all(FILES[path] == data for path, data in files_in(sink).items())


def test_a_bundle_is_not_needed_once_all_files_are_there(sink, checkpoint):
    """Another attempt has committed meanwhile, and dropped it."""
    winner = dies_after_its_part(sink, checkpoint, FILES)
    adopted(sink, checkpoint)
    checkpoint.drop_bundles([winner.files])
    assert adopted(sink, checkpoint) == winner


def test_a_worker_of_a_run_that_was_started_over_publishes_no_more_files(sink, checkpoint):
    """They would be in the way of the new run's, for ever."""
    winner = dies_after_its_part(sink, checkpoint, FILES)
    checkpoint.storage.put("run-0001.json", b"{}")
    with pytest.raises(ObjectNotFoundError, match="started over"):
        publish_files(winner, sink=sink, checkpoint=checkpoint)

    checkpoint.storage.delete(["run-0001.json"])
    sink.delete([PART])
    with pytest.raises(ObjectNotFoundError, match="gone"):
        publish_files(winner, sink=sink, checkpoint=checkpoint)
    assert files_in(sink) == {}


def test_a_worker_whose_part_was_put_aside_and_made_again_publishes_no_more_files(
    sink, checkpoint, monkeypatch
):
    """Its files would be in the way of the new part's; and its sentinel would be of no part."""
    monkeypatch.setattr(bundling, "_GROUP_FILES", 1)
    one = an_attempt(sink, checkpoint, FILES)
    assert sink.publish({PART: (one.staged, one.sentinel.to_intent())})
    checkpoint.publish_bundles({one.sentinel.files: one.bundle.staged}, paths={})
    real, puts = bundling._put, []

    def made_again(group, data, sink):
        if not puts:
            sink.move(sink.head(PART), f"_damaged/s/{PART}")
            dies_after_its_part(sink, checkpoint, {"other": b""}, by="new")
        puts.append(group)
        yield from real(group, data, sink)

    monkeypatch.setattr(bundling, "_put", made_again)
    with pytest.raises(ObjectNotFoundError, match="made again"):
        publish_files(one.sentinel, sink=sink, checkpoint=checkpoint, bundle=one.bundle)
    one.bundle.close()
    assert len(puts) == 1


def test_many_files_are_published_in_groups(sink, checkpoint, monkeypatch):
    """In bounded memory, each path once in a group."""
    monkeypatch.setattr(bundling, "_GROUP_FILES", 3)
    files = {f"{n % 2}/{n}": b"%d" % n for n in range(10)}
    committed(sink, checkpoint, files)
    assert files_in(sink) == files


def test_two_workers_at_one_shard_publish_one_set_of_files(sink, checkpoint):
    """Each makes other bytes; both say that the shard is complete, by one sentinel."""
    attempts = [
        an_attempt(sink, checkpoint, {f"{n}": b"%d by %d" % (n, w) for n in range(20)}, by=f"w{w}")
        for w in range(4)
    ]
    results = []
    threads = [
        threading.Thread(
            target=lambda a=a: results.append(commit([a], sink=sink, checkpoint=checkpoint))
        )
        for a in attempts
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    (winner,) = {result[STEM].write_id for result in results}
    assert set(files_in(sink).values()) == {b"%d by %d" % (n, int(winner[1])) for n in range(20)}


def test_an_intent_with_a_bundle_fits_beside_an_object():
    """S3 allows two kilobytes."""
    sentinel = Sentinel(
        run_uid="r" * 32, shard=10**9, part="part-1000000000.jsonl", rows_in=10**12, rows_out=10**12,
        rows_failed=10**12, bytes=10**15, sha256="s" * 64, write_id="w" * 32, session="s" * 32,
        seconds=123456.789, errors=f"part-1000000000.{'w' * 32}.jsonl", errors_sha256="e" * 64,
        source_hash="h" * 64, worker="h" * 255, began=1e10 + 0.123, reading=123456.789,
        calling=123456.789, writing=123456.789, files=f"part-1000000000.{'w' * 32}",
    )  # fmt: skip
    assert len(sentinel.to_intent()) <= MAX_INTENT_BYTES
