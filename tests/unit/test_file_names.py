"""A path that other bytes have costs its row, and no other row."""

from __future__ import annotations

import uuid

import pytest

from batchrunner.errors import StorageError
from batchrunner.formats.listing import Listing
from batchrunner.testing.memory import MemoryStorage
from batchrunner.worker.file_names import FileNames


@pytest.fixture
def sink():
    return MemoryStorage(uuid.uuid4().hex)


@pytest.fixture
def names(sink):
    return FileNames(lambda: sink, apart=["lab/ckpt/"])


def encoded(files):
    return Listing().encode([{"path": path, "bytes": data} for path, data in files.items()])


def accept(names, files, *, shard=0):
    names.accept_all({shard: [encoded(files)]})


@pytest.mark.parametrize(
    ("files", "why"),
    [
        ({"a": b"2"}, "'a' has other bytes in memory:"),
        ({"a": b"22"}, "'a' has other bytes in memory:"),
        ({"a/b": b"1"}, "lies in 'a', which is a file in memory:"),
        ({"lab/ckpt/x": b"1"}, "lies where the source, the checkpoint"),
        ({"x/" * 480 + "y": b"1"}, "is too long below memory:"),
    ],
)
def test_a_path_that_the_sink_has_for_other_bytes_is_refused(names, sink, files, why):
    """Whoever wrote them: another run, another worker, the user."""
    sink.put("a", b"1")
    with pytest.raises(ValueError, match=why):
        accept(names, files)


def test_a_file_that_is_there_with_the_same_bytes_is_accepted(names, sink):
    """It may be what an attempt published that died; to write it again changes nothing."""
    sink.put("a", b"1")
    accept(names, {"a": b"1"})


@pytest.mark.parametrize(
    ("first", "second", "why"),
    [
        ({"a": b"1"}, {"a": b"2"}, "'a' has other bytes in an earlier row"),
        ({"a/B": b"1"}, {"A/b": b"1"}, "'A/b' is the same file as 'a/B'"),
        ({"é": b"1"}, {"e\u0301": b"1"}, "is the same file as"),
        ({"a/b": b"1"}, {"a": b"2"}, "'a' is a folder of the file of an earlier row"),
        ({"a": b"1"}, {"A/b": b"2"}, "'A/b' lies in 'a', the file of an earlier row"),
    ],
)
def test_two_rows_of_a_shard_cannot_be_one_file(names, first, second, why):
    """In one batch or in two: the first row has the path."""
    accept(names, first)
    with pytest.raises(ValueError, match=why):
        accept(names, second)
    names.begin()
    with pytest.raises(ValueError, match=why):
        names.accept_all({0: [encoded(first), encoded(second)]})


def test_rows_of_one_path_and_the_same_bytes_are_one_file(names):
    """So it is where names are hashes of content."""
    accept(names, {"a": b"1"})
    accept(names, {"a": b"1"})
    accept(names, {"a": b"1"}, shard=1)


def test_rows_of_two_shards_cannot_have_other_bytes_under_one_path(names):
    """Neither before nor after the worker has published the first one."""
    accept(names, {"a": b"1"})
    with pytest.raises(ValueError, match="other bytes in an earlier row"):
        accept(names, {"a": b"2"}, shard=1)


def test_what_the_worker_published_since_it_looked_is_known(names, sink):
    """The sink is listed once, and not again for each group of shards."""
    accept(names, {"a": b"1"})
    sink.put("a", b"1")
    names.begin()

    with pytest.raises(ValueError, match="other bytes in memory:"):
        accept(names, {"a": b"2"}, shard=1)


def test_a_batch_that_is_refused_leaves_no_path_behind(names):
    """Its rows are tried again, each by itself."""
    with pytest.raises(ValueError, match="other bytes"):
        names.accept_all({0: [encoded({"a": b"1", "b": b"1"}), encoded({"a": b"2"})]})
    accept(names, {"b": b"2"})


def test_a_shard_that_failed_frees_its_paths(names):
    """Its rows are in no part."""
    accept(names, {"a/b": b"1"})
    names.drop(0)
    accept(names, {"a": b"2"}, shard=1)


def test_another_attempt_looks_at_the_sink_again(names, sink):
    """Another worker may have published the path since."""
    accept(names, {"a": b"1"})
    sink.put("b", b"1")
    names.begin(is_final=True)
    with pytest.raises(ValueError, match="other bytes in memory:"):
        accept(names, {"b": b"2"})


def test_a_store_that_fails_is_no_rows_fault(names, sink, monkeypatch):
    """It is met again where the files are published, and the shard is handed out again."""

    def fail(*_, **__):
        raise StorageError("down")

    monkeypatch.setattr(type(sink), "list", fail)
    accept(names, {"a": b"1"})
