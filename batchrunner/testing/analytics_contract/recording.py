"""Promises of writes: durable, once each, and with columns that keep their type."""
# A test suite, although it is shipped.
# ruff: noqa: S101

from __future__ import annotations

from functools import partial
from typing import ClassVar

import pytest

from batchrunner.analytics import AnalyticsStore, CompletedRun, open_store
from batchrunner.errors import (
    InvalidRecordError,
    InvalidSpecError,
    RunNotFoundError,
    SchemaConflictError,
)
from batchrunner.storage import Storage
from batchrunner.testing.analytics_contract.runs import (
    OtherScore,
    Remark,
    Score,
    WiderScore,
    a_run,
    once,
    query,
    some_runs,
    times_seen,
)
from batchrunner.testing.storage_contract import at_once


class RecordingContract:
    """Tests of what `write` promises."""

    contenders: ClassVar[int] = 8

    def test_a_run_is_read_back_as_it_was_written(
        self, store: AnalyticsStore, twin: AnalyticsStore
    ) -> None:
        """Another process reads it by its ref alone."""
        run = a_run("a run/with odd#letters")
        (ref,) = store.write_with_receipt([run], provenance={"job_id": "job-1"}).refs

        recorded = twin.read_run(ref)

        expected = [{"run_uid": run.run_uid, "value": 1.0}] * 2
        scores = recorded.records["score"]
        assert [{key: row[key] for key in ("run_uid", "value")} for row in scores] == expected
        assert {row["job_id"] for row in recorded.runs} == {"job-1"}
        assert twin.read_run(ref.store_uri) == recorded

    def test_a_run_without_records_is_recorded(self, store: AnalyticsStore) -> None:
        """The user wants to see that it ran."""
        (ref,) = store.write_with_receipt([CompletedRun("empty", "tests.Capability")]).refs

        recorded = store.read_run(ref)

        assert (len(recorded.runs), recorded.records) == (1, {})

    def test_a_run_may_have_records_of_several_tables(self, store: AnalyticsStore) -> None:
        """A batch has one row about itself and many about its shards."""
        records = [Score(run_uid="two", value=1), Remark(run_uid="two", text="good")]
        store.write([CompletedRun("two", "tests.Capability", records)])
        store.compact()

        assert store.read_run("two").records.keys() == {"score", "remark"}

    def test_nothing_written_is_nothing_done(self, store: AnalyticsStore) -> None:
        """A shard may have no runs, so an empty write is no error."""
        assert store.write_with_receipt([]).refs == ()
        assert store.list_tables() == []

    def test_the_tables_and_their_columns_are_listed(self, store: AnalyticsStore) -> None:
        """The author of a query needs their names and types."""
        store.write([a_run("one")])

        assert store.list_tables() == ["runs", "score"]
        assert store.describe_table("score") == {
            "run_uid": "string",
            "created_at": "timestamp",
            "value": "double",
        }
        with pytest.raises(InvalidSpecError, match=r"no table 'nope'; it has: runs, score"):
            store.describe_table("nope")

    def test_a_run_that_is_not_there_is_named(self, store: AnalyticsStore) -> None:
        """The error names the run in an empty store, too."""
        for _ in range(2):
            with pytest.raises(RunNotFoundError, match="no run 'nope'"):
                store.get_run_uri("nope")
            store.write([a_run("one")])

    def test_the_address_of_a_run_opens_its_store(self, store: AnalyticsStore) -> None:
        """The ref is all that a client keeps of a job."""
        (ref,) = store.write_with_receipt([a_run("one")]).refs

        opened = open_store(ref, storage_options=store.config.storage_options)

        assert opened.uri == store.uri
        assert opened.get_run_uri("one") == ref.store_uri

    def test_an_address_holds_no_secrets(self, store: AnalyticsStore) -> None:
        """Addresses are printed, logged, and kept in other people's files."""
        (ref,) = store.write_with_receipt([a_run("one")]).refs

        shown = f"{ref!r} {store!r} {store.config!r}"
        for name, value in store.config.storage_options.items():
            assert name not in {"key", "secret"} or str(value) not in shown

    def test_a_store_can_be_proven_writable_and_is_left_as_it_was(
        self, store: AnalyticsStore, raw: Storage
    ) -> None:
        """A user wants to find a wrong configuration before hours of work, not after them."""
        store.check_writable()

        assert list(raw.list(recursive=True)) == []

    @pytest.mark.parametrize("count", [1, 3, 40])
    def test_what_is_written_again_stays_as_it_was(
        self, store: AnalyticsStore, twin: AnalyticsStore, count: int
    ) -> None:
        """The first write stays, though the second one has other values."""
        store.write(some_runs(count, value=1))
        again = twin.write_with_receipt(some_runs(count, value=2))

        assert again.new_files == frozenset()
        assert times_seen(store) == once(count)
        assert query(store, "SELECT DISTINCT value FROM score") == [{"value": 1.0}]

    def test_runs_that_come_in_several_sets_count_once(self, store: AnalyticsStore) -> None:
        """Two batches may share some of their runs."""
        store.write(some_runs(30))
        store.write(some_runs(30, first=10))
        store.write(some_runs(1, first=20))

        assert times_seen(store) == once(40)

    def test_of_writers_at_once_each_run_counts_once(
        self, store: AnalyticsStore, twin: AnalyticsStore
    ) -> None:
        """Neighbouring writers share half of their runs, and write them at the same time."""
        stores = [store, twin]
        at_once(
            partial(stores[one % 2].write, some_runs(4, first=2 * one))
            for one in range(self.contenders)
        )

        assert times_seen(store) == once(2 * self.contenders + 2)

    def test_a_run_without_its_row_is_not_there(self, store: AnalyticsStore, raw: Storage) -> None:
        """Its writer died before its last step; the next writer completes the run."""
        store.write([a_run("one"), a_run("two")])
        (lost, _) = [entry.key for entry in raw.list("runs")]
        raw.delete([lost])

        assert len(times_seen(store)) == 1
        store.write([a_run("one"), a_run("two")])
        assert times_seen(store) == {"one": 1, "two": 1}

    def test_a_column_may_be_added(self, store: AnalyticsStore, twin: AnalyticsStore) -> None:
        """Older runs have NULL there, before compaction and after."""
        store.write([a_run("old", scores=1)])
        new = WiderScore(run_uid="new", value=2, note="wider")
        twin.write([CompletedRun("new", "tests.Capability", [new])])
        store.write([a_run("older", scores=1)])

        for _ in range(2):
            notes = query(store, "SELECT run_uid, note FROM score ORDER BY run_uid")
            assert [row["note"] for row in notes] == ["wider", None, None]
            store.compact()

    def test_a_changed_type_is_refused_before_anything_is_written(
        self, store: AnalyticsStore, twin: AnalyticsStore
    ) -> None:
        """No query could read a table whose column has two types."""
        store.write([a_run("old")])
        other = CompletedRun("new", "tests.Capability", [OtherScore(run_uid="new", value="1")])

        with pytest.raises(SchemaConflictError, match=r"'value' is double in .* and string"):
            twin.write([other])
        assert times_seen(store) == {"old": 1}

    def test_of_first_writers_with_different_types_one_wins(
        self, store: AnalyticsStore, twin: AnalyticsStore
    ) -> None:
        """All writers agree on a type even if the first writers of a table come at once."""
        other = CompletedRun("b", "tests.Capability", [OtherScore(run_uid="b", value="1")])

        def write(where: AnalyticsStore, run: CompletedRun) -> bool:
            try:
                where.write([run])
            except SchemaConflictError:
                return False
            return True

        done = at_once([partial(write, store, a_run("a", scores=1)), partial(write, twin, other)])

        assert sorted(done) == [False, True]
        assert len(query(store, "SELECT * FROM score")) == 1

    def test_a_record_of_another_run_is_refused(self, store: AnalyticsStore) -> None:
        """A read of neither run would return that record."""
        stray = CompletedRun("one", "tests.Capability", [Score(run_uid="two", value=1)])

        with pytest.raises(InvalidRecordError, match="has run_uid 'two'"):
            store.write([a_run("three"), stray])
        assert store.list_tables() == []
