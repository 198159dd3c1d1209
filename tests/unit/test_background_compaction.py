"""A store without calls of `compact`: its writers compact it in the background."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import uuid
from contextlib import contextmanager
from functools import partial

import pytest

from batchrunner.analytics import (
    CompletedRun,
    background_compaction,
    compaction,
    compaction_input,
    open_store,
)
from batchrunner.analytics.background_compaction import BackgroundCompaction
from batchrunner.analytics.catalog import claim_catalog, newest_catalog
from batchrunner.analytics.layout import compaction_in
from batchrunner.errors import StorageError
from batchrunner.testing.analytics_contract import (
    Score,
    a_run,
    interrupted_store,
    once,
    some_runs,
    times_seen,
)
from batchrunner.testing.memory import MemoryStorage
from command import ENVIRONMENT
from patience import PATIENCE


@pytest.fixture
def store():
    return open_store(f"memory://{uuid.uuid4().hex}/store")


@pytest.fixture
def eager(monkeypatch):
    """Check after each write, and compact more than four files."""
    monkeypatch.setattr(background_compaction, "WRITES_PER_CHECK", 1)
    monkeypatch.setattr(background_compaction, "COMPACTION_TRIGGER", 4)


def done(store):
    """Wait for the store's background compaction."""
    thread = store._background._thread
    if thread is not None:
        thread.join(PATIENCE)
        assert not thread.is_alive()
    return store


def light(store):
    """Compact as a writer does."""
    return store._compact_once(compaction.LIGHT)


def loose(store):
    """The written files of `runs` that count."""
    replaced = newest_catalog(store._storage).replaced
    keys = {entry.key for entry in store._storage.list("runs")}
    return {key for key in keys - replaced if key.startswith("runs/run-")}


@contextmanager
def counted(monkeypatch):
    """How often each kind of request is made inside the block."""
    calls = dict.fromkeys(("list", "get", "open", "head"), 0)
    with monkeypatch.context() as patched:
        for name in calls:
            real = getattr(MemoryStorage, name)

            def call(self, *args, _name=name, _real=real, **kwargs):
                calls[_name] += 1
                return _real(self, *args, **kwargs)

            patched.setattr(MemoryStorage, name, call)
        yield calls


def test_the_latest_runs_of_many_are_found_in_few_files(store, monkeypatch):
    """Each run was written on its own, without `compact`: to open a file for each takes minutes."""
    for number in range(1000):
        store.write([a_run(f"{number:05}", scores=1)])
    done(store)

    with counted(monkeypatch) as calls:
        found = open_store(store.config).list_runs()

    assert [run.run_uid for run in found] == [f"{999 - number:05}" for number in range(20)]
    # What stays loose, those of the last turns, and the compacted ones, about ten.
    assert (
        calls["open"]
        <= background_compaction.COMPACTION_TRIGGER
        + 20 * background_compaction.WRITES_PER_CHECK
        + 20
    )
    assert calls["list"] + calls["get"] + calls["head"] <= 10


