"""Recorded runs side by side: totals, seconds, failures, and the values in which their records differ."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from statistics import quantiles
from typing import Any

from batchrunner.analytics import AnalyticsStore, RecordedRun
from batchrunner.analytics.batch_records import BatchRunRecord, BatchShardRecord
from batchrunner.analytics.comparison import compare
from batchrunner.analytics.record import Row

_MANY_ROWS = 200
"""Rows of one table from which it is summed up, not compared row by row."""
_COUNTS = ("shards", "rows_in", "rows_out", "rows_failed")


@dataclass(frozen=True, slots=True)
class RecordedFacts:
    """One recorded run, in numbers.

    Attributes:
        run_uid: Names the run in the store.
        capability_id: Name of the capability.
        created_at: When it was recorded.
        totals: The numbers of its batch (shards, sessions, rows, bytes, seconds), if it is one.
        asked: What that batch was: capability, source, sink, fingerprint, tags.
        shard_seconds: Median, 95th percentile and maximum of its shards' seconds; empty if unknown.
        records: How many records it has, by table.
    """

    run_uid: str
    capability_id: str
    created_at: datetime
    totals: Mapping[str, float]
    asked: Mapping[str, str]
    shard_seconds: tuple[float, ...]
    records: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class DifferentValue:
    """A value that differs between runs.

    Attributes:
        table: Table of the records.
        where: The columns, with their values, by which the records were matched.
        column: The column that differs.
        values: Its value in each run; None also where a run has no such record.
    """

    table: str
    where: str
    column: str
    values: tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class RunsReport:
    """Recorded runs side by side; the others are held against the first.

    Attributes:
        store: URI of the analytics store.
        made: When the report was made.
        runs: The runs, in the order asked for.
        differences: The values in which they differ, by table.
        on: Columns by which records were matched; empty for all their columns of text.
        summed_up: Tables that are not compared one by one: those of many rows, and the shards of batches.
    """

    store: str
    made: datetime
    runs: tuple[RecordedFacts, ...]
    differences: tuple[DifferentValue, ...]
    on: tuple[str, ...]
    summed_up: tuple[str, ...]

    @property
    def are_batches(self) -> bool:
        """Whether all runs are batches, of which the totals say in what they differ."""
        return all(run.totals for run in self.runs)

    @property
    def differing_totals(self) -> tuple[str, ...]:
        """In what the batches differ, in words: shards, rows, spec or code."""
        read: dict[str, list[float | str | None]] = {
            name: [run.totals.get(name) for run in self.runs] for name in _COUNTS
        }
        read["spec or code"] = [run.asked.get("fingerprint") for run in self.runs]
        return tuple(name.replace("_", " ") for name, all_ in read.items() if len({*all_}) > 1)

    def to_dict(self) -> dict[str, Any]:
        """Return the report as values; times are `datetime`."""
        return {"version": 1, **asdict(self)}

    def to_html(self) -> str:
        """Return the report as one HTML page that needs no network."""
        from batchrunner.views.report_runs_html import html_of

        return html_of(self)


def runs_report(
    store: AnalyticsStore, run_uids: Sequence[str], *, on: Collection[str] = ()
) -> RunsReport:
    """Compare the runs *run_uids* of *store*, at least one.

    *on* are columns to match records by, instead of all their columns of text.

    Raises:
        InvalidSpecError: No record has one of the columns in *on*.
        RunNotFoundError: The store has no such run.
        StorageError: The store cannot be read.
    """
    runs = [store.read_run(run_uid) for run_uid in run_uids]
    many = {
        table for run in runs for table, rows in run.records.items() if _is_many(table, rows, on)
    }
    # What a batch has in numbers stands in the totals.
    without = {*many, BatchRunRecord.table_name}
    return RunsReport(
        store=store.uri,
        made=datetime.now(UTC),
        runs=tuple(_facts(run) for run in runs),
        differences=tuple(_differences(runs[0], runs[1:], on=on, without=without)),
        on=tuple(on),
        summed_up=tuple(sorted(many)),
    )


def _is_many(table: str, rows: Sequence[Row], on: Collection[str]) -> bool:
    """Return whether *rows* are summed up. Shards always are, unless they are asked for by a column."""
    asked = rows and any(column in rows[0] for column in on)
    return len(rows) > _MANY_ROWS or (table == BatchShardRecord.table_name and not asked)


def _facts(run: RecordedRun) -> RecordedFacts:
    batch = next(iter(run.records.get(BatchRunRecord.table_name, ())), {})
    numbers = ("shards", "sessions", "rows_in", "rows_out", "rows_failed", "bytes_out", "seconds")
    texts = ("capability", "source_uri", "sink_uri", "fingerprint", "tags")
    shards = run.records.get(BatchShardRecord.table_name, ())
    return RecordedFacts(
        run_uid=run.run_uid,
        capability_id=run.capability_id,
        created_at=run.runs[0]["created_at"],
        totals={name: batch[name] for name in numbers if batch.get(name) is not None},
        asked={name: batch[name] for name in texts if batch.get(name)},
        shard_seconds=_spread([row["seconds"] for row in shards if row.get("seconds") is not None]),
        records={table: len(rows) for table, rows in run.records.items()},
    )


def _spread(seconds: Sequence[float]) -> tuple[float, ...]:
    if len(seconds) < 2:
        return tuple(seconds) * 3
    steps = quantiles(seconds, n=20, method="inclusive")
    return steps[9], steps[18], max(seconds)


def _differences(
    first: RecordedRun,
    others: Sequence[RecordedRun],
    *,
    on: Collection[str],
    without: Collection[str],
) -> list[DifferentValue]:
    found: dict[tuple[str, str, str], list[Any]] = {}
    for number, other in enumerate(others, 1):
        for one in compare(first, other, on=on, without=without):
            if any(f"{one.column}={value}" in one.where for value in (one.first, one.second)):
                continue  # what a record is found by, where the other run has no such record
            key = one.table, one.where, one.column
            # Where another run does not differ from the first, it has the value of the first.
            values = found.setdefault(key, [one.first] * (len(others) + 1))
            values[number] = one.second
    return [DifferentValue(*key, tuple(values)) for key, values in sorted(found.items())]
