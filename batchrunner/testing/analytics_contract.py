"""What every analytics store must do, as tests: subclass `AnalyticsContract`, give it a store.

    class TestMyStore(AnalyticsContract):
        @pytest.fixture
        def store(self, tmp_path): return open_store(tmp_path)      # an empty one for each test

`twin` is a second store at the same place, as another process would have it. DuckDB is needed.
"""
# A test suite, although it is shipped.
# ruff: noqa: S101

from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from math import inf
from typing import Any, ClassVar, cast

import pytest

from batchrunner.analytics import (
    AnalyticsStore,
    CompletedRun,
    Record,
    open_store,
)
from batchrunner.analytics import store as store_module
from batchrunner.analytics.compaction_input import RoundLimits
from batchrunner.analytics.layout import file_key, stem_of
from batchrunner.analytics.schemas import Schemas
from batchrunner.errors import (
    InvalidRecordError,
    InvalidSpecError,
    QueryError,
    RunNotFoundError,
    SchemaConflictError,
    StorageError,
)
from batchrunner.storage import Storage, open_storage
from batchrunner.testing.storage_contract import at_once


class Score(Record, table_name="score"):
    value: float


class WiderScore(Record, table_name="score"):
    value: float
    note: str | None = None


class OtherScore(Record, table_name="score"):
    value: str


class Remark(Record, table_name="remark"):
    text: str


def a_run(name: str, *, value: float = 1.0, scores: int = 2) -> CompletedRun:
    """Return a run of so many scores, on two datasets and a model."""
    records = [Score(run_uid=name, value=value) for _ in range(scores)]
    return CompletedRun(
        name,
        "tests.Capability",
        records,
        dataset_metadata=[{"id": "cifar"}, {"id": "mnist"}],
        model_metadata=[{"id": "resnet"}],
    )


def some_runs(count: int, *, first: int = 0, value: float = 1.0) -> list[CompletedRun]:
    """Return runs named by numbers."""
    return [a_run(f"run-{number}", value=value) for number in range(first, first + count)]


def times_seen(store: AnalyticsStore, *, scores: int = 2) -> dict[str, int]:
    """Return how often each run is there, by its payload; see that `runs` says the same."""
    counted = "(SELECT run_uid, count(*) AS n FROM {} GROUP BY run_uid)"
    found = _query(
        store,
        f"SELECT run_uid, runs.n AS rows, payload.n FROM {counted.format('runs')} runs "  # noqa: S608 - ours
        f"FULL JOIN {counted.format('score')} payload USING (run_uid)",
    )
    assert {row["rows"] for row in found} == {3}, "not one row for each of three entities"
    assert all(row["n"] % scores == 0 for row in found), "half a run"
    return {row["run_uid"]: row["n"] // scores for row in found}


def once(count: int) -> dict[str, int]:
    """Return what `times_seen` says of *count* numbered runs that are there once each."""
    return {f"run-{number}": 1 for number in range(count)}


def _query(store: AnalyticsStore, sql: str) -> list[dict[str, Any]]:
    return list(store.query_sql(sql).to_pylist())


@contextmanager
def in_the_background(work: Callable[[], object]) -> Iterator[None]:
    """Repeat *work* in a thread for as long as the block takes; raise what it raised."""
    stop, failures = threading.Event(), list[BaseException]()

    def repeat() -> None:
        while not stop.is_set():
            try:
                work()
            except BaseException as error:  # noqa: BLE001 - raised again below
                failures.append(error)
                return

    thread = threading.Thread(target=repeat)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
    for failure in failures:
        raise failure


class Interrupted:
    """A storage in which something happens once, before one of its calls."""

    def __init__(self, storage: Storage, *, at: int, by: Callable[[], None]) -> None:
        self._inner, self._left, self._by = storage, at, by

    @property
    def happened(self) -> bool:
        """Tell whether it came so far."""
        return self._left <= 0

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._inner, name)
        if name in {"list", "get", "head", "open"}:
            self._left -= 1
            if self._left == 0:
                self._by()
        return found


