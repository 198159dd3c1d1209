"""store: the analytics store with ten runs and with 100,000, beside two that one might use instead.

One of 100,000 that nobody ever compacted is read by a process of its own; another, in which no writer
put anything together either, is compacted.

`python -m benchmarks --only store`, or this file alone: `python benchmarks/workloads/store.py 0.01`
prints the same as JSON. deltalake takes part where it is installed (pip install deltalake).
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

from batchrunner.analytics import AnalyticsStore, CompletedRun, Provenance, Record, open_store
from batchrunner.analytics.completed_run import rows_of
from batchrunner.analytics.writing import write_rows
from batchrunner.storage.disk import durability
from batchrunner.storage.disk import storage as local

RUNS, FEW, WRITES, LAPS = 100_000, 10, 40, 5
SETS = 1000
"""Runs of one append to the Delta table: one append a run would take hours to build."""
LATEST = 20

SYNCS = """A write is one run with one record in two tables: ours is durable when it returns, every
file and folder synced, and idempotent; a plain file is neither."""
DELTA = f"""The Delta tables were built by appends of {SETS} runs, and optimized before they were
asked; a run that is appended to two tables, one after the other, may be in one of them only."""

AGGREGATE = """SELECT r.entity_id, count(*) AS runs, avg(s.accuracy) AS mean, max(s.accuracy) AS best
FROM {score} s JOIN {runs} r ON s.run_uid = r.run_uid
WHERE r.entity_type = 'dataset' GROUP BY r.entity_id ORDER BY best DESC"""
NEWEST = (
    "SELECT run_uid, max(created_at) AS latest FROM {runs} GROUP BY 1 ORDER BY latest DESC LIMIT 20"
)


class Evaluation(Record, table_name="evaluation"):
    accuracy: float
    loss: float
    images: int
    metric: str


def a_run(number: int) -> CompletedRun:
    """Return run *number*: one record, on one of twenty datasets with one of five models."""
    uid = f"{number:064x}"
    record = Evaluation(
        run_uid=uid, accuracy=(number * 7919 % 1000) / 1000, loss=1.5, images=number, metric="top1"
    )
    return CompletedRun(
        uid,
        "benchmarks.Evaluation",
        [record],
        dataset_metadata=[{"id": f"dataset-{number % 20}"}],
        model_metadata=[{"id": f"model-{number % 5}"}],
    )


def measure(size: Any) -> Any:
    """Measure, for `python -m benchmarks`."""
    from benchmarks.results import Goal, Result, Standing

    found = measured(scale=size.scale, laps=size.laps)
    standings = [Standing(**one) for one in found.pop("standings")]
    goals = [Goal(**one) for one in found.pop("goals")]
    return Result(**found, standings=standings, goals=goals)


def measured(*, scale: float, laps: int) -> dict[str, Any]:
    """Build the stores, time everything, and return what a `Result` holds."""
    count = max(round(RUNS * scale), 100)
    with _folder() as folder:
        few, many = _built(folder / "few", FEW), _built(folder / "many", count, folded=False)
        left = _built(folder / "left", count)
        rivals = [_Plain(folder / "plain", many), *_delta(folder / "delta", count=count)]
        _warm_up(few, [many, *rivals])
        standings = _writes(few, many, rivals, count=count)
        before = _timed(lambda: _list_anew(left), laps=laps)
        asked = _timed(lambda: left.query_sql(_ours(AGGREGATE)), laps=laps)
        compacting = _timed(many.compact, laps=1)
        standings += [
            _standing(
                f"ours: list the latest 20 of {count:,}, never compacted, new process", before
            ),
            _standing(f"ours: one SQL aggregate of {count:,}, never compacted", asked),
            _standing(f"ours: compact {count:,} runs ({2 * count:,} files)", compacting),
        ]
        many.compact()
        listing = _timed(lambda: many.list_runs(limit=LATEST), laps=laps)
        asking = _timed(lambda: many.query_sql(_ours(AGGREGATE)), laps=laps)
        standings += [
            _standing("ours: list the latest 20, compacted", listing),
            _standing("ours: one SQL aggregate, compacted", asking),
        ]
        for rival in rivals:
            rival.tidy()
            for what, sql in (("list the latest 20", NEWEST), ("one SQL aggregate", AGGREGATE)):
                seconds = _timed(partial(rival.ask, sql), laps=min(laps, 2))
                standings.append(_standing(f"{rival.name}: {what}", seconds))
        answers = {str(sorted(_rounded(many.query_sql(_ours(AGGREGATE)).to_pylist())))} | {
            str(sorted(_rounded(rival.ask(AGGREGATE)))) for rival in rivals
        }
    flat = _median(standings[1]) / _median(standings[0])
    return {
        "workload": "store",
        "title": f"the analytics store with {count:,} runs, a file each in two tables",
        "place": str(Path(tempfile.gettempdir())),
        "standings": standings,
        "goals": [
            _goal(
                f"a write among {count:,} runs, by one among {FEW}: at most 1.5", flat, 1.5, "times"
            ),
            _goal(
                "list the latest 20, never compacted, in a new process: at most 1 s",
                statistics.median(before),
                1.0,
            ),
            _goal("list the latest 20, compacted: at most 1 s", statistics.median(listing), 1.0),
            _goal("one SQL aggregate, compacted: at most 1 s", statistics.median(asking), 1.0),
            _goal("different answers to the aggregate: 1", float(len(answers)), 1.0, ""),
        ],
        "notes": [SYNCS, DELTA],
    }


# Ours


def _built(folder: Path, count: int, *, folded: bool = True) -> AnalyticsStore:
    """Return a store of *count* runs, each in files of its own, written by several processes.

    *folded* by its writers, as any store is, or as if there were none who look after it.
    """
    store = open_store(folder)
    store.write([a_run(0)])
    workers = os.cpu_count() or 1
    with ProcessPoolExecutor(workers) as pool:
        each = [(str(folder), range(first, count, workers), folded) for first in range(workers)]
        list(pool.map(_build, *zip(*each, strict=True)))
    return store


def _build(folder: str, numbers: range, folded: bool) -> None:
    """Write runs as the store does, but without syncs: this takes minutes as it is."""
    durability._sync_each = lambda _: None  # noqa: SLF001 - only to build faster
    local.sync_folder = durability.sync_folder = lambda _: None
    store = open_store(folder)
    told, start = Provenance.here(), datetime(2026, 1, 1, tzinfo=UTC)
    for number in numbers:
        rows = rows_of(
            a_run(number), store_uri="store", provenance=told, now=start + timedelta(seconds=number)
        )
        new = write_rows([rows], storage=store._storage, schemas=store._schemas)  # noqa: SLF001 - likewise
        if folded:
            store._background.after_write(new)  # noqa: SLF001 - as `write` does


def _list_anew(store: AnalyticsStore) -> None:
    """List the latest runs in a new process."""
    program = (
        "import sys; from batchrunner.analytics import open_store as o; o(sys.argv[1]).list_runs()"
    )
    subprocess.run([sys.executable, "-c", program, store.uri], check=True)


def _ours(sql: str) -> str:
    return sql.format(runs="runs", score="evaluation")


def _writes(
    few: AnalyticsStore, many: AnalyticsStore, rivals: list[Any], *, count: int
) -> list[dict[str, Any]]:
    """Time single writes, in turns, so that a busy moment of the disk hits all alike."""
    names = [f"ours: write one run among {FEW}", f"ours: write one run among {count:,}"]
    calls: dict[str, Callable[[CompletedRun], object]] = {
        names[0]: lambda run: few.write([run]),
        names[1]: lambda run: many.write([run]),
        **{f"{rival.name}: write one run among {count:,}": rival.write for rival in rivals},
    }
    times: dict[str, list[float]] = {name: [] for name in calls}
    for number in range(WRITES):
        for name, call in calls.items():
            run = a_run(RUNS * 10 + number)
            times[name] += _timed(partial(call, run), laps=1)
    return [_standing(name, seconds) for name, seconds in times.items()]


# The others


class _Plain:
    """A directory of Parquet files for each table, a file for each run; read by DuckDB."""

    name = "plain directory"

    def __init__(self, folder: Path, store: AnalyticsStore) -> None:
        shutil.copytree(
            store.uri, folder, ignore=lambda _, names: [n for n in names if n[0] in "._"]
        )
        self._folder = folder

    def write(self, run: CompletedRun) -> None:
        import pyarrow.parquet as pq

        for table, rows in _tables(run).items():
            pq.write_table(rows, self._folder / table / f"{run.run_uid}.parquet")

    def tidy(self) -> None:
        """Do nothing: there is no compaction."""

    def ask(self, sql: str) -> list[dict[str, Any]]:
        import duckdb

        files = {
            name: f"read_parquet('{self._folder}/{table}/*.parquet', union_by_name=true)"
            for name, table in (("runs", "runs"), ("score", "evaluation"))
        }
        with duckdb.connect() as connection:
            return list(connection.sql(sql.format(**files)).to_arrow_table().to_pylist())


class _Delta:
    """Two Delta tables."""

    name = "deltalake"

    def __init__(self, folder: Path, *, count: int) -> None:
        self._folder = folder
        for first in range(0, count, SETS):
            rows: dict[str, list[Any]] = {"runs": [], "evaluation": []}
            for number in range(first, min(first + SETS, count)):
                for table, one in _tables(a_run(number), at=number).items():
                    rows[table].append(one)
            self._append(rows)

    def _append(self, rows: dict[str, list[Any]]) -> None:
        import pyarrow as pa
        from deltalake import write_deltalake

        for table, pieces in rows.items():
            write_deltalake(self._folder / table, pa.concat_tables(pieces), mode="append")

    def write(self, run: CompletedRun) -> None:
        self._append({table: [rows] for table, rows in _tables(run).items()})

    def tidy(self) -> None:
        from deltalake import DeltaTable

        for table in ("runs", "evaluation"):
            DeltaTable(self._folder / table).optimize.compact()

    def ask(self, sql: str) -> list[dict[str, Any]]:
        import duckdb
        from deltalake import DeltaTable

        with duckdb.connect() as connection:
            for name, table in (("runs", "runs"), ("score", "evaluation")):
                files = DeltaTable(self._folder / table).file_uris()
                connection.execute(f"CREATE VIEW {name} AS FROM read_parquet({files})")
            found = connection.sql(sql.format(runs="runs", score="score"))
            return list(found.to_arrow_table().to_pylist())


def _delta(folder: Path, *, count: int) -> Iterator[_Delta]:
    try:
        import deltalake  # noqa: F401 - is it there?
    except ImportError:
        print("  deltalake is not installed, and takes no part", file=sys.stderr)
        return
    yield _Delta(folder, count=count)


def _tables(run: CompletedRun, *, at: int = RUNS * 10) -> dict[str, Any]:
    """Return the rows of *run*, as the store would write them, by table."""
    from batchrunner.analytics.completed_run import RUN_COLUMNS
    from batchrunner.analytics.record import columns_of
    from batchrunner.analytics.table_files import table_of_rows

    now = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=at)
    rows = rows_of(run, store_uri="store", provenance=Provenance(user="bench"), now=now)
    records = [record.model_dump() for record in run.records]
    return {
        "evaluation": table_of_rows("evaluation", records, columns=columns_of(Evaluation)),
        "runs": table_of_rows("runs", rows.runs, columns=RUN_COLUMNS),
    }


# Timing


def _timed(work: Callable[[], object], *, laps: int) -> list[float]:
    seconds = []
    for _ in range(laps):
        began = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - began)
    return seconds


def _standing(name: str, seconds: list[float]) -> dict[str, Any]:
    rounded = [round(second, 5) for second in seconds]
    print(f"  {name}: {statistics.median(rounded):.4f} s", file=sys.stderr, flush=True)
    return {
        "contestant": name,
        "seconds": rounded,
        "median": statistics.median(rounded),
        "min": min(rounded),
        "max": max(rounded),
    }


def _median(standing: dict[str, Any]) -> float:
    return float(standing["median"])


def _goal(text: str, measured: float, bound: float, unit: str = "s") -> dict[str, Any]:
    return {"text": text, "measured": measured, "bound": bound, "unit": unit}


def _rounded(rows: list[dict[str, Any]]) -> list[tuple[Any, ...]]:
    return [(row["entity_id"], row["runs"], round(row["mean"], 6), row["best"]) for row in rows]


def _warm_up(few: AnalyticsStore, large: list[Any]) -> None:
    """Import everything, and write out what was built: neither is to be measured."""
    few.list_runs()
    few.query_sql(_ours(AGGREGATE))
    large[0].write([a_run(RUNS * 20)])
    for rival in large[1:]:
        rival.write(a_run(RUNS * 20))
    os.sync()


@contextmanager
def _folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="bench-store-") as folder:
        yield Path(folder)


if __name__ == "__main__":
    print(json.dumps(measured(scale=float((sys.argv[1:] or ["1"])[0]), laps=LAPS), indent=1))
