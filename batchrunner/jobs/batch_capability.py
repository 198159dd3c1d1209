"""A whole batch as a capability, which can be submitted as a job."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from batchrunner.analytics import BatchRunRecord, CompletedRun
from batchrunner.errors import (
    InvalidSpecError,
    LeaseHeldError,
    RunStoppedError,
    ShardFailedError,
    SpecChangedError,
)
from batchrunner.jobs.identity import checked_edition, run_uid_of
from batchrunner.spec import BatchSpec
from batchrunner.spec.fingerprint import fingerprint

if TYPE_CHECKING:
    from batchrunner.driver.report import BatchReport
    from batchrunner.runner import BatchRunner

T = TypeVar("T")

# A job's log includes the records of this logger from INFO on: the progress of the batch.
_log = logging.getLogger("batchrunner.driver.session")

_LEASE_SECONDS = 90.0
_LEASE_PAUSE = 2.0
_SHOWN_FAILURES = 5
_SEE = (
    "see the rows that failed: batchrunner errors SPEC",
    "what the workers printed and logged: batchrunner logs SPEC",
)
_FIX_ROWS = (
    "next: fix it, then `batchrunner retry --rows SPEC` on a machine with the spec, then submit the "
    "batch again; or raise errors.max_row_errors and submit it again"
)
_FIX_SHARDS = (
    "next: fix it, then `batchrunner retry SPEC` on a machine with the spec, then submit the batch "
    "again; with the code as it is, submitting it again retries these shards"
)
_DECIDED = (
    "These are options of `batchrunner run SPEC`, which a job does not take: run that on a machine "
    "with the spec, then submit the batch again."
)


class BatchCapability:
    """Runs a batch to its end, in the cluster that its job runs in.

    If its node dies, the retry on another node resumes from the checkpoint. Batches with the same
    spec, code and edition are the same job.

    Attributes:
        id: The capability's id in the analytics store.
        default_num_cpus: CPUs of the process that drives the batch. 0 on Ray: the workers reserve
            their own, and a driver that holds a CPU could keep the last worker from starting.
        default_num_gpus: GPUs of that process.
        default_max_retries: High, since a retry resumes: it repeats only the shards in flight.

    Args:
        spec: The batch. It runs in the job's cluster, not at its `ray.address`.
        edition: Another edition is another job: to run the same spec again after its source has
            grown, for example.
    """

    default_num_gpus = 0.0
    default_max_retries = 100

    def __init__(self, spec: BatchSpec, *, edition: str = "") -> None:
        self._spec, self._edition = spec, checked_edition(edition)
        self.id = f"batch/{spec.name}"
        local = spec.execution.engine == "local"
        self.default_num_cpus = spec.execution.num_cpus if local else 0.0

    def of_edition(self, edition: str) -> BatchCapability:
        """Return the same batch in *edition*; with "", in the edition that it has.

        Raises:
            InvalidSpecError: The batch has another edition already.
        """
        if edition in ("", self._edition):
            return self
        if self._edition:
            raise InvalidSpecError(
                f"the batch is of edition {self._edition!r} and submitted as {edition!r}: "
                "give only one of them"
            )
        return BatchCapability(self._spec, edition=edition)

    def run(
        self,
        models: Any = None,  # noqa: ARG002 - the capabilities' signature
        datasets: Any = None,  # noqa: ARG002
        metrics: Any = None,  # noqa: ARG002
        config: Any = None,  # noqa: ARG002
        use_cache: bool = False,  # noqa: ARG002
    ) -> CompletedRun:
        """Run the batch, or resume it, and return the run to record. Idempotent.

        Raises:
            ShardFailedError: Some shards failed, or too many rows. The committed shards are kept.
            RunStoppedError: The batch reached its `max_runtime`. Submitted again, it resumes.
            SpecChangedError: The code differs from the code that made the committed shards.
            BatchRunnerError: Anything else that `BatchRunner.retry` raises.
        """
        _log.info("the driver's log; what the workers print and log: batchrunner logs SPEC")
        report = _after_the_predecessor(self._retried)
        if not report.ok:
            raise _incomplete(report)
        # The store keeps only the first record of a run, and another edition has other figures.
        uid = run_uid_of(report.run_uid, self._edition)
        # If the spec has a store, the batch has recorded itself there.
        records = [] if report.ref else [self._record(report, run_uid=uid)]
        return CompletedRun(uid, self.id, records, outputs_uri=report.sink)

    def _retried(self) -> BatchReport:
        # `retry`, not `run`: a user who submits a batch again wants its quarantined shards retried,
        # too. But not `mended`: accepting changed code unasked would mix the outputs of two versions.
        try:
            return self._runner().retry(mended=False, progress="off")
        except SpecChangedError as error:
            raise SpecChangedError(f"{error}\n{_DECIDED}") from error

    def _runner(self) -> BatchRunner:
        from batchrunner.runner import BatchRunner

        return BatchRunner(self._spec)

    def _record(self, report: BatchReport, *, run_uid: str) -> BatchRunRecord:
        from batchrunner.checkpoint.location import checkpoint_storage

        sessions = [entry.key for entry in checkpoint_storage(self._spec).list("sessions")]
        return BatchRunRecord(
            run_uid=run_uid,
            name=report.name,
            fingerprint=fingerprint(self._runner().decisive_fields()),
            source_uri=", ".join(self._spec.source.uris),
            sink_uri=report.sink,
            shards=report.shards,
            sessions=len([key for key in sessions if key.endswith(".jsonl")]),
            rows_in=report.rows_in,
            rows_out=report.rows_out,
            rows_failed=report.rows_failed,
            bytes_out=report.bytes_out,
        )

    def _create_config(self) -> dict[str, Any]:
        """Return this batch's identity: all that decides its output, the sink, and the edition."""
        decisive = self._runner().decisive_fields()
        return {"decisive": decisive, "sink": self._spec.sink.uri, "edition": self._edition}