def test_the_latest_runs_are_listed_without_pandas(tmp_path):
    """Its import takes longer than all the rest, and Arrow does it unasked."""
    open_store(tmp_path).write(some_runs(3))
    light(open_store(tmp_path))
    open_store(tmp_path).write(some_runs(20, first=3))
    program = (
        "import sys; from batchrunner.analytics import open_store\n"
        "assert len(open_store(sys.argv[1]).list_runs()) == 20\n"
        "sys.exit('pandas' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program, str(tmp_path)], env=ENVIRONMENT, check=True)


def test_the_latest_runs_are_exactly_those_wherever_they_are(store):
    """In compacted files, in a set, in files of their own: by their moment, then by their name."""
    for stage in range(3):
        for run in some_runs(4, first=100 * stage):
            store.write([run])
        light(store)
    store.write(some_runs(20, first=300))  # in one moment
    store.write([a_run("late", scores=1)])
    moments = {row["run_uid"]: row["created_at"] for row in store.read_table("runs").to_pylist()}
    expected = sorted(moments, key=lambda uid: (-moments[uid].timestamp(), uid))

    for limit in (1, 3, 20, 22, len(moments), 1000):
        assert [run.run_uid for run in store.list_runs(limit=limit)] == expected[:limit]
        asked = {"capability_id": "tests.Capability", "entity_id": "mnist"}
        assert len(store.list_runs(limit=limit, **asked)) == len(expected[:limit])
    assert store.list_runs(entity_id="imagenet") == []


def test_runs_that_are_compacted_in_the_background_are_there_once(store, eager):
    """Before, during and after; and their addresses hold."""
    refs = []
    for run in some_runs(60):
        refs += store.write_with_receipt([run]).refs
        assert store.get_run_uri(run.run_uid) == refs[-1].store_uri
    done(store)

    assert newest_catalog(store._storage).number > 0
    assert times_seen(store) == once(60)
    assert all(len(store.read_run(ref).records["score"]) == 2 for ref in refs)


def test_a_process_that_ends_at_once_has_compacted_its_files(tmp_path):
    """Many write one run and are gone; a store that knows only such is kept fast too."""
    program = (
        "import sys; from batchrunner.analytics import background_compaction, open_store\n"
        "from batchrunner.testing.analytics_contract import some_runs\n"
        "background_compaction.COMPACTION_TRIGGER, background_compaction.WRITES_PER_CHECK = 4, 1 << 40\n"
        "store = open_store(sys.argv[1])\n"
        "for run in some_runs(20): store.write([run])\n"
        "background_compaction.WRITES_PER_CHECK = 1\n"
        "store.write(some_runs(1, first=20))\n"
    )
    command = [sys.executable, "-c", program, str(tmp_path)]
    ended = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, check=True)

    store = open_store(tmp_path)
    assert (ended.stderr, len(loose(store))) == ("", 0)
    assert times_seen(store) == once(21)


def test_a_write_neither_waits_for_a_compaction_nor_fails_with_it(store, eager):
    """The run is recorded: a failed compaction only makes the next reader slower."""
    go_on = threading.Event()

    def fails():
        go_on.wait(PATIENCE)
        raise StorageError("no space left")

    store._background = BackgroundCompaction(store._storage, fails)
    store.write(some_runs(9))
    assert store._background._thread.is_alive()
    go_on.set()
    done(store)  # an error of a thread would fail the test
    assert times_seen(store) == once(9)


def test_of_several_writers_one_compacts(store, monkeypatch):
    """The others would do the same; if it died, they compact once there are far too many files."""
    monkeypatch.setattr(background_compaction, "COMPACTION_TRIGGER", 4)
    monkeypatch.setattr(background_compaction, "WRITES_PER_CHECK", 1 << 60)
    store.write(some_runs(9))
    assert claim_catalog(store._storage, 1)

    store._background.compact_if_needed()
    assert len(loose(store)) == 9
    monkeypatch.setattr(background_compaction, "_CLAIM_IGNORED_AT", 2)
    store._background.compact_if_needed()
    assert len(loose(store)) == 0
    assert not [e.key for e in store._storage.list("_catalog") if e.key.endswith(".claim")]


def test_files_grow_as_the_table_does(store):
    """No run is copied each time that another hundred come."""
    copied = 0
    for turn in range(24):
        store.write(some_runs(4, first=4 * turn))
        light(store)
        keys = newest_catalog(store._storage).files["score"]
        copied += sum(len(rows_in(store, k)) for k in keys if compaction_in(k) == turn + 1)

    assert len(keys) <= 5
    assert copied <= 4 * 24 * 5  # all over again each time, they would be 4 * 300
    assert times_seen(store) == once(96)
    store.compact(clear=True)
    assert len(newest_catalog(store._storage).files["score"]) == 1
    assert times_seen(store) == once(96)


