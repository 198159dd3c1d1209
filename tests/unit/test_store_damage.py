"""A damaged store: its errors, the runs that stay readable, and the repair."""

from __future__ import annotations

import pytest

from batchrunner.analytics import compaction, open_store
from batchrunner.errors import StorageError
from batchrunner.testing.analytics_contract import a_run, once, some_runs, times_seen


@pytest.fixture
def store(tmp_path):
    return open_store(tmp_path / "store")


def removed(storage, key):
    storage.delete([key])


def cut_short(storage, key):
    storage.put(key, storage.get(key)[:100])


def overwritten_inside(storage, key):
    data = bytearray(storage.get(key))
    data[4:300] = b"\xff" * 296  # the footer is whole
    storage.put(key, bytes(data))


def compacted(store, table):
    """The key of the one compacted file of the table."""
    (key,) = (e.key for e in store._storage.list(table) if "compacted-" in e.key)
    return key


@pytest.mark.parametrize(
    ("count", "damage"),
    [
        (2, removed),
        (20, removed),
        (20, cut_short),
        (2, overwritten_inside),
        (20, overwritten_inside),
    ],
)
@pytest.mark.parametrize("table", ["runs", "score"])
def test_what_is_recorded_again_after_a_compacted_file_was_lost_is_there(
    store, table, damage, count
):
    """Also when compactions come after it, which would delete what the catalog calls replaced."""
    store.write(some_runs(count))
    store.compact(clear=True)
    damage(store._storage, compacted(store, table))

    with pytest.raises((StorageError, LookupError, ValueError), match=f"{table}/compacted-"):
        store.read_run("run-0")
    store.write(some_runs(count))
    store.write([a_run("other")])

    for _ in range(2):
        assert times_seen(store) == {**once(count), "other": 1}
        assert len(store.read_run("run-0").records["score"]) == 2
        store.compact(clear=True)


def test_one_lost_file_of_several_hides_no_other_run(store, monkeypatch):
    """Runs of the others are read, alone and all; those of the lost one are recorded again."""
    monkeypatch.setattr(compaction, "_FILE_BYTES", 600)
    store.write(some_runs(20))
    store.compact(clear=True)
    for table in ("runs", "score"):
        keys = [entry.key for entry in store._storage.list(table)]
        assert len(keys) > 1
        store._storage.delete(keys[-1:])

    left = [run.run_uid for run in store.list_runs()]
    assert 0 < len(left) < 20
    store.write(some_runs(20))

    assert times_seen(store) == once(20)
    assert {len(store.read_run(f"run-{n}").records["score"]) for n in range(20)} == {2}


def test_what_a_lost_file_replaced_counts_as_long_as_it_is_there(store):
    """A compaction keeps it for readers, and nothing is nearer to a copy."""
    store.write(some_runs(3))
    store.compact()
    store._storage.delete([compacted(store, "runs"), compacted(store, "score")])

    assert times_seen(store) == once(3)
    assert store.compact(clear=True).deleted == 0
    assert times_seen(store) == once(3)


def test_a_lost_file_that_is_put_back_doubles_nothing(store):
    """Its runs were recorded again meanwhile, and a compaction came by."""
    store.write(some_runs(3))
    store.compact(clear=True)
    key = compacted(store, "runs")
    data = store._storage.get(key)
    store._storage.delete([key])
    store.write(some_runs(3))
    store.compact(clear=True)
    store._storage.put(key, data)

    assert times_seen(store) == once(3)
    store.compact(clear=True)
    assert times_seen(store) == once(3)


@pytest.mark.parametrize("kept", [0, 1])
def test_without_its_catalogs_a_store_is_not_read_short_nor_cleared(store, kept):
    """A copy that leaves out names with _ has none: two compactions deleted all that was compacted."""
    storage = store._storage
    for first in range(kept + 1):
        store.write(some_runs(3, first=3 * first))
        store.compact(clear=True)
    newest = max(entry.key for entry in storage.list("_catalog"))
    data = storage.get(newest)
    storage.delete([newest])
    files = {entry.key for entry in storage.list("runs")}
    store.write([a_run("other")])

    for _ in range(2):
        with pytest.raises(StorageError, match=r"_catalog/ is missing; restore"):
            store.compact(clear=True)
    if not kept:
        for read in (store.list_runs, lambda: store.read_run("run-0")):
            with pytest.raises(StorageError, match=r"_catalog/ is missing; restore"):
                read()

    assert files < {entry.key for entry in storage.list("runs")}
    storage.put(newest, data)
    assert times_seen(store) == {**once(3 * kept + 3), "other": 1}


@pytest.mark.parametrize("table", ["runs", "score"])
def test_a_lost_schema_is_named_and_made_anew(store, table):
    """That there are no runs would be believed, and a KeyError says nothing."""
    store.write(some_runs(2))
    store._storage.delete([f"_schema/{table}.00000001.json"])
    twin = open_store(store.config)

    with pytest.raises(StorageError, match=rf"_schema/{table}\.00000001\.json is missing"):
        twin.read_run("run-0")
    if table == "runs":
        with pytest.raises(StorageError, match="is missing"):
            twin.list_runs()
    twin.write([a_run("other")])

    assert times_seen(twin) == {**once(2), "other": 1}