def interrupted_store(store: AnalyticsStore, *, at: int, by: Callable[[], None]) -> AnalyticsStore:
    """Return a store at the same place, with *by* happening before step *at* of what it does."""
    reader = open_store(store.config)
    storage = cast(Storage, Interrupted(reader._storage, at=at, by=by))  # noqa: SLF001 - our own
    reader._storage, reader._schemas = storage, Schemas(storage)  # noqa: SLF001 - likewise
    return reader


def _write_and_compact(store: AnalyticsStore, name: str) -> None:
    store.write([a_run(name)])
    store.compact(clear=True)


def _counted(rows: Iterable[dict[str, Any]]) -> dict[str, int]:
    return dict(Counter(row["run_uid"] for row in rows))


READS: dict[str, Callable[[AnalyticsStore], dict[str, int]]] = {
    "sql": lambda store: _counted(_query(store, "SELECT run_uid FROM score")),
    "runs": lambda store: {run.run_uid: 2 for run in store.list_runs(limit=1000)},
}


class AnalyticsContract:
    """The promises of the store, one test each."""

    contenders: ClassVar[int] = 8
    """Threads in a race."""
    rounds: ClassVar[int] = 5
    """Reads of a test that reads while others write."""

    @pytest.fixture
    def twin(self, store: AnalyticsStore) -> AnalyticsStore:
        """A second store at the same place."""
        return open_store(store.config)

    @pytest.fixture
    def raw(self, store: AnalyticsStore) -> Storage:
        """What the store is kept in, to look and to meddle."""
        return open_storage(store.uri, storage_options=store.config.storage_options)

    # Recording

    def test_a_run_is_read_back_as_it_was_written(
        self, store: AnalyticsStore, twin: AnalyticsStore
    ) -> None:
        """From its ref alone, somewhere else."""
        run = a_run("a run/with odd#letters")
        (ref,) = store.write_with_receipt([run], provenance={"job_id": "job-1"}).refs

        found = twin.read_run(ref)

        expected = [{"run_uid": run.run_uid, "value": 1.0}] * 2
        kept = [{key: row[key] for key in ("run_uid", "value")} for row in found.records["score"]]
        assert kept == expected
        assert {row["job_id"] for row in found.runs} == {"job-1"}
        assert twin.read_run(ref.store_uri) == found

    def test_a_run_without_records_is_recorded(self, store: AnalyticsStore) -> None:
        """That it ran is worth knowing."""
        (ref,) = store.write_with_receipt([CompletedRun("empty", "tests.Capability")]).refs

        found = store.read_run(ref)

        assert (len(found.runs), found.records) == (1, {})

    def test_a_run_may_have_records_of_several_tables(self, store: AnalyticsStore) -> None:
        """A batch has one row about itself and many about its shards."""
        records = [Score(run_uid="two", value=1), Remark(run_uid="two", text="good")]
        store.write([CompletedRun("two", "tests.Capability", records)])
        store.compact()

        assert store.read_run("two").records.keys() == {"score", "remark"}

    def test_nothing_written_is_nothing_done(self, store: AnalyticsStore) -> None:
        """A shard may have no runs at all."""
        assert store.write_with_receipt([]).refs == ()
        assert store.list_tables() == []

    def test_the_tables_and_their_columns_are_told(self, store: AnalyticsStore) -> None:
        """Whoever writes SQL wants to know."""
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
        """Also in a store that nobody wrote to yet."""
        for _ in range(2):
            with pytest.raises(RunNotFoundError, match="no run 'nope'"):
                store.get_run_uri("nope")
            store.write([a_run("one")])

    def test_the_address_of_a_run_opens_its_store(self, store: AnalyticsStore) -> None:
        """All that a client keeps of a job."""
        (ref,) = store.write_with_receipt([a_run("one")]).refs

        opened = open_store(ref, storage_options=store.config.storage_options)

        assert opened.uri == store.uri
        assert opened.get_run_uri("one") == ref.store_uri

    def test_an_address_holds_no_secrets(self, store: AnalyticsStore) -> None:
        """It is printed, logged, and kept in other people's files."""
        (ref,) = store.write_with_receipt([a_run("one")]).refs

        shown = f"{ref!r} {store!r} {store.config!r}"
        for name, value in store.config.storage_options.items():
            assert name not in {"key", "secret"} or str(value) not in shown

    # Once each

    @pytest.mark.parametrize("count", [1, 3, 40])
    def test_what_is_written_again_stays_as_it_was(
        self, store: AnalyticsStore, twin: AnalyticsStore, count: int
    ) -> None:
        """The first one counts, though the second has other bytes."""
        store.write(some_runs(count, value=1))
        again = twin.write_with_receipt(some_runs(count, value=2))

        assert again.new_files == frozenset()
        assert times_seen(store) == once(count)
        assert _query(store, "SELECT DISTINCT value FROM score") == [{"value": 1.0}]

    def test_runs_that_come_in_several_sets_count_once(self, store: AnalyticsStore) -> None:
        """Two batches share some of their runs."""
        store.write(some_runs(30))
        store.write(some_runs(30, first=10))
        store.write(some_runs(1, first=20))

        assert times_seen(store) == once(40)

    def test_of_writers_at_once_each_run_counts_once(
        self, store: AnalyticsStore, twin: AnalyticsStore
    ) -> None:
        """Half of the runs are the same, and meet."""
        stores = [store, twin]
        at_once(
            partial(stores[one % 2].write, some_runs(4, first=2 * one))
            for one in range(self.contenders)
        )

        assert times_seen(store) == once(2 * self.contenders + 2)

    def test_a_run_without_its_row_is_not_there(self, store: AnalyticsStore, raw: Storage) -> None:
        """Its writer died before its last step; the next one goes on from there."""
        store.write([a_run("one"), a_run("two")])
        (lost, _) = [entry.key for entry in raw.list("runs")]
        raw.delete([lost])

        assert len(times_seen(store)) == 1
        store.write([a_run("one"), a_run("two")])
        assert times_seen(store) == {"one": 1, "two": 1}

    # Schemas

    def test_a_column_may_be_added(self, store: AnalyticsStore, twin: AnalyticsStore) -> None:
        """Older runs have NULL there, before compaction and after."""
        store.write([a_run("old", scores=1)])
        new = WiderScore(run_uid="new", value=2, note="wider")
        twin.write([CompletedRun("new", "tests.Capability", [new])])
        store.write([a_run("older", scores=1)])

        for _ in range(2):
            notes = _query(store, "SELECT run_uid, note FROM score ORDER BY run_uid")
            assert [row["note"] for row in notes] == ["wider", None, None]
            store.compact()

    def test_a_changed_type_is_refused_before_anything_is_written(
        self, store: AnalyticsStore, twin: AnalyticsStore
    ) -> None:
        """Or no query would read the table any more."""
        store.write([a_run("old")])
        other = CompletedRun("new", "tests.Capability", [OtherScore(run_uid="new", value="1")])

        with pytest.raises(SchemaConflictError, match=r"'value' is double in .* and string"):
            twin.write([other])
        assert times_seen(store) == {"old": 1}

    def test_of_first_writers_with_different_types_one_wins(
        self, store: AnalyticsStore, twin: AnalyticsStore
    ) -> None:
        """A type is agreed on even when nobody was there before."""
        other = CompletedRun("b", "tests.Capability", [OtherScore(run_uid="b", value="1")])

        def write(where: AnalyticsStore, run: CompletedRun) -> bool:
            try:
                where.write([run])
            except SchemaConflictError:
                return False
            return True

        done = at_once([partial(write, store, a_run("a", scores=1)), partial(write, twin, other)])

        assert sorted(done) == [False, True]
        assert len(_query(store, "SELECT * FROM score")) == 1

    def test_a_record_of_another_run_is_refused(self, store: AnalyticsStore) -> None:
        """Nobody would ever find it."""
        stray = CompletedRun("one", "tests.Capability", [Score(run_uid="two", value=1)])

        with pytest.raises(InvalidRecordError, match="has run_uid 'two'"):
            store.write([a_run("three"), stray])
        assert store.list_tables() == []

    # Queries

    def test_sql_joins_the_tables(self, store: AnalyticsStore) -> None:
        """The `runs` table leads from a dataset to the records."""
        store.write(some_runs(3))

        found = _query(
            store,
            "SELECT DISTINCT s.run_uid FROM score s JOIN runs r USING (run_uid) "
            "WHERE r.entity_type = 'dataset' AND r.entity_id = 'mnist' ORDER BY 1",
        )

        assert [row["run_uid"] for row in found] == list(once(3))

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
        """A query comes from a report or a notebook, not from the owner of the machine."""
        store.write([a_run("one")])

        with pytest.raises(QueryError):
            store.query_sql(sql)
        assert times_seen(store) == {"one": 1}

    @pytest.mark.parametrize("compacted", [False, True])
    def test_a_table_is_read_without_sql(self, store: AnalyticsStore, compacted: bool) -> None:
        """Not everybody has DuckDB."""
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
        """One torn, one foreign, one of a later version: queries answer, and name them."""
        store.write([a_run("good"), a_run("torn"), a_run("later")])
        for name, data in planted(raw).items():
            raw.put(name, data)
        if compacted:
            store.compact()
            store.compact()

        caplog.clear()
        with caplog.at_level(logging.WARNING):
            found = store.query_sql("SELECT DISTINCT run_uid FROM score").to_pylist()

        assert found == [{"run_uid": "good"}]
        for name in planted_names():
            assert name in caplog.text

    @pytest.mark.parametrize("table", ["score", "runs"])
    def test_a_run_whose_file_is_torn_is_told_and_written_again_is_whole(
        self, store: AnalyticsStore, twin: AnalyticsStore, raw: Storage, table: str
    ) -> None:
        """A run that has records is never said to have none."""
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
    def test_a_run_whose_records_are_gone_is_told(
        self, store: AnalyticsStore, twin: AnalyticsStore, raw: Storage, compacted: bool
    ) -> None:
        """Neither an empty answer nor a run that is not there."""
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

    def test_a_torn_compacted_file_is_told_when_a_run_is_looked_for(
        self, store: AnalyticsStore, twin: AnalyticsStore, raw: Storage
    ) -> None:
        """That there is no such run would be believed."""
        store.write([a_run("one")])
        store.compact(clear=True)
        (key,) = (entry.key for entry in raw.list("runs"))
        raw.put(key, raw.get(key)[:100])

        with pytest.raises(RunNotFoundError, match=f"may be in what cannot be read: .*{key}"):
            twin.read_run("one")

    # Compaction

    def test_compaction_makes_few_files_of_many_and_changes_no_answer(
        self, store: AnalyticsStore, twin: AnalyticsStore, raw: Storage
    ) -> None:
        """Nor does a run's address change."""
        for run in some_runs(12):
            store.write([run])
        before = twin.read_run("run-3")

        first, second = store.compact(), store.compact()

        assert (first.replaced, first.created) == (24, 2)
        assert (second.replaced, second.deleted) == (0, 24)
        assert [len(list(raw.list(table))) for table in ("runs", "score")] == [1, 1]
        assert times_seen(twin) == once(12)
        assert twin.read_run("run-3") == before
        assert twin.get_run_uri("run-3") == store.get_run_uri("run-3")

    def test_a_compaction_in_rounds_loses_and_doubles_no_run(
        self, store: AnalyticsStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A hundred thousand files are too many for one; sets share runs across rounds."""
        monkeypatch.setattr(store_module, "THOROUGH", RoundLimits(files=2, size=inf, growth=None))
        store.write(some_runs(3))
        store.write(some_runs(17, first=1))
        store.write(some_runs(17, first=2))

        report = store.compact(clear=True)

        assert report.left == 0
        assert times_seen(store) == once(19)
        assert len(store.compact().passed_over) == 0

    def test_a_compacted_run_that_is_written_again_stays_as_it_was(
        self, store: AnalyticsStore, twin: AnalyticsStore
    ) -> None:
        """A retry may come long after."""
        store.write(some_runs(3, value=1))
        store.compact()
        store.compact()
        twin.write(some_runs(4, value=2))

        for _ in range(3):
            assert times_seen(store) == once(4)
            changed = "SELECT run_uid FROM score WHERE value = 2 GROUP BY run_uid"
            assert _query(store, changed) == [{"run_uid": "run-3"}]
            twin.compact()

    def test_of_compactions_at_once_no_run_is_lost_or_doubled(
        self, store: AnalyticsStore, twin: AnalyticsStore, raw: Storage
    ) -> None:
        """One wins, the others leave nothing that counts."""
        for turn in range(3):
            store.write(some_runs(4, first=4 * turn))
            at_once([store.compact, twin.compact, store.compact])
            assert times_seen(twin) == once(4 * turn + 4)

        store.compact()
        assert len(list(raw.list("score"))) == 1

    @pytest.mark.parametrize("before", [False, True], ids=["the first", "another"])
    @pytest.mark.parametrize("read", READS)
    def test_a_read_is_right_whatever_is_compacted_between_two_of_its_steps(
        self, store: AnalyticsStore, read: str, before: bool
    ) -> None:
        """All that was written before it is there once; files vanish as it comes to them."""
        step, interrupted = 0, True
        while interrupted:
            step += 1
            place = {"uri": f"{store.uri}/{step}"}
            other = open_store(store.config.model_copy(update=place))
            other.write([a_run("old")])
            if before:
                other.compact(clear=True)
            other.write([a_run("new")])
            between = partial(_write_and_compact, other, "between")
            reader = interrupted_store(other, at=step, by=between)
            seen = READS[read](reader)
            interrupted = cast(Interrupted, reader._storage).happened  # noqa: SLF001 - our own
            assert {"old", "new"} <= set(seen)
            assert set(seen.values()) == {2}
        assert step > 4

    def test_readers_see_every_run_once_while_it_is_written_and_compacted(
        self, store: AnalyticsStore, twin: AnalyticsStore
    ) -> None:
        """The count never shrinks, and no run is there twice."""
        written = iter(range(100_000))

        def write() -> None:
            store.write(some_runs(1, first=next(written)))

        reader, before = open_store(store.config), 0
        store.write([a_run("first")])
        with in_the_background(write), in_the_background(twin.compact):
            for _ in range(self.rounds):
                seen = times_seen(reader)
                assert set(seen.values()) == {1}
                assert len(seen) >= before
                before = len(seen)

    def test_a_store_can_be_proven_writable_and_is_left_as_it_was(
        self, store: AnalyticsStore, raw: Storage
    ) -> None:
        """Whoever configures wants to know before the work is done."""
        store.check_writable()

        assert list(raw.list(recursive=True)) == []


def planted(raw: Storage) -> dict[str, bytes]:
    """Return what to put where: a torn, a later and two foreign files for the table `score`."""
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
    """Return the keys of `planted`."""
    keys = [file_key("score", stem_of([name])) for name in ("torn", "later")]
    return [*keys, "score/foreign.parquet", "score/README.txt"]


def _of_a_later_version(data: bytes) -> bytes:
    import io

    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = pq.read_table(pa.BufferReader(data))
    out = io.BytesIO()
    pq.write_table(rows.replace_schema_metadata({"batchrunner.table_format": "2"}), out)
    return out.getvalue()