def _after_the_predecessor(work: Callable[[], T]) -> T:
    """Call *work*; while an attempt that died a moment ago may hold the lease, wait and retry."""
    deadline = time.monotonic() + _LEASE_SECONDS
    while True:
        try:
            return work()
        except LeaseHeldError:
            if time.monotonic() >= deadline:
                raise
            time.sleep(_LEASE_PAUSE)


def _incomplete(report: BatchReport) -> RunStoppedError | ShardFailedError:
    from batchrunner.driver.report_text import over_cost
    from batchrunner.driver.session import StopReason

    done = f"{report.shards_committed:,} of {report.shards:,} shards are committed and kept"
    too_many_rows = report.stopped is StopReason.ROW_ERRORS or not report.within_budget
    if report.stopped is StopReason.NO_COST:
        return ShardFailedError(f"{done}; {over_cost(report)}")
    if report.stopped and not too_many_rows:
        return RunStoppedError(f"the batch stopped ({report.stopped}): {done}; submit it again")
    reasons = "; ".join(_reasons(report)) or "workers were lost"
    ways_out = _ways_out(report, too_many_rows=too_many_rows)
    return ShardFailedError("\n".join([f"{done}; failed: {reasons}", *ways_out]))


def _reasons(report: BatchReport) -> list[str]:
    failed = {**report.quarantined, **{i: f.reason for i, f in report.failures.items()}}
    reasons = list(failed.values())[:_SHOWN_FAILURES]
    if len(failed) > len(reasons):
        reasons.append(f"and {len(failed) - len(reasons):,} more shards failed")
    if not report.within_budget:
        reasons.append(
            f"too many rows failed: {report.rows_failed:,} of {report.rows_in:,}, where "
            f"errors.max_row_errors allows {report.rows_allowed:,}"
            f"{': ' if report.row_error else ''}{report.row_error}"
        )
    return reasons


def _ways_out(report: BatchReport, *, too_many_rows: bool) -> list[str]:
    """Return the next commands for the user: submitting again fixes neither code nor rows."""
    if too_many_rows:
        return [*_SEE, _FIX_ROWS]
    if report.exit_code != ShardFailedError.exit_code:  # the environment's fault: it may pass
        return ["next: submit the batch again: it goes on"]
    return [*_SEE, _FIX_SHARDS]
