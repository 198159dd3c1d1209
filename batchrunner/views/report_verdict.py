"""The verdict on a run: what happened, what is safe, and which line to paste."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from batchrunner.checkpoint.totals import Totals
from batchrunner.driver.session import StopReason
from batchrunner.views.event_logs import end_in
from batchrunner.views.look import state_of
from batchrunner.views.report_cells import ShardState
from batchrunner.views.report_commands import CommandNames, NextStep
from batchrunner.views.report_examples import Examples
from batchrunner.views.report_reading import RunFacts
from batchrunner.views.report_words import counted

DAMAGED = "damaged"
_KEPT = "Committed parts are never touched again: the next session keeps them and makes the rest."


@dataclass(frozen=True, slots=True)
class RunVerdict:
    """What happened to a run.

    Attributes:
        state: damaged, or what `status` calls it.
        tone: good, busy, warn or bad.
        happened: One sentence.
        safe: What of the work is kept.
        steps: What to do next, the first thing first.
    """

    state: str
    tone: str
    happened: str
    safe: str
    steps: tuple[NextStep, ...]

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def run_state(documents: RunFacts) -> str:
    """Return the state of the run, as `status` calls it; damaged if documents cannot be read."""
    if documents.problems:
        return DAMAGED
    whole = bool(documents.shards) and len(documents.sentinels) == len(documents.shards)
    return state_of(
        documents.lease,
        documents.last_events,
        whole=whole or _is_empty(documents),
        has_failed=bool(documents.quarantined),
    )


def _is_empty(documents: RunFacts) -> bool:
    """Return whether the run has a plan without shards: its source has no rows."""
    return bool(documents.sink) and not documents.shards


def verdict_on(
    documents: RunFacts,
    totals: Totals,
    counts: Mapping[ShardState, int],
    *,
    place: CommandNames,
    failed: Examples,
) -> RunVerdict:
    """Return the verdict on the run, whose rows are *totals* and whose shards are *counts*."""
    state = run_state(documents)
    case = _Case(documents, totals, counts, place, failed)
    happened, safe = case.said_of(state)
    steps = tuple(case.steps(state))
    return RunVerdict(state, case.tone(state), happened, safe, steps)


@dataclass(frozen=True, slots=True)
class _Case:
    documents: RunFacts
    totals: Totals
    counts: Mapping[ShardState, int]
    place: CommandNames
    failed: Examples

    @property
    def committed(self) -> int:
        return self.counts[ShardState.NOW] + self.counts[ShardState.BEFORE]

    @property
    def shards(self) -> int:
        return sum(self.counts.values())

    @property
    def is_whole(self) -> bool:
        return self.committed == self.shards

    @property
    def stopped(self) -> str:
        """Why the last session stopped; empty if it did not say."""
        return str(end_in(self.documents.last_events).get("stopped") or "")

    @property
    def progress(self) -> str:
        return f"{self.committed:,} of {counted(self.shards, 'shard')} committed"

    @property
    def why(self) -> str:
        """The most frequent error of rows, after a colon; empty for none."""
        return f": {self.failed.main_error}" if self.failed.main_error else ""

    def tone(self, state: str) -> str:
        if state == "complete":
            return "warn" if self.totals.rows_failed else "good"
        if state.startswith("running"):
            return "busy"
        return "warn" if state == "stopped" and not self.counts[ShardState.FAILED] else "bad"

    def said_of(self, state: str) -> tuple[str, str]:
        said = {
            "complete": self._complete,
            "running": self._running,
            "running elsewhere, or lost": self._elsewhere,
            "interrupted": self._killed,
            "failed": self._failed,
            DAMAGED: self._damaged,
        }
        return said.get(state, self._stopped)()

    def _complete(self) -> tuple[str, str]:
        failed = self.totals.rows_failed
        rows = f"{counted(self.totals.rows_in, 'row')} in, {self.totals.rows_out:,} out"
        why = f"{failed:,} failed" if failed else "none failed"
        kept = f" The {counted(failed, 'failed row')} are kept as dead letters." if failed else ""
        happened = f"Complete: all {counted(self.shards, 'shard')} committed; {rows}, {why}."
        if not self.shards:
            happened = "Complete: the source has no rows, and so the output has none."
        return (
            happened,
            f"All of it is safe: every row that did not fail is in the output once.{kept}",
        )

    def _running(self) -> tuple[str, str]:
        rows = int(self.documents.progress.get("rows_in_flight") or 0)
        more = f", {counted(rows, 'row')} of others done" if rows else ""
        return (
            f"Running: {self.progress}{more} ({self.documents.lease}).",
            f"If it is killed now, only the shards at a worker are made again. {_KEPT}",
        )

    def _elsewhere(self) -> tuple[str, str]:
        return (
            (
                f"Running on another machine, or lost: {self.documents.lease} has not released its "
                f"lease; {self.progress}."
            ),
            f"Either way nothing is lost. {_KEPT}",
        )

    def _killed(self) -> tuple[str, str]:
        return (
            f"Killed: {self.documents.lease} died before it was done; {self.progress}.",
            _KEPT if self.committed else "Nothing was committed yet, and nothing is lost.",
        )

    def _stopped(self) -> tuple[str, str]:
        failed = self.counts[ShardState.FAILED]
        if self.stopped == StopReason.ROW_ERRORS:
            return self._too_many(), _KEPT
        if self.stopped:
            return f"Stopped ({self.stopped}): {self.progress}.", _KEPT
        if failed:
            return f"Failed: {counted(failed, 'shard')} failed; {self.progress}.", _KEPT
        return f"Ended early: {self.progress}.", _KEPT

    def _too_many(self) -> str:
        # The totals count committed shards alone; where each shard fails, they have none of the rows.
        kept = self.failed.of_failed_shards
        whose = f", {kept:,} of them in shards that failed" if kept else ""
        head = (
            "because too many rows failed" if self.totals.rows_out else "with no row in the output"
        )
        rows = counted(self.totals.rows_failed + kept, "row")
        return f"Stopped, {head} ({rows} failed{whose}){self.why}; {self.progress}."

    def _failed(self) -> tuple[str, str]:
        if not self.is_whole:
            return self._stopped()
        rows = f"{self.totals.rows_failed:,} of {counted(self.totals.rows_in, 'row')}"
        return (
            (
                f"Failed: every shard is committed, but {rows} failed, which is more than "
                f"errors.max_row_errors allows{self.why}."
            ),
            (
                "The output is not declared complete. The rows that did not fail are in its parts, the "
                "others are kept as dead letters."
            ),
        )

    def _damaged(self) -> tuple[str, str]:
        count = len(self.documents.problems)
        more = f" (and {count - 1:,} more)" if count > 1 else ""
        first = self.documents.problems[0].partition("\n")[0]
        return (
            f"Damaged: {first}{more}.",
            (
                f"Nothing was changed. {self.progress[0].upper()}{self.progress[1:]} as far as the "
                "records can be read; verify checks their parts, byte for byte."
            ),
        )

    def steps(self, state: str) -> Iterator[NextStep]:
        place = self.place
        if state == DAMAGED:
            yield NextStep("See the damage", place.on_spec("verify"))
            yield NextStep(
                "Take back what is damaged, make the rest", place.on_spec("verify --repair")
            )
        elif state == "complete":
            if self.totals.rows_failed:
                yield NextStep("See the rows that failed", place.on_any("errors"))
                yield NextStep("After a fix, retry them", place.on_spec("retry --rows"))
            else:
                yield NextStep("Check every byte and row", place.on_spec("verify"))
        elif state == "running":
            yield NextStep("Follow it", place.on_any("status --watch"))
        elif state.startswith("running"):
            yield NextStep("Look again", place.on_any("status"))
            yield NextStep(
                "If it is dead, take over (waits 30 s to see that)", place.on_spec("run")
            )
        else:
            yield from self._ways_on(state)

    def _ways_on(self, state: str) -> Iterator[NextStep]:
        place = self.place
        if (state == "failed" and self.is_whole) or self.stopped == StopReason.ROW_ERRORS:
            yield NextStep("See the rows that failed", place.on_any("errors"))
            yield NextStep("After a fix, retry them", place.on_spec("retry --rows"))
        elif self.counts[ShardState.FAILED]:
            yield NextStep("See what failed", place.on_any("errors"))
            rows = " --rows" if self.totals.rows_failed else ""
            again = f"retry{rows}" if self.documents.quarantined else "run"
            yield NextStep("After a fix, go on", place.on_spec(again))
        else:
            yield NextStep("Go on", place.on_spec("run"))
