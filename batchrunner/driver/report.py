"""How a session left its run: for a person as text, for a program as JSON and an exit code."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from batchrunner.analytics import CapabilityRunRef
from batchrunner.checkpoint import Sentinel
from batchrunner.checkpoint.totals import Totals
from batchrunner.driver.recording import completed_uid, ref_of
from batchrunner.driver.run import Run
from batchrunner.driver.session import StopReason
from batchrunner.driver.survey import Survey
from batchrunner.worker.receipt import Cause, Failure

STOP_CODES = {
    StopReason.INTERRUPTED: 130,
    StopReason.TERMINATED: 143,
    StopReason.MAX_RUNTIME: 75,
    StopReason.LEASE_LOST: 4,
    StopReason.ROW_ERRORS: 1,
}


@dataclass(frozen=True, slots=True)
class BatchReport:
    """How a session left the run. Totals are of the run: the sum over all sentinels.

    Attributes:
        run_uid: Names the run over all its sessions.
        name: Of the spec.
        sink: Where the parts are.
        checkpoint: Where the records of the run are.
        shards: How many there are.
        shards_committed: How many are complete.
        shards_new: How many of those this session committed.
        rows_in: Rows read.
        rows_out: Rows written.
        rows_failed: Rows that failed, without those that a retry has brought through.
        rows_allowed: How many may fail, by `errors.max_row_errors`.
        bytes_out: Size of all parts.
        seconds: How long this session took.
        failures: Why shards failed in this session, by id.
        quarantined: Why shards are quarantined until `retry`, by id.
        row_error: What most of the failed rows failed with, where, and one of them; empty as long as
            no more of them failed than may.
        row_traceback: Of the user's code, for that row; may be empty.
        ref: The batch in the analytics store; None when it is not complete, or there is no store.
        stopped: Why the session ended early; None when it did not.
    """

    run_uid: str
    name: str
    sink: str
    checkpoint: str
    shards: int
    shards_committed: int
    shards_new: int
    rows_in: int
    rows_out: int
    rows_failed: int
    rows_allowed: int
    bytes_out: int
    seconds: float
    failures: Mapping[int, Failure]
    quarantined: Mapping[int, str]
    ref: CapabilityRunRef | None = None
    stopped: StopReason | None = None
    row_error: str = ""
    row_traceback: str = ""

    @property
    def ok(self) -> bool:
        """Whether every shard is committed, and no more rows failed than `errors` allows."""
        return self.shards_committed == self.shards and self.within_budget

    @property
    def within_budget(self) -> bool:
        """Whether no more rows failed than `errors.max_row_errors` allows."""
        return self.rows_failed <= self.rows_allowed

    @property
    def exit_code(self) -> int:
        """The exit code of the command line for this end."""
        if self.ok:
            return 0
        if self.stopped is not None:
            return STOP_CODES[self.stopped]
        causes = {failure.cause for failure in self.failures.values()}
        # A shard that is not committed, and has no failure, was lost with Ray or a node.
        is_users = (
            causes - {Cause.STORAGE} if causes else self.quarantined or not self.within_budget
        )
        return 1 if is_users else 3

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain values, for JSON."""
        return {
            **asdict(self),
            "ok": self.ok,
            "within_budget": self.within_budget,
            "exit_code": self.exit_code,
        }


def report_of(
    run: Run,
    survey: Survey,
    committed: Mapping[int, Sentinel] | None = None,
    *,
    run_uid: str | None = None,
) -> BatchReport:
    """Return the report of *run*: as *survey* found it or, if given, with the shards in *committed*."""
    sentinels = survey.output.committed if committed is None else committed
    totals = Totals.of(survey.plan.active, sentinels)
    run_uid = run_uid or (survey.record.run_uid if survey.record else "")
    report = BatchReport(
        run_uid=run_uid,
        name=run.spec.name,
        sink=run.sink.uri,
        checkpoint=run.checkpoint.storage.uri,
        shards=len(survey.plan.active),
        shards_committed=len(sentinels),
        shards_new=0,
        **asdict(totals),
        rows_allowed=int(run.spec.errors.allowed(totals.rows_in)),
        seconds=0.0,
        failures={},
        quarantined={i: q.reason for i, q in survey.quarantined.items() if i not in sentinels},
    )
    if not report.ok:
        return report
    return replace(report, ref=ref_of(run.spec, completed_uid(run_uid, sentinels.values())))
