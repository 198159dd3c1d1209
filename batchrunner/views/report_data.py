"""The report of a run, as plain values, from its checkpoint alone: at any time, also of a dead run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from batchrunner import __version__
from batchrunner.checkpoint import Checkpoint
from batchrunner.checkpoint.totals import Totals, Usage, usage_of
from batchrunner.driver.notebook_html import facts_html
from batchrunner.driver.report_text import usage
from batchrunner.views.report_cells import ShardFacts, counts_of, shards_of
from batchrunner.views.report_commands import CommandNames, NextStep
from batchrunner.views.report_examples import Examples, examples_of
from batchrunner.views.report_reading import RunFacts, read_documents
from batchrunner.views.report_sessions import SessionFacts, sessions_of
from batchrunner.views.report_times import Axis, axis_of, timed
from batchrunner.views.report_verdict import (
    RunVerdict,
    run_state,
    verdict_on,
)
from batchrunner.views.spending import spent_in
from batchrunner.views.stage_times import advice_in, stages_of_run
from batchrunner.worker.stage_clock import StageClock


@dataclass(frozen=True, slots=True)
class RunReport:
    """A run over all its sessions, for people: what happened, what is safe, what to do next.

    Attributes:
        verdict: In words.
        made: When the report was made.
        name: Name of the spec.
        run_uid: Names the run.
        documents: What it was made from.
        place: How commands name the run.
        totals: Rows and bytes of the committed shards.
        sessions: The sessions, the first one first.
        shards: The shards, in plan order.
        dead_letters: Rows that failed, by kind, with an example of each.
    """

    verdict: RunVerdict
    made: datetime
    name: str
    run_uid: str
    documents: RunFacts
    place: CommandNames
    totals: Totals
    sessions: tuple[SessionFacts, ...]
    shards: tuple[ShardFacts, ...]
    dead_letters: Examples

    @property
    def axis(self) -> Axis:
        """The axis of time over all sessions."""
        return axis_of(self.sessions, timed(self.documents.sentinels.values()))

    @property
    def stages(self) -> tuple[StageClock, ...]:
        """What the workers of all sessions spent their time on."""
        return stages_of_run(self.documents.events.get(one.id, ()) for one in self.sessions)

    @property
    def advice(self) -> str:
        """What bounds the run, as the last session that ran shards found; empty if that is not clear."""
        return advice_in(self.documents.last_events)

    @property
    def usage(self) -> Usage:
        """What the calls have used that the committed rows came of."""
        return usage_of(self.documents.shards, self.documents.sentinels)

    @property
    def spent(self) -> Usage:
        """What all calls have used, as far as the last session has reported it."""
        events = self.documents.last_events
        return spent_in(events, run_uid=self.run_uid, committed=self.usage)

    @property
    def again(self) -> tuple[NextStep, ...]:
        """The commands for this run, whatever its state."""
        place = self.place
        return (
            NextStep("Go on, or see that it is done", place.on_spec("run")),
            NextStep("Retry failed shards and rows", place.on_spec("retry --rows")),
            NextStep("Check every byte and row", place.on_spec("verify")),
            NextStep("List what failed", place.on_any("errors")),
            NextStep("What the workers printed", place.on_any("logs")),
            NextStep("Make this report again", place.on_any("report")),
        )

    def __str__(self) -> str:
        verdict = self.verdict
        steps = (f"next: {step.command}" for step in verdict.steps[:1])
        return "\n".join([verdict.happened, verdict.safe, *steps])

    def _repr_html_(self) -> str:
        """Return the verdict and the totals as a table, for a notebook; `to_html` is the whole page."""
        totals, verdict = self.totals, self.verdict
        rows = f"{totals.rows_in:,} in, {totals.rows_out:,} out, {totals.rows_failed:,} failed"
        return facts_html(
            f"{self.name or 'batch'}: {verdict.state}",
            {
                "what happened": verdict.happened,
                "what is safe": verdict.safe,
                "next": "\n".join(step.command for step in verdict.steps),
                "shards": f"{len(self.documents.sentinels):,} of {len(self.shards):,} committed",
                "rows": rows,
                "sessions": len(self.sessions),
                "usage": usage(self.spent, self.usage),
                "speed": self.advice,
                "output": self.documents.sink,
                "checkpoint": self.documents.uri,
            },
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the report as plain values, for JSON."""
        documents = self.documents
        return {
            "version": 1,
            "made_at": self.made.isoformat(timespec="seconds"),
            "batchrunner": __version__,
            "name": self.name,
            "run_uid": self.run_uid,
            "checkpoint": documents.uri,
            "sink": documents.sink,
            "started_with": dict(zip(("spec", "folder"), documents.started_with, strict=True)),
            "verdict": self.verdict.to_dict(),
            "problems": list(documents.problems),
            "skewed_workers": list(documents.skewed),
            "totals": {"shards": len(self.shards), **asdict(self.totals)},
            "shards_by_state": _by_state(self.shards),
            "sessions": [asdict(session) for session in self.sessions],
            "stages": [clock.to_dict() for clock in self.stages],
            "advice": self.advice,
            "usage": dict(self.usage),
            "spent": dict(self.spent),
            "dead_letters": self.dead_letters.to_dict(),
            "shards": [shard.to_dict() for shard in self.shards],
            "commands": [asdict(step) for step in self.again],
        }

    def to_html(self) -> str:
        """Return the report as one HTML page that needs no network."""
        from batchrunner.views.report_html import html_of

        return html_of(self)


def _by_state(shards: tuple[ShardFacts, ...]) -> Mapping[str, int]:
    return {state.name.lower(): count for state, count in counts_of(shards).items()}


def run_report(checkpoint: Checkpoint, *, spec: str = "") -> RunReport:
    """Make the report of the current run of *checkpoint*. Reads nothing else; delays no driver.

    What is damaged is left out, and named in the verdict. *spec* is the run's spec, with its
    options, as the commands write it for a shell.

    Raises:
        ObjectNotFoundError: There is no run.
        NewerFormatError: A later batchrunner wrote the run.
        StorageError: The checkpoint cannot be read.
    """
    documents = read_documents(checkpoint)
    state = run_state(documents)
    sessions = sessions_of(documents, state=state)
    shards = shards_of(documents, sessions, state=state)
    place = CommandNames.of(documents, spec=spec)
    totals = Totals.of(documents.shards, documents.sentinels)
    asked = documents.asked
    failed = examples_of(checkpoint, documents.shards, documents.sentinels)
    return RunReport(
        verdict=verdict_on(documents, totals, counts_of(shards), place=place, failed=failed),
        made=datetime.now(UTC),
        name=asked[-1].name if asked else "",
        run_uid=asked[-1].run_uid if asked else "",
        documents=documents,
        place=place,
        totals=totals,
        sessions=sessions,
        shards=shards,
        dead_letters=failed,
    )
