"""Lists the latest runs of a store, with a summary of each."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from batchrunner.analytics.record import RUNS, Row
from batchrunner.analytics.snapshot import Snapshot
from batchrunner.analytics.written_files import FILE, rows_written, runs_written

if TYPE_CHECKING:
    import pyarrow as pa

_DECIDING = ["run_uid", "created_at", "capability_id", "entity_id"]
"""The columns that order and filter the runs."""

_SHOWN = [*_DECIDING, "user", "host", "capability_table", "entity_type"]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class RunSummary:
    """One recorded run, without its records.

    Attributes:
        run_uid: Name of the run.
        capability_id: Name of the capability.
        created_at: When it was recorded, by the clock of the machine that recorded it.
        user, host: Who ran it, and where.
        tables: Tables in which it has records.
        datasets, models, metrics: Ids of what it ran on.
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
        rows = list(rows)
        first = rows[0]
        return cls(
            first["run_uid"],
            first["capability_id"],
            first["created_at"],
            first["user"],
            first["host"],
            _unique(row["capability_table"] for row in rows),
            *(_entities(rows, kind) for kind in ("dataset", "model", "metric")),
        )


@dataclass(frozen=True, slots=True)
class RunFilter:
    """Selects the runs to list.

    Attributes:
        limit: Most runs to list.
        capability_id: List only runs of this capability.
        entity_id: List only runs on this dataset, model or metric.
    """

    limit: int = 20
    capability_id: str | None = None
    entity_id: str | None = None


def latest_runs(snapshot: Snapshot, which: RunFilter) -> list[RunSummary]:
    """Return the latest runs that match *which*, newest first.

    Raises:
        ObjectNotFoundError: A compaction removed a file since: take another snapshot.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    if RUNS not in snapshot.schemas and not snapshot.files[RUNS]:
        return []
    runs = runs_written(snapshot, whole=True)
    written = rows_written(snapshot, RUNS, runs=runs).drop_columns([FILE])
    with snapshot.compacted(RUNS) as compacted:
        deciding = [compacted.rows(place, _DECIDING) for place in range(len(compacted))]
        wanted = _latest(pa.concat_tables([*deciding, written.select(_DECIDING)]), which)
        # Read the other columns only from files that hold a wanted run: most files hold none.
        shown = [written.select(_SHOWN)] + [
            compacted.rows(place, _SHOWN)
            for place, rows in enumerate(deciding)
            if pc.any(pc.is_in(rows["run_uid"], wanted)).as_py()
        ]
    by_run: dict[str, list[Row]] = {uid: [] for uid in wanted.to_pylist()}
    for rows in shown:
        for row in _rows(rows.filter(pc.is_in(rows["run_uid"], wanted))):
            by_run[row["run_uid"]].append(row)
    return [RunSummary.of_rows(rows) for rows in by_run.values()]


def _latest(rows: pa.Table, which: RunFilter) -> pa.Array:
    """Return the `run_uid`s of the latest runs in *rows*, the newest first."""
    import pyarrow.compute as pc

    rows = _matching(rows, which)
    order = [("created_at", "descending"), ("run_uid", "ascending")]
    count = which.limit
    # A run has one row or several, so the first `limit` rows may hold fewer runs: double the number
    # of rows until they hold enough.
    while True:
        count = min(2 * count, len(rows))
        places = pc.select_k_unstable(rows, count, sort_keys=order)
        uids = rows["run_uid"].take(places).unique()
        if len(uids) >= which.limit or count == len(rows):
            return uids[: which.limit]


def _rows(rows: pa.Table) -> Iterator[Row]:
    """Yield *rows* as dictionaries."""
    import pyarrow as pa

    # Times are converted here: Arrow would import pandas for them if it is installed, which takes
    # longer than all the rest.
    place = rows.column_names.index("created_at")
    plain = rows.set_column(place, "created_at", rows["created_at"].cast(pa.int64()))
    for row in plain.to_pylist():
        yield {**row, "created_at": _EPOCH + timedelta(microseconds=row["created_at"])}


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
