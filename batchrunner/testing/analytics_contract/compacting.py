"""Promises of compaction: no run is lost or doubled, whatever else happens meanwhile."""
# A test suite, although it is shipped.
# ruff: noqa: S101

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from functools import partial
from math import inf
from typing import Any, ClassVar, cast

import pytest

from batchrunner.analytics import AnalyticsStore, open_store
from batchrunner.analytics import store as store_module
from batchrunner.analytics.compaction_input import RoundLimits
from batchrunner.storage import Storage
from batchrunner.testing.analytics_contract.runs import (
    Interrupted,
    a_run,
    in_the_background,
    interrupted_store,
    once,
    query,
    some_runs,
    times_seen,
)
from batchrunner.testing.storage_contract import at_once


def _write_and_compact(store: AnalyticsStore, name: str) -> None:
    store.write([a_run(name)])
    store.compact(clear=True)


def _counted(rows: Iterable[dict[str, Any]]) -> dict[str, int]:
    return dict(Counter(row["run_uid"] for row in rows))


READS: dict[str, Callable[[AnalyticsStore], dict[str, int]]] = {
    "sql": lambda store: _counted(query(store, "SELECT run_uid FROM score")),
    "runs": lambda store: {run.run_uid: 2 for run in store.list_runs(limit=1000)},
}


class CompactionContract:
    """Tests of what `compact` promises."""

    rounds: ClassVar[int] = 5

    def test_compaction_makes_few_files_of_many_and_changes_no_answer(
        self, store: AnalyticsStore, twin: AnalyticsStore, raw: Storage
    ) -> None:
        """A run's address does not change either."""
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
        """One round cannot take a hundred thousand files; sets share runs across rounds."""
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
        """A writer may repeat its write after the run was compacted."""
        store.write(some_runs(3, value=1))
        store.compact()
        store.compact()
        twin.write(some_runs(4, value=2))

        for _ in range(3):
            assert times_seen(store) == once(4)
            changed = "SELECT run_uid FROM score WHERE value = 2 GROUP BY run_uid"
            assert query(store, changed) == [{"run_uid": "run-3"}]
            twin.compact()

    def test_of_compactions_at_once_no_run_is_lost_or_doubled(
        self, store: AnalyticsStore, twin: AnalyticsStore, raw: Storage
    ) -> None:
        """One compaction wins; readers ignore the files of the others."""
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
        """The read has all earlier runs once, though files vanish just before it opens them."""
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
            scores = READS[read](reader)
            interrupted = cast(Interrupted, reader._storage).happened  # noqa: SLF001 - our own
            assert {"old", "new"} <= set(scores)
            assert set(scores.values()) == {2}
        assert step > 4

    def test_readers_see_every_run_once_while_it_is_written_and_compacted(
        self, store: AnalyticsStore, twin: AnalyticsStore
    ) -> None:
        """The number of runs never shrinks, and no run appears twice."""
        written = iter(range(100_000))

        def write() -> None:
            store.write(some_runs(1, first=next(written)))

        reader, before = open_store(store.config), 0
        store.write([a_run("first")])
        with in_the_background(write), in_the_background(twin.compact):
            for _ in range(self.rounds):
                runs = times_seen(reader)
                assert set(runs.values()) == {1}
                assert len(runs) >= before
                before = len(runs)
