"""The runs of a store, a line each, the latest first."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import reduce
from operator import and_
from typing import TYPE_CHECKING, Any

from batchrunner.analytics.record import RUNS
from batchrunner.analytics.snapshot import Snapshot
from batchrunner.analytics.visibility import rows_written, runs_written
from batchrunner.analytics.written_files import FILE

if TYPE_CHECKING:
    import pyarrow.dataset as ds

Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class RunSummary:
    """One recorded run.

    Attributes:
        run_uid: Names it.
        capability_id: What was run.
        created_at: When it was recorded, by the clock of the machine that did.
        user, host: Who ran it, and where.
        tables: Where it has records.
        datasets, models, metrics: What it ran on.
    """

    run_uid: str
    capability_id: str
    created_at: datetime
    user: str | None
    host: str | None
    tables: tuple[str, ...]
    datasets: tuple[str, ...]
    models: tuple[str, ...]
    metrics: tuple[str, ...]

    @classmethod
    def of_rows(cls, rows: Iterable[Row]) -> RunSummary:
        """Return the summary of one run from its rows of the `runs` table, at least one."""
        given = list(rows)
        first = given[0]
        return cls(
            first["run_uid"],
            first["capability_id"],
            first["created_at"],
            first["user"],
            first["host"],
            _unique(row["capability_table"] for row in given),
            *(_entities(given, kind) for kind in ("dataset", "model", "metric")),
        )


@dataclass(frozen=True, slots=True)
class RunFilter:
    """Which runs to list.

    Attributes:
        limit: At most so many.
        capability_id: Only those of this capability.
        entity_id: Only those that ran on this dataset, model or metric.
    """

    limit: int = 20
    capability_id: str | None = None
    entity_id: str | None = None


def latest_runs(snapshot: Snapshot, which: RunFilter) -> list[RunSummary]:
    """Return the latest runs, the newest first.

    Raises:
        ObjectNotFoundError: A compaction removed a file since: take another snapshot.
    """
    import pyarrow.dataset as ds

    if RUNS not in snapshot.schemas:
        return []
    runs = runs_written(snapshot, whole=True)
    written = rows_written(snapshot, RUNS, runs=runs).drop_columns([FILE])
    with snapshot.compacted(RUNS) as compacted:
        rows = ds.dataset([compacted.dataset(), ds.dataset(written)])
        latest = _latest(rows, which)
        # The other columns of these few runs only: there may be a hundred thousand more.
        shown = rows.to_table(filter=ds.field("run_uid").isin(latest))
    by_run: dict[str, list[Row]] = {uid: [] for uid in latest}
    for row in shown.to_pylist():
        by_run[row["run_uid"]].append(row)
    return [RunSummary.of_rows(rows) for rows in by_run.values()]


def _latest(rows: ds.Dataset, which: RunFilter) -> list[str]:
    """Return the `run_uid`s of the latest runs in *rows*, the newest first."""
    import pyarrow.compute as pc

    matching = rows.to_table(columns=["run_uid", "created_at"], filter=_condition(which))
    moments = matching.group_by("run_uid").aggregate([("created_at", "max")])
    order = [("created_at_max", "descending"), ("run_uid", "ascending")]
    latest = pc.select_k_unstable(moments, which.limit, sort_keys=order)
    return list(moments.take(latest)["run_uid"].to_pylist())


def _condition(which: RunFilter) -> ds.Expression | None:
    import pyarrow.dataset as ds

    asked = [("capability_id", which.capability_id), ("entity_id", which.entity_id)]
    conditions = [ds.field(name) == value for name, value in asked if value is not None]
    return reduce(and_, conditions) if conditions else None


def _entities(rows: Iterable[Row], kind: str) -> tuple[str, ...]:
    return _unique(row["entity_id"] for row in rows if row["entity_type"] == kind)


def _unique(values: Iterable[str | None]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(value for value in values if value is not None))
