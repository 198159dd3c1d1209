"""The front door of a batch: survey, execute, finish."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from batchrunner.capability import load_target
from batchrunner.capability.module_snapshot import snapshots_of
from batchrunner.checkpoint import Checkpoint, Sentinel
from batchrunner.checkpoint.location import checkpoint_storage
from batchrunner.checkpoint.totals import Totals
from batchrunner.driver.asked_for import AskedFor
from batchrunner.driver.dispatch import Driving, Engine
from batchrunner.driver.finishing import declare_success, is_declared
from batchrunner.driver.opening import Opened, open_run
from batchrunner.driver.packages import keep_versions
from batchrunner.driver.plan import Again
from batchrunner.driver.progress import NoProgress, Pace, Progress
from batchrunner.driver.recording import is_recorded, record_batch
from batchrunner.driver.report import BatchReport, report_of
from batchrunner.driver.session import Session, Stop, open_session
from batchrunner.driver.survey import Run, Survey, comparer_of, survey
from batchrunner.errors import DamagedOutputError, InvalidSpecError, StorageError
from batchrunner.execute.local import run_locally
from batchrunner.execute.on_ray import run_on_ray
from batchrunner.execute.payload import import_paths
from batchrunner.formats.naming import PARQUET
from batchrunner.shard import Shard, Slicing
from batchrunner.spec import BatchSpec
from batchrunner.storage import open_storage
from batchrunner.views.dead_letters import most_frequent
from batchrunner.worker.stopping import Grace
from batchrunner.worker.work import Work

_log = logging.getLogger(__name__)


class BatchRunner:
    """Runs one spec: every row of the source through the capability, exactly once in the output.

    Execution is at least once (a shard may be computed again after a crash); committed output is
    exactly once. Killing this process, a worker or a node at any instant loses at most the shards
    in flight; running the same spec again goes on with what is not committed.
    """

    def __init__(self, spec: BatchSpec, *, capability: Any = None) -> None:
        """Prepare to run *spec*.

        Args:
            spec: What to do.
            capability: The function or class itself, in place of `spec.capability.target`.

        Raises:
            InvalidSpecError: There is no capability at all.
        """
        if capability is None and spec.capability is None:
            raise InvalidSpecError("there is no capability: name one in the spec, or hand it over")
        self.spec, self._capability = spec, capability
        spec.remember_secrets()

    def plan(self, *, accept_changes: bool = False) -> Survey:
        """Tell what `run` would do and why. Starts nothing, writes nothing.

        Raises:
            BatchRunnerError: What `run` would raise before it starts.
        """
        return survey(self._run(), accept_changes=accept_changes)

    def run(
        self,
        *,
        fresh: bool = False,
        accept_changes: bool = False,
        stop: Stop | None = None,
        progress: Progress | None = None,
    ) -> BatchReport:
        """Run what is not committed yet, and tell how it went.

        Args:
            fresh: Remove the run's output and start over.
            accept_changes: Go on although the spec, the code or the source changed.
            stop: Asked whether to end early; by default, after `execution.max_runtime`.
            progress: Told how it goes.

        Raises:
            InvalidSpecError: The source cannot be read as the spec says. Nothing was started.
            CannotStartError: The capability, Ray or the store cannot do it.
            RunRefusedError: Going on might lose or mix rows. Nothing was touched.
            StorageError: Source, sink or checkpoint cannot be reached.
        """
        return self._session(
            starts_over=fresh or not self.spec.resume,
            accept_changes=accept_changes,
            stop=stop,
            progress=progress,
        )

    def retry(
        self,
        *,
        rows: bool = False,
        mended: bool = True,
        accept_changes: bool = False,
        stop: Stop | None = None,
        progress: Progress | None = None,
    ) -> BatchReport:
        """Run again the shards that were set apart, and what else is not committed yet.

        Code that changed is taken for the mended one and accepted, and recorded as that. Published
        parts stay as they are.

        Args:
            rows: Also try again the rows that were set aside: they become new shards.
            mended: Somebody asked for this after mending the code. Otherwise code that changed is
                refused, as by `run`.
            accept_changes: Go on although the spec or the source changed.
            stop: As for `run`.
            progress: As for `run`.

        Raises:
            BatchRunnerError: As `run` does.
        """
        return self._session(
            again=Again(rows=rows, mended=mended),
            accept_changes=accept_changes,
            stop=stop,
            progress=progress,
        )

    def _session(
        self,
        *,
        starts_over: bool = False,
        again: Again | None = None,
        accept_changes: bool,
        stop: Stop | None,
        progress: Progress | None,
    ) -> BatchReport:
        began = time.monotonic()
        stop = stop or self._stop()
        run = self._run()
        look = partial(survey, accept_changes=accept_changes, again=again, starts_over=starts_over)
        # Before the lease: whatever refuses the run does so before anything is touched.
        seen = look(run)
        if self._is_done(run, seen, again):
            _warn(seen)
            return replace(report_of(run, seen), seconds=time.monotonic() - began)
        if stop.is_from_outside:
            report = replace(report_of(run, seen), stopped=stop.reason)
            return replace(report, seconds=time.monotonic() - began)
        if seen.starts_over:
            self._check_capability(run)
        self._check_stores(run)
        with open_session(run.checkpoint, stop=stop) as session:
            # Under the lease: another driver may have finished, or started over, meanwhile.
            run = replace(run, checkpoint=run.checkpoint.reopened())
            if again:
                run.checkpoint.release(check=session.check)
            seen = look(run)
            report = self._go(run, seen, session, progress or NoProgress())
        return replace(report, seconds=time.monotonic() - began)

    def _is_done(self, run: Run, seen: Survey, again: Again | None) -> bool:
        return (
            seen.nothing_to_do
            and not (again and seen.quarantined)
            and is_recorded(run, seen)
            and is_declared(run, seen)
        )

    def decisive_fields(self) -> dict[str, str]:
        """Return all that decides the output, the code included; without secrets."""
        return AskedFor(self.spec, self._capability).decisive

    def _stop(self) -> Stop:
        execution = self.spec.execution
        return Stop(max_runtime=execution.max_runtime, grace=Grace(execution.grace_period))

    def _run(self) -> Run:
        sink = open_storage(self.spec.sink.uri, storage_options=self.spec.sink.storage_options)
        checkpoint = Checkpoint.current(checkpoint_storage(self.spec))
        asked_for = AskedFor(self.spec, self._capability)
        asked_for.warn_of_unseen()
        return Run(self.spec, asked_for, checkpoint, sink, comparer_of(self.spec))

    def _check_capability(self, run: Run) -> None:
        """See that there is something to start over with, before anything is removed.

        Raises:
            CapabilityImportError: It cannot be imported.
            InvalidSpecError: One of `capability.files` is not there.
        """
        if run.decisive and self._capability is None:
            load_target(self._target())

    def _check_stores(self, run: Run) -> None:
        if not self.spec.unsafe_single_writer:
            run.checkpoint.storage.check_conditional_writes()
            run.sink.check_conditional_writes()

    def _go(self, run: Run, seen: Survey, session: Session, progress: Progress) -> BatchReport:
        _warn(seen)
        opened = open_run(run, seen, session)
        run, before, pending = opened.run, opened.committed, opened.pending
        keep_versions(run, session, is_first=seen.record is None)
        session.log_event("plan_made", shards=len(seen.plan.active), pending=len(pending))
        work = self._work(opened, seen, session)
        pace = _pace(seen, before, pending)
        driving = Driving(work, session, pace, progress, cleared=run.cleared)
        if pending:
            with run.asked_for.at_work() as imported:
                driving.go(pending, self._engine(session.stop, imported=imported))
        committed = {**before, **driving.tally.committed}
        report = report_of(run, seen, committed, run_uid=opened.run_uid)
        if report.ok:
            if self.spec.analytics_store is not None:
                session.check()
                record_batch(run, seen, committed)
            declare_success(run, seen, committed, session)
        if not report.within_budget:
            report = _with_row_error(report, run, committed)
        return self._told(report, driving, session)

    def _work(self, opened: Opened, seen: Survey, session: Session) -> Work:
        return Work(
            spec=self.spec,
            run_uid=opened.run_uid,
            session=session.id,
            facts=seen.plan.facts,
            weight=sum(shard.weight for shard in seen.plan.active),
            capability=self._capability,
            import_paths=import_paths(),
            first=self._first(opened, seen),
            incarnation=opened.run.checkpoint.incarnation,
            epoch=session.epoch,
            code=snapshots_of(opened.run.asked_for.code.modules),
        )

    def _first(self, opened: Opened, seen: Survey) -> int | None:
        """Return the shard that other workers wait for: its part fixes what is not declared."""
        if seen.plan.facts.format != PARQUET or self.spec.sink.schema_ is not None:
            return None
        return min((shard.id for shard in opened.pending), default=None)

    def _told(self, report: BatchReport, driving: Driving, session: Session) -> BatchReport:
        report = replace(
            report,
            shards_new=len(driving.tally.committed),
            failures=driving.tally.failures,
            quarantined={**report.quarantined, **driving.tally.given_up},
            stopped=None if report.ok else session.stop.reason,
        )
        session.log_event(
            "session_ended",
            committed=report.shards_new,
            failed=len(report.failures),
            stopped=report.stopped,
            complete=report.ok,
        )
        return report

    def _engine(self, stop: Stop, *, imported: Callable[[], None]) -> Engine:
        if self.spec.execution.engine == "local":
            return partial(run_locally, stop=stop)
        capability = self._capability or load_target(self._target())
        imported()
        return partial(run_on_ray, as_actors=isinstance(capability, type))

    def _target(self) -> str:
        return self.spec.capability.target if self.spec.capability else ""


def _with_row_error(
    report: BatchReport, run: Run, committed: Mapping[int, Sentinel]
) -> BatchReport:
    """Say what most rows failed with; a report without it is better than none."""
    try:
        group = most_frequent(run.checkpoint, committed.values())
    except (DamagedOutputError, StorageError) as error:
        _log.warning("%s", error)
        return report
    if group is None:
        return report
    return replace(report, row_error=str(group), row_traceback=group.traceback)


def _warn(seen: Survey) -> None:
    for note in seen.notes:
        _log.warning("%s", note)


def _pace(seen: Survey, committed: Mapping[int, Sentinel], pending: Sequence[Shard]) -> Pace:
    totals = Totals.of(seen.plan.active, committed)
    again = [shard for shard in pending if shard.slicing is Slicing.DEAD_LETTERS]
    return Pace(
        shards=len(seen.plan.active),
        committed=len(committed),
        rows_in=totals.rows_in,
        rows_out=totals.rows_out,
        rows_failed=totals.rows_failed - sum(shard.stop for shard in again),
        weight=sum(shard.weight for shard in seen.plan.active),
        weight_done=sum(shard.weight for shard in seen.plan.active if shard.id in committed),
    )
