"""The analytics store: the durable record of completed runs."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any

from batchrunner.analytics.background_compaction import BackgroundCompaction
from batchrunner.analytics.compaction import LIGHT, THOROUGH, CompactionReport, compact_once
from batchrunner.analytics.compaction_input import RoundLimits
from batchrunner.analytics.completed_run import Provenance, RunLike, rows_of
from batchrunner.analytics.integrity import log_passed_over, read_snapshot, retry_when_replaced
from batchrunner.analytics.querying import answer, question
from batchrunner.analytics.record import CapabilityRunRef, run_uid_of, run_uri, split_run_uri
from batchrunner.analytics.reports import report_key, report_uri
from batchrunner.analytics.run_lookup import RecordedRun, find_run
from batchrunner.analytics.run_summaries import RunFilter, RunSummary, latest_runs
from batchrunner.analytics.schemas import Schemas
from batchrunner.analytics.snapshot import ReadCache
from batchrunner.analytics.writing import WriteReceipt, write_rows
from batchrunner.analytics.written_files import all_rows
from batchrunner.errors import InvalidSpecError, ObjectNotFoundError, QueryError, UnsafeStorageError
from batchrunner.spec import AnalyticsStoreConfig
from batchrunner.storage import Storage, open_storage
from batchrunner.storage.contract import Options

if TYPE_CHECKING:
    import pyarrow as pa

_log = logging.getLogger(__name__)
_MOST_LOST_RACES = 5
"""A compaction ends after losing so many races: by then the winners have done its work."""
_PROBES = 3
"""Tries of `check_writable`: a compaction elsewhere may delete a probe, so that the storage looks
unsafe."""

StoreAddress = AnalyticsStoreConfig | CapabilityRunRef | Mapping[str, Any] | str | os.PathLike[str]


class AnalyticsStore:
    """Completed runs and their records, in tables that SQL can query.

    Safe with any number of writers, readers and compactors, in any number of threads, processes
    and machines. Durable: what a call of `write` recorded survives a power cut. Idempotent: each
    run is recorded once, by however many writers. Atomic: a reader sees a run whole or not at all.
    Picklable.

    Args:
        config: Where the store is. Nothing is read or written before the first call.
    """

    def __init__(self, config: AnalyticsStoreConfig) -> None:
        self.config = config
        self._storage: Storage = open_storage(config.uri, storage_options=config.storage_options)
        self._schemas = Schemas(self._storage)
        self._background = BackgroundCompaction(self._storage, partial(self._compact_once, LIGHT))

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.config,)

    def __repr__(self) -> str:
        return f"AnalyticsStore({self.config!r})"

    @property
    def uri(self) -> str:
        """URI of the store: absolute, without credentials."""
        return self.config.uri

    def write(
        self,
        runs: Iterable[RunLike],
        *,
        provenance: Provenance | Mapping[str, Any] | None = None,
    ) -> None:
        """Record *runs*, durably and each once; see `write_with_receipt`."""
        self.write_with_receipt(runs, provenance=provenance)

    def write_with_receipt(
        self,
        runs: Iterable[RunLike],
        *,
        provenance: Provenance | Mapping[str, Any] | None = None,
    ) -> WriteReceipt:
        """Record *runs* and return their addresses. Durable: on return they survive a power cut.

        Idempotent: a run that is recorded already stays as it is, even if the new one differs.
        Atomic: each run appears to readers whole or not at all; more than 16 runs of one call appear
        together. No existing data is read: the cost does not grow with the store.

        Args:
            runs: Objects with `run_uid`, `capability_id` and `extract()`; see `CompletedRun`.
            provenance: Who, where and when; missing fields are filled in from this process.

        Raises:
            InvalidRecordError: A record is not flat, has a value that does not fit, or belongs to
                another run. Nothing was written.
            SchemaConflictError: A column has another type in the store. No run was written.
            StorageError: The store cannot be written. Call again: runs are recorded once.
        """
        filled, now = Provenance.here(provenance), datetime.now(UTC)
        rows = [rows_of(run, store_uri=self.uri, provenance=filled, now=now) for run in runs]
        if not rows:
            return WriteReceipt((), frozenset())
        new = write_rows(rows, storage=self._storage, schemas=self._schemas)
        refs = tuple(
            CapabilityRunRef(
                run.run_uid, run.capability_id, run_uri(self.uri, run.run_uid), run.outputs_uri
            )
            for run in rows
        )
        extra = {"action": "runs_written", "runs": len(rows), "new_files": len(new)}
        _log.info("wrote %d runs to %s", len(rows), self.uri, extra=extra)
        self._background.after_write(new)
        return WriteReceipt(refs, new)

    def get_run_uri(self, run_uid: str) -> str:
        """Return the URI of a recorded run. `open_store` takes it, and compaction never breaks it.

        Raises:
            RunNotFoundError: There is no such run.
        """
        self._find(run_uid, records=False)
        return run_uri(self.uri, run_uid)

    def read_run(self, run: str | CapabilityRunRef) -> RecordedRun:
        """Return a run with all its records.

        Args:
            run: Its `run_uid`, its URI or its ref.

        Raises:
            RunNotFoundError: There is no such run.
        """
        return self._find(run_uid_of(run), records=True)

    def report_uri(self, run: str | CapabilityRunRef) -> str | None:
        """Return the URI of the report of a run; None when the store has none.

        Args:
            run: Its `run_uid`, its URI or its ref.
        """
        run_uid = run_uid_of(run)
        exists = self._storage.head(report_key(run_uid)) is not None
        return report_uri(self.uri, run_uid) if exists else None

    def read_report(self, run: str | CapabilityRunRef) -> str | None:
        """Return the report of a run, in Markdown; None when the store has none.

        Args:
            run: Its `run_uid`, its URI or its ref.
        """
        try:
            return self._storage.get(report_key(run_uid_of(run))).decode()
        except ObjectNotFoundError:
            return None

    def list_runs(
        self, *, limit: int = 20, capability_id: str | None = None, entity_id: str | None = None
    ) -> list[RunSummary]:
        """Return the latest runs, the newest first.

        Args:
            limit: Most runs to return.
            capability_id: Return only runs of this capability.
            entity_id: Return only runs on this dataset, model or metric.

        Raises:
            InvalidSpecError: The limit is below zero.
        """
        if limit < 0:
            raise InvalidSpecError(f"{limit} runs cannot be listed; give a limit of 0 or more")
        which = RunFilter(limit, capability_id, entity_id)
        read = partial(latest_runs, which=which)
        return read_snapshot(self._storage, self._schemas, read, tables=())

    def list_tables(self) -> list[str]:
        """Return the names of the tables, sorted."""
        return list(self._schemas.all())

    def describe_table(self, name: str) -> dict[str, str]:
        """Return the columns of table *name* and their types, in order.

        Raises:
            InvalidSpecError: There is no such table.
        """
        schemas = self._schemas.all()
        if name not in schemas:
            raise InvalidSpecError(f"{self.uri} has no table {name!r}; it has: {_named(schemas)}")
        return {column: str(kind) for column, kind in schemas[name].items()}

    def read_table(self, name: str) -> pa.Table:
        """Return all rows of table *name*, from one consistent snapshot. Needs no DuckDB.

        Raises:
            InvalidSpecError: There is no such table.
        """
        self.describe_table(name)  # raises if there is no such table
        read = partial(all_rows, table=name)
        return read_snapshot(self._storage, self._schemas, read, tables=[name])

    def query_sql(self, sql: str) -> pa.Table:
        """Return the result of *sql*, in DuckDB's dialect, from one consistent snapshot.

        Files that are torn, foreign or of a later version are passed over; a warning names each.

        Raises:
            CannotStartError: DuckDB is not installed.
            QueryError: The SQL cannot be run, or would do more than read the tables.
        """
        asked = question(sql)
        schemas = self._schemas.all()
        tables = None if asked.tables is None else asked.tables & schemas.keys()
        try:
            return read_snapshot(
                self._storage, self._schemas, partial(answer, asked), tables=tables
            )
        except QueryError as error:
            raise QueryError(f"{error} ({self.uri} has the tables: {_named(schemas)})") from error

    def compact(self, *, clear: bool = False) -> CompactionReport:
        """Replace many small files with few large ones; delete what earlier compactions replaced.

        Atomic: readers see every run once before, during and after it, even if it dies. Of two
        concurrent compactions, one wins. Replaced files stay until the next compaction, for readers
        that still read them. *clear* deletes them at once, and all staged bytes, as dead
        writers may have left some: live readers and writers retry.

        Raises:
            UnsafeStorageError: The storage lets a second writer replace an object.
            StorageError: A request failed. Call again.
        """
        self.check_writable()
        report = self._compact_once(THOROUGH)
        lost = 0
        while report.left or (report.lost_race and lost < _MOST_LOST_RACES):
            lost += report.lost_race  # perhaps to a writer's light round, which did much less
            report = report.and_then(self._compact_once(THOROUGH))
        if clear:
            report = report.and_then(self._compact_once(THOROUGH))
            # Only on request: a live writer whose staged bytes are deleted stages them again, but
            # only a few times.
            self._storage.clean()
        log_passed_over(report.passed_over)
        return report

    def check_writable(self) -> None:
        """Check that runs can be recorded in the store: write a probe, and remove it.

        Raises:
            StorageError: The store cannot be written.
            UnsafeStorageError: The storage lets a second writer replace an object.
            CannotStartError: A connector is not installed.
            InvalidSpecError: The storage options are wrong.
        """
        for _ in range(_PROBES - 1):
            with contextlib.suppress(UnsafeStorageError):
                return self._storage.check_conditional_writes()
        return self._storage.check_conditional_writes()

    def _compact_once(self, limits: RoundLimits) -> CompactionReport:
        once = partial(compact_once, self._storage, self._schemas, limits=limits)
        return retry_when_replaced(partial(once, cache=ReadCache()))

    def _find(self, run_uid: str, *, records: bool) -> RecordedRun:
        find = partial(find_run, self._storage, self._schemas, run_uid)
        return retry_when_replaced(partial(find, cache=ReadCache(), records=records))


def open_store(address: StoreAddress, *, storage_options: Options | None = None) -> AnalyticsStore:
    """Open the store at *address*: a config, its fields, a URI, or the ref or URI of a run in it.

    Args:
        address: Address of the store. A relative path starts at the current directory.
        storage_options: Options for fsspec, in place of those of the config; a ref holds none.

    Raises:
        InvalidSpecError: *address* is not valid.
    """
    if isinstance(address, CapabilityRunRef):
        address = address.store_uri
    if isinstance(address, str):
        address = {"uri": split_run_uri(address)[0]}
    if isinstance(address, os.PathLike):
        address = {"uri": os.fspath(address)}
    if isinstance(address, Mapping):
        address = AnalyticsStoreConfig(**address)
    if storage_options is not None:
        address = address.model_copy(update={"storage_options": dict(storage_options)})
    return AnalyticsStore(address)


def _named(tables: Iterable[str]) -> str:
    return ", ".join(tables) or "none yet"
