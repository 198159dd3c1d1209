"""Reading the folders of a store without its catalog: the lines that the documentation gives."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import duckdb
import pytest

from batchrunner.analytics import CompletedRun, background_compaction, compaction, open_store
from batchrunner.testing.analytics_contract import WiderScore, a_run, some_runs

HOW_TO = Path(__file__).parents[2] / "docs/how-to/record-runs.md"


def documented(name):
    """The function that the page gives for this reader."""
    blocks = re.findall(
        r"^```python[^\n]*\n(.*?)^```$", HOW_TO.read_text(), re.MULTILINE | re.DOTALL
    )
    (block,) = (text for text in blocks if f"def read_with_{name}(" in text)
    space = {}
    exec(compile(block.partition("\nprint(")[0], HOW_TO.name, "exec"), space)  # noqa: S102 - as printed
    return space[f"read_with_{name}"]


READERS = {name: documented(name) for name in ("duckdb", "polars", "pyarrow")}


def runs_seen(store, reader):
    """How many rows of `score` each run has there; in the store it has two."""
    found = READERS[reader](store.uri, "score")
    rows = found.to_dicts() if reader == "polars" else found.to_pylist()
    return Counter(row["run_uid"] for row in rows)


def twice_each(count):
    return {f"run-{number}": 2 for number in range(count)}


@pytest.fixture
def store(tmp_path, monkeypatch):
    monkeypatch.setattr(compaction, "_FILE_BYTES", 200)  # so that there are several
    monkeypatch.setattr(background_compaction, "WRITES_PER_CHECK", 1 << 60)
    return open_store(tmp_path / "store")


@pytest.mark.parametrize("reader", READERS)
def test_a_plain_reader_sees_every_row_once_at_every_stage(store, reader):
    """Written, compacted, replaced and not yet deleted, written again, in two sets."""
    stages = [
        lambda: store.write(some_runs(6)),
        store.compact,  # what it replaced is still there
        lambda: store._storage.put_if_absent(garbage(store)),  # of a compaction that died
        lambda: store.write(some_runs(12)),  # some of it a second time
        lambda: store._compact_once(compaction.LIGHT),
        lambda: store.write(some_runs(20)),  # a set, of runs that are there
        lambda: store.compact(clear=True),
    ]
    plain = []
    for stage, count in zip(stages, [6, 6, 6, 12, 12, 20, 20], strict=True):
        stage()
        assert runs_seen(store, reader) == twice_each(count)
        plain.append(rows_of_all_files(store) - 2 * count)

    assert max(plain) > 0, "a plain glob would have done"
    assert plain[-1] == 0


@pytest.mark.parametrize("reader", READERS)
def test_a_plain_reader_has_the_columns_that_came_later(store, reader):
    """NULL in older files, whichever comes first."""
    store.write([a_run("old")])
    store.compact()
    wider = WiderScore(run_uid="new", value=1, note="wider")
    store.write([CompletedRun("new", "tests.Capability", [wider])])

    found = READERS[reader](store.uri, "score")["note"]

    assert set(found.to_list() if reader == "polars" else found.to_pylist()) == {None, "wider"}


def test_duckdb_is_made_to_list_the_folder_once(store, monkeypatch):
    """Its optimizer makes two scans of a window: what is compacted between them would be missing."""
    store.write([a_run("run")])
    reader, run = READERS["duckdb"], duckdb.sql
    monkeypatch.setattr(duckdb, "sql", lambda query: run(f"EXPLAIN {query}"))

    (plan,) = reader(store.uri, "score")["explain_value"].to_pylist()

    assert plan.count("READ_PARQUET") == 1


def garbage(store):
    """Compacted files under the next number, as a compaction that died leaves them."""
    keys = [entry.key for entry in store._storage.list("score") if "compacted" in entry.key]
    return {key.replace("-00000001-", "-00000002-"): store._storage.get(key) for key in keys}


def rows_of_all_files(store):
    import pyarrow.parquet as pq

    return sum(pq.read_metadata(path).num_rows for path in Path(store.uri, "score").iterdir())