def test_large_files_of_payload_count_as_they_are(store, monkeypatch):
    """To copy them takes memory that the process of a writer may not have."""
    monkeypatch.setattr(compaction_input, "FULL_BYTES", 4000)
    large = CompletedRun("large", "t", [Score(run_uid="large", value=n) for n in range(1000)])
    store.write([large, a_run("small", scores=1)])
    (key,) = (e.key for e in store._storage.list("score") if e.size > 4000)

    for compact in (lambda: light(store), store.compact, lambda: store.compact(clear=True)):
        compact()
        assert key in newest_catalog(store._storage).files["score"]
        assert len(store.read_run("large").records["score"]) == 1000
        assert len(store.read_table("score")) == 1001
        assert len(loose(store)) == 0
    store.write([large])
    assert len(store.read_table("score")) == 1001
    assert store.query_sql("SELECT count(*) AS n FROM score").to_pylist() == [{"n": 1001}]


def test_a_large_file_that_is_torn_keeps_its_run_where_it_can_be_recorded_again(store, monkeypatch):
    """Once a catalog named it, nothing but a copy would help."""
    large = CompletedRun("large", "t", [Score(run_uid="large", value=n) for n in range(1000)])
    store.write([large, a_run("small", scores=1)])
    (key,) = (e.key for e in store._storage.list("score") if e.size > 4000)
    store._storage.put(key, store._storage.get(key)[:4000])
    monkeypatch.setattr(compaction_input, "FULL_BYTES", 4000)

    store.compact()

    assert len(loose(store)) == 1
    store.write([large])
    assert len(store.read_run("large").records["score"]) == 1000


def test_a_set_of_which_some_runs_are_elsewhere_is_copied(store, monkeypatch):
    """Or the runs in it that do not count would be seen."""
    monkeypatch.setattr(compaction_input, "FULL_BYTES", 100)
    store.write(some_runs(20))
    store.write(some_runs(20, first=10))

    for _ in range(2):
        store.compact()
        assert times_seen(store) == once(30)


def test_no_run_is_in_two_compacted_files(store, monkeypatch):
    """A reader of the folder without the catalog has each run whole."""
    monkeypatch.setattr(compaction, "_FILE_BYTES", 120)
    store.write([a_run(f"run-{number}", scores=3) for number in range(12)])
    store.compact()

    files = newest_catalog(store._storage).files["score"]
    held = [rows_in(store, key) for key in files]
    assert len(files) > 2
    assert sum(map(len, held)) == len(set().union(*held)) == 12
    assert times_seen(store, scores=3) == once(12)


def rows_in(store, key):
    import pyarrow as pa
    import pyarrow.parquet as pq

    return set(pq.read_table(pa.BufferReader(store._storage.get(key)))["run_uid"].to_pylist())


def test_a_catalog_of_an_earlier_version_counts(store):
    """It has no word for files that are not full: of each table it is the last."""
    store.write(some_runs(3))
    store.compact()
    key = "_catalog/00000001.json"
    fields = json.loads(store._storage.get(key))
    del fields["small"]
    store._storage.put(key, json.dumps(fields).encode())
    store.write(some_runs(2, first=3))

    store.compact()

    assert [len(keys) for keys in newest_catalog(store._storage).files.values()] == [1, 1]
    assert times_seen(store) == once(5)


def test_a_compaction_that_is_asked_for_is_done_though_a_writer_was_first(store):
    """Whenever that was, and though the writer did much less."""
    step, interrupted = 0, True
    while interrupted:
        step += 1
        place = {"uri": f"{store.uri}/{step}"}
        other = open_store(store.config.model_copy(update=place))
        other.write(some_runs(5))
        compactor = interrupted_store(other, at=step, by=partial(light, other))
        report = compactor.compact()
        interrupted = compactor._storage.happened
        assert (report.lost_race, loose(other)) == (False, set())
        assert times_seen(other) == once(5)
    assert step > 5
