"""Promises of reads: SQL that only reads, and damage that is reported and hides no other run."""
# A test suite, although it is shipped.
# ruff: noqa: S101

from __future__ import annotations

import io
import logging

import pytest

from batchrunner.analytics import AnalyticsStore
from batchrunner.analytics.layout import file_key, stem_of
from batchrunner.errors import QueryError, RunNotFoundError, StorageError
from batchrunner.storage import Storage
from batchrunner.testing.analytics_contract.runs import (
    a_run,
    once,
    query,
    some_runs,
    times_seen,
)


class ReadingContract:
    """Tests of what queries, `read_table` and `read_run` promise."""

    def test_sql_joins_the_tables(self, store: AnalyticsStore) -> None:
        """The `runs` table leads from a dataset to the records."""
        store.write(some_runs(3))

        rows = query(
            store,
            "SELECT DISTINCT s.run_uid FROM score s JOIN runs r USING (run_uid) "
            "WHERE r.entity_type = 'dataset' AND r.entity_id = 'mnist' ORDER BY 1",
        )

        assert [row["run_uid"] for row in rows] == list(once(3))

    @pytest.mark.parametrize(
        "sql",
        [
            "DROP TABLE score",
            "INSERT INTO score SELECT * FROM score",
            "SELECT * FROM read_csv('/etc/hostname')",
            "SELECT 1; SELECT 2",
            "SELECT * FROM nope",
            "SELECT FROM WHERE",
        ],
    )
    def test_sql_reads_the_tables_and_nothing_else(self, store: AnalyticsStore, sql: str) -> None:
        """A query's author need not be trusted with the machine that runs it."""
        store.write([a_run("one")])

        with pytest.raises(QueryError):
            store.query_sql(sql)
        assert times_seen(store) == {"one": 1}

    @pytest.mark.parametrize("compacted", [False, True])
    def test_a_table_is_read_without_sql(self, store: AnalyticsStore, compacted: bool) -> None:
        """DuckDB is optional."""
        store.write(some_runs(3))
        if compacted:
            store.compact()

        assert len(store.read_table("score")) == 6

    @pytest.mark.parametrize("compacted", [False, True])
    def test_files_that_cannot_be_read_hide_no_others(
        self,
        store: AnalyticsStore,
        raw: Storage,
        caplog: pytest.LogCaptureFixture,
        compacted: bool,
    ) -> None:
        """Queries return the other runs, and warn of each torn, foreign or later file by name."""
        store.write([a_run("good"), a_run("torn"), a_run("later")])
        for name, data in planted(raw).items():
            raw.put(name, data)
        if compacted:
            store.compact()
            store.compact()

        caplog.clear()
        with caplog.at_level(logging.WARNING):
            rows = store.query_sql("SELECT DISTINCT run_uid FROM score").to_pylist()

        assert rows == [{"run_uid": "good"}]
        for name in planted_names():
            assert name in caplog.text

    @pytest.mark.parametrize("table", ["score", "runs"])
    def test_a_run_whose_file_is_torn_is_an_error_and_written_again_is_whole(
        self, store: AnalyticsStore, twin: AnalyticsStore, raw: Storage, table: str
    ) -> None:
        """A run that has records never reads as a run without records."""
        store.write([a_run("whole"), a_run("torn")])
        key = file_key(table, stem_of(["torn"]))
        raw.put(key, raw.get(key)[:100])

        with pytest.raises(StorageError, match=f"'torn'.*{key} is torn.*record the run again"):
            twin.read_run("torn")
        assert twin.read_run("whole").records["score"]

        assert store.write_with_receipt([a_run("torn"), a_run("whole")]).new_files == {key}
        assert len(twin.read_run("torn").records["score"]) == 2
        assert times_seen(twin) == {"whole": 1, "torn": 1}
        assert len(raw.get(f"_damaged/{key}")) == 100

    @pytest.mark.parametrize("compacted", [False, True])
    def test_a_run_whose_records_are_gone_is_an_error(
        self, store: AnalyticsStore, twin: AnalyticsStore, raw: Storage, compacted: bool
    ) -> None:
        """Neither an empty result nor `RunNotFoundError` would be true."""
        store.write([a_run("gone"), a_run("other")])
        if compacted:
            store.compact(clear=True)
        lost = [entry.key for entry in raw.list("score")]
        raw.delete(lost)

        with pytest.raises(StorageError, match="records of run 'gone' in table 'score'"):
            twin.read_run("gone")
        if not compacted:
            store.write([a_run("gone")])
            assert len(twin.read_run("gone").records["score"]) == 2

    def test_a_torn_compacted_file_is_reported_when_a_run_is_looked_for(
        self, store: AnalyticsStore, twin: AnalyticsStore, raw: Storage
    ) -> None:
        """The user would believe a bare "there is no such run"."""
        store.write([a_run("one")])
        store.compact(clear=True)
        (key,) = (entry.key for entry in raw.list("runs"))
        raw.put(key, raw.get(key)[:100])

        with pytest.raises(RunNotFoundError, match=f"may be in what cannot be read: .*{key}"):
            twin.read_run("one")


def planted(raw: Storage) -> dict[str, bytes]:
    """Return bytes by key: a torn file, a later one and two foreign ones for the table `score`."""
    import pyarrow as pa

    from batchrunner.analytics.table_files import to_parquet

    torn, later = (file_key("score", stem_of([name])) for name in ("torn", "later"))
    whole = raw.get(torn)
    return {
        torn: whole[: len(whole) // 2],
        later: _of_a_later_version(raw.get(later)),
        "score/foreign.parquet": to_parquet(pa.table({"x": [1]})),
        "score/README.txt": b"not ours",
    }


def planted_names() -> list[str]:
    """Return the keys of the files in `planted`."""
    keys = [file_key("score", stem_of([name])) for name in ("torn", "later")]
    return [*keys, "score/foreign.parquet", "score/README.txt"]


def _of_a_later_version(data: bytes) -> bytes:

    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = pq.read_table(pa.BufferReader(data))
    out = io.BytesIO()
    pq.write_table(rows.replace_schema_metadata({"batchrunner.table_format": "2"}), out)
    return out.getvalue()
