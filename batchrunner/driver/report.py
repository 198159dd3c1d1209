"""The report of a session: how it left the run, as plain values for JSON and as an exit code."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from batchrunner.analytics import CapabilityRunRef
from batchrunner.checkpoint import Sentinel
from batchrunner.checkpoint.totals import Totals, usage_of
from batchrunner.driver import report_text
from batchrunner.driver.cutting import rest_of
from batchrunner.driver.notebook_html import facts_html
from batchrunner.driver.recording import completed_uid, ref_of
from batchrunner.driver.run import Run
from batchrunner.driver.session import StopReason
from batchrunner.driver.survey import Survey
from batchrunner.worker.receipt import Cause, Failure
from batchrunner.worker.stage_clock import StageClock

_SHOWN_FAILURES = 10

STOP_CODES = {
    StopReason.INTERRUPTED: 130,
    StopReason.TERMINATED: 143,
    StopReason.MAX_RUNTIME: 75,
    StopReason.LEASE_LOST: 4,
    StopReason.ROW_ERRORS: 1,
    StopReason.MAX_COST: 75,
    StopReason.NO_COST: 1,  # a person has to act: each session more would cost, and know no more
}


@dataclass(frozen=True, slots=True)
class BatchReport:
    """How a session left the run. The totals are sums over all sentinels of the run.

    Attributes:
        run_uid: Identifies the run over all its sessions.
        name: The name in the spec.
        sink: URI of the folder of the parts.
        checkpoint: URI of the folder of the run's records.
        shards: Number of shards of the run.
        shards_committed: Number of shards that are committed.
        shards_new: Number of shards that this session committed.
        rows_in: Rows read.
        rows_out: Rows written.
        rows_failed: Rows that failed, without those that succeeded in a retry.
        rows_allowed: How many rows may fail, by `errors.max_row_errors`.
        bytes_out: Size of all parts.
        seconds: How long this session took.
        failures: By shard id, why the shard failed in this session.
        quarantined: By shard id, why the shard is quarantined until `retry`.
        row_error: The most frequent error of the failed rows, its place, and one of these rows;
            empty unless more rows failed than may.
        row_traceback: The traceback of the user's code for that row; may be empty.
        shards_adopted: Number of shards that this session found written and took over: an earlier
            one died before it had recorded them.
        ref: The batch in the analytics store; None if it is not complete, or there is no store.
        stopped: Why the session ended early; None if it did not.
        usage: What the calls have used that the committed shards came of, such as tokens, by name, with
            their `cost`; empty if no answer said so.
        spent: What all calls have used, in all sessions, also where the rows are not committed.
        cost_left: What the rest of the run would cost, at the same cost for each byte of the source; None
            if that is not known.
        max_cost: Where the spec ends a run for its cost; None if it does not.
        stages: What the workers of this session spent their time on, from the reading of the source to
            the writing of the parts.
        advice: Which of them bounds the run, and what to change; empty if that is not clear.
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
    shards_adopted: int = 0
    usage: Mapping[str, float] = field(default_factory=dict)
    spent: Mapping[str, float] = field(default_factory=dict)
    cost_left: float | None = None
    max_cost: float | None = None
    stages: tuple[StageClock, ...] = ()
    advice: str = ""

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
        """The exit code of the command line for this report."""
        if self.ok:
            return 0
        if self.stopped is not None:
            return STOP_CODES[self.stopped]
        causes = {failure.cause for failure in self.failures.values()}
        # No failure, yet not committed: lost with Ray or a node, so not the user's fault.
        is_users = (
            causes - {Cause.STORAGE} if causes else self.quarantined or not self.within_budget
        )
        return 1 if is_users else 3

    def __str__(self) -> str:
        """Return the report as a few lines, with the next command; `repr` has every field."""
        return report_text.text(self)

    def _repr_html_(self) -> str:
        """Return the report as a table, for a notebook."""
        failed = report_text.reasons(self)
        left_out = len(failed) - _SHOWN_FAILURES
        more = [f"and {left_out:,} more"] if left_out > 0 else []
        return facts_html(
            f"{self.name}: {report_text.heading(self)}",
            {
                "next": report_text.next_line(self),
                "failed": "\n".join([*failed[:_SHOWN_FAILURES], *more]),
                "rows": report_text.rows(self),
                "usage": report_text.usage(self.spent, self.usage),
                "speed": self.advice,
                "output": self.sink,
                "checkpoint": self.checkpoint,
            },
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the attributes and properties as plain values, for JSON."""
        return {
            **asdict(self),
            "stages": [clock.to_dict() for clock in self.stages],
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
    """Return the report of *run*, with the shards in *committed*; by default, those in *survey*."""
    sentinels = survey.output.committed if committed is None else committed
    totals = Totals.of(survey.plan.active, sentinels)
    # A shard that ended early in this session left some that no generation has yet.
    rest = rest_of(survey.plan, sentinels, spec=run.spec)
    usage = usage_of(survey.plan.active, sentinels)
    run_uid = run_uid or (survey.record.run_uid if survey.record else "")
    report = BatchReport(
        run_uid=run_uid,
        name=run.spec.name,
        sink=run.sink.uri,
        checkpoint=run.checkpoint.storage.uri,
        shards=len(survey.plan.active) + (len(rest.shards) if rest else 0),
        shards_committed=len(sentinels),
        shards_new=0,
        **asdict(totals),
        rows_allowed=int(run.spec.errors.allowed(totals.rows_in)),
        seconds=0.0,
        failures={},
        usage=usage,
        spent=usage,
        max_cost=run.spec.execution.max_cost,
        quarantined={i: q.reason for i, q in survey.quarantined.items() if i not in sentinels},
    )
    if not report.ok:
        return report
    return replace(report, ref=ref_of(run.spec, completed_uid(run_uid, sentinels.values())))
