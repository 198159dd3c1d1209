"""Runs to record, counts of recorded runs, and a storage that interrupts a read."""
# A test suite, although it is shipped.
# ruff: noqa: S101

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, cast

from batchrunner.analytics import AnalyticsStore, CompletedRun, Record, open_store
from batchrunner.analytics.schemas import Schemas
from batchrunner.storage import Storage


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
    """Return a run named *name* with *scores* records, on two datasets and a model."""
    records = [Score(run_uid=name, value=value) for _ in range(scores)]
    return CompletedRun(
        name,
        "tests.Capability",
        records,
        dataset_metadata=[{"id": "cifar"}, {"id": "mnist"}],
        model_metadata=[{"id": "resnet"}],
    )


def some_runs(count: int, *, first: int = 0, value: float = 1.0) -> list[CompletedRun]:
    """Return *count* runs, named `run-0`, `run-1` and so on, from number *first*."""
    return [a_run(f"run-{number}", value=value) for number in range(first, first + count)]


def times_seen(store: AnalyticsStore, *, scores: int = 2) -> dict[str, int]:
    """Return how often the table `score` has each run; check the rows of `runs`, too."""
    counted = "(SELECT run_uid, count(*) AS n FROM {} GROUP BY run_uid)"
    rows = query(
        store,
        f"SELECT run_uid, runs.n AS rows, payload.n FROM {counted.format('runs')} runs "  # noqa: S608 - ours
        f"FULL JOIN {counted.format('score')} payload USING (run_uid)",
    )
    assert {row["rows"] for row in rows} == {3}, "not one row for each of three entities"
    assert all(row["n"] % scores == 0 for row in rows), "half a run"
    return {row["run_uid"]: row["n"] // scores for row in rows}


def once(count: int) -> dict[str, int]:
    """Return the result of `times_seen` for *count* numbered runs, each recorded once."""
    return {f"run-{number}": 1 for number in range(count)}


def query(store: AnalyticsStore, sql: str) -> list[dict[str, Any]]:
    return list(store.query_sql(sql).to_pylist())


@contextmanager
def in_the_background(work: Callable[[], object]) -> Iterator[None]:
    """Repeat *work* in a thread while the block runs; raise the exception of *work*, if any."""
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
    """A storage that calls the function *by* once, before read number *at*."""

    def __init__(self, storage: Storage, *, at: int, by: Callable[[], None]) -> None:
        self._inner, self._countdown, self._by = storage, at, by

    @property
    def happened(self) -> bool:
        """Whether *by* was called: there were *at* reads."""
        return self._countdown <= 0

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._inner, name)
        if name in {"list", "get", "head", "open"}:
            self._countdown -= 1
            if self._countdown == 0:
                self._by()
        return method


def interrupted_store(store: AnalyticsStore, *, at: int, by: Callable[[], None]) -> AnalyticsStore:
    """Return a store at the same place whose storage calls *by* before read number *at*."""
    reader = open_store(store.config)
    storage = cast(Storage, Interrupted(reader._storage, at=at, by=by))  # noqa: SLF001 - our own
    reader._storage, reader._schemas = storage, Schemas(storage)  # noqa: SLF001 - likewise
    return reader
