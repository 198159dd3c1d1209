"""Completed runs: objects that a caller passes to the store, and the rows written for them."""

from __future__ import annotations

import getpass
import platform
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Annotated, Any, Protocol

from pydantic import AfterValidator, Field

from batchrunner import __version__
from batchrunner.analytics.record import RUNS, ColumnType, RecordLike, Row, checked_table
from batchrunner.analytics.reports import CapabilityReport, report_of, report_uri
from batchrunner.errors import InvalidRecordError
from batchrunner.spec.section import Section

RUN_COLUMNS: dict[str, ColumnType] = {
    "run_uid": ColumnType.STRING,
    "created_at": ColumnType.TIMESTAMP,
    "capability_id": ColumnType.STRING,
    "capability_table": ColumnType.STRING,
    "entity_type": ColumnType.STRING,
    "entity_id": ColumnType.STRING,
    "outputs_uri": ColumnType.STRING,
    "user": ColumnType.STRING,
    "host": ColumnType.STRING,
    "backend": ColumnType.STRING,
    "job_id": ColumnType.STRING,
    "batch_uid": ColumnType.STRING,
    "submitted_at": ColumnType.TIMESTAMP,
    "completed_at": ColumnType.TIMESTAMP,
    "batchrunner_version": ColumnType.STRING,
    "python_version": ColumnType.STRING,
}
"""Columns of the `runs` table: one row for each pair of payload table and entity of a run, at least
one."""

RUN_WANTED = (
    "return a run: an object with `run_uid`, `capability_id` and `extract()`, such as "
    "batchrunner.analytics.CompletedRun(run_uid, capability_id, records)"
)
"""Ends the error message for a result that is not a run."""

_ENTITIES = ("dataset", "model", "metric")


def _in_utc(value: datetime | None) -> datetime | None:
    if value is None:
        return None
    if value.utcoffset() is None:
        raise ValueError("must say its time zone: datetime.now(UTC), not datetime.now()")
    return value.astimezone(UTC)


_Moment = Annotated[datetime | None, AfterValidator(_in_utc)]


class Provenance(Section):
    """Who made a run, where and when. For information only: nothing in the store depends on it."""

    user: str | None = Field(default=None, description="Who ran it.")
    host: str | None = Field(default=None, description="The machine that ran it.")
    backend: str | None = Field(default=None, description="The job backend, if it was a job.")
    job_id: str | None = Field(default=None, description="The job, if it was one.")
    batch_uid: str | None = Field(default=None, description="The batch that it was part of.")
    submitted_at: _Moment = Field(default=None, description="When it was asked for.")
    completed_at: _Moment = Field(default=None, description="When it was done.")
    batchrunner_version: str | None = Field(default=None, description="What recorded it.")
    python_version: str | None = Field(default=None, description="What ran it.")

    @classmethod
    def here(cls, given: Provenance | Mapping[str, Any] | None = None) -> Provenance:
        """Return *given*, with its missing fields filled in from this process and its clock.

        Raises:
            InvalidSpecError: A field does not exist, or a time has no time zone.
        """
        provenance = given if isinstance(given, Provenance) else cls(**(given or {}))
        filled = {name: value for name, value in provenance if value is not None}
        return cls(**{**_this_process(), **filled})


def _this_process() -> dict[str, Any]:
    return {
        "user": _user(),
        "host": platform.node(),
        "completed_at": datetime.now(UTC),
        "batchrunner_version": __version__,
        "python_version": platform.python_version(),
    }


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # the uid has no name, as in some containers
        return "unknown"


class RunLike(Protocol):
    """A run that the store accepts: any object with these members. It needs no base class.

    Optional, and recorded too: `dataset_metadata`, `model_metadata` and `metric_metadata`
    (sequences of mappings with an "id"), `outputs_uri`, and `collect_md_report()`, whose Markdown
    is stored beside the records.
    """

    @property
    def run_uid(self) -> str:
        """Name of the run: the same capability, configuration and inputs give the same name."""

    @property
    def capability_id(self) -> str:
        """Name of the capability."""

    def extract(self) -> Sequence[RecordLike]:
        """Return the run's records, each with its `run_uid`. The sequence may be empty."""


