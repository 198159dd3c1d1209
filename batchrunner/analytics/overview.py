"""The runs of a store, a line each, the latest first."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from batchrunner.analytics.record import RUNS
from batchrunner.analytics.snapshot import Snapshot
from batchrunner.analytics.visibility import all_rows

if TYPE_CHECKING:
    import pyarrow as pa

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
    import pyarrow as pa
    import pyarrow.compute as pc

    if RUNS not in snapshot.schemas:
        return []
    rows = all_rows(snapshot, table=RUNS)
    moments = _matching(rows, which).group_by("run_uid").aggregate([("created_at", "max")])
    order = [("created_at_max", "descending"), ("run_uid", "ascending")]
    latest = moments.take(pc.sort_indices(moments, sort_keys=order)[: which.limit])["run_uid"]
    shown = rows.filter(pc.is_in(rows["run_uid"], pa.array(latest.to_pylist(), pa.string())))
    by_run: dict[str, list[Row]] = {uid: [] for uid in latest.to_pylist()}
    for row in shown.to_pylist():
        by_run[row["run_uid"]].append(row)
    return [RunSummary.of_rows(rows) for rows in by_run.values()]


def _matching(rows: pa.Table, which: RunFilter) -> pa.Table:
    import pyarrow.compute as pc

    if which.capability_id is not None:
        rows = rows.filter(pc.field("capability_id") == which.capability_id)
    if which.entity_id is not None:
        rows = rows.filter(pc.field("entity_id") == which.entity_id)
    return rows


def _entities(rows: Iterable[Row], kind: str) -> tuple[str, ...]:
    return _unique(row["entity_id"] for row in rows if row["entity_type"] == kind)


def _unique(values: Iterable[str | None]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(value for value in values if value is not None))