@dataclass(frozen=True, slots=True)
class CompletedRun:
    """A run, put together by the caller to be recorded.

    Attributes:
        run_uid: Name of the run.
        capability_id: Name of the capability.
        records: Its records, for any number of tables.
        dataset_metadata, model_metadata, metric_metadata: What it ran on: mappings with an "id".
        outputs_uri: URI of its files.
        report: Its report, in Markdown.
    """

    run_uid: str
    capability_id: str
    records: Sequence[RecordLike] = ()
    dataset_metadata: Sequence[Mapping[str, Any]] = ()
    model_metadata: Sequence[Mapping[str, Any]] = ()
    metric_metadata: Sequence[Mapping[str, Any]] = ()
    outputs_uri: str | None = None
    report: str | None = None

    def extract(self) -> Sequence[RecordLike]:
        """Return the records."""
        return self.records

    def collect_md_report(self) -> str:
        """Return the report; "" if there is none."""
        return self.report or ""


@dataclass(frozen=True, slots=True)
class RunRows:
    """One run, ready to be written.

    Attributes:
        run_uid: Name of the run.
        capability_id: Name of the capability.
        outputs_uri: URI of its files; by default, that of its report.
        records: Its records, by table.
        report: Its report, in Markdown, if the store is to keep one.
        runs: Its rows of the `runs` table.
    """

    run_uid: str
    capability_id: str
    outputs_uri: str | None
    records: Mapping[str, Sequence[RecordLike]]
    runs: Sequence[Row] = field(repr=False)
    report: str | None = field(default=None, repr=False)


def rows_of(run: RunLike, *, store_uri: str, provenance: Provenance, now: datetime) -> RunRows:
    """Return the rows to write for *run*. Calls its `extract`, and its `collect_md_report` if any.

    Raises:
        InvalidRecordError: *run* has no `run_uid`, or a record belongs to another run.
    """
    if not run.run_uid or not isinstance(run.run_uid, str):
        raise InvalidRecordError(
            f"a run of {run.capability_id} has the run_uid {run.run_uid!r}; it needs a name, a text"
        )
    records = _by_table(run)
    report = report_of(run) or CapabilityReport()
    stored_at = report_uri(store_uri, run.run_uid) if report.text else None
    outputs_uri = getattr(run, "outputs_uri", None) or report.uri or stored_at
    shared = {
        "run_uid": run.run_uid,
        "created_at": now,
        "capability_id": str(run.capability_id),
        "outputs_uri": outputs_uri,
        **dict(provenance),
    }
    # At least one row, or a run without records and entities would leave no trace.
    no_entity: list[tuple[str | None, str | None]] = [(None, None)]
    rows = [
        {**shared, "capability_table": table, "entity_type": kind, "entity_id": entity}
        for table in records or [None]
        for kind, entity in list(_entities(run)) or no_entity
    ]
    capability_id = str(run.capability_id)
    return RunRows(run.run_uid, capability_id, outputs_uri, records, rows, report.text)


def _by_table(run: RunLike) -> dict[str, list[RecordLike]]:
    tables: dict[str, list[RecordLike]] = {}
    records = run.extract()
    if not isinstance(records, Iterable):
        raise InvalidRecordError(
            f"run {run.run_uid}: its extract() returned {records!r}; return a list of records"
        )
    for record in records:
        table = checked_table(getattr(record, "table_name", None))
        owner = getattr(record, "run_uid", None)
        if table == RUNS:
            raise InvalidRecordError(
                f"run {run.run_uid}: the store itself fills the table {RUNS!r}; give the record "
                "another table_name"
            )
        if owner != run.run_uid:
            raise InvalidRecordError(
                f"run {run.run_uid}: a record of table {table!r} has run_uid {owner!r}; "
                "give every record the run_uid of its run"
            )
        tables.setdefault(table, []).append(record)
    return tables


def _entities(run: RunLike) -> Iterator[tuple[str, str]]:
    for kind in _ENTITIES:
        metadata: Iterable[Any] = getattr(run, f"{kind}_metadata", None) or ()
        items = [metadata] if isinstance(metadata, Mapping) else metadata
        for entity in dict.fromkeys(_id_of(item, run=run, kind=kind) for item in items):
            yield kind, entity


def _id_of(item: Any, *, run: RunLike, kind: str) -> str:
    if not isinstance(item, Mapping) or "id" not in item:
        raise InvalidRecordError(f'run {run.run_uid}: its {kind}_metadata has no "id": give it one')
    return str(item["id"])
