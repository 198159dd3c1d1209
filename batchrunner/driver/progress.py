"""The progress of a run, and what shows it."""

from __future__ import annotations

import logging
import time
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum
from typing import Any, Protocol

from batchrunner.checkpoint import Sentinel
from batchrunner.checkpoint.totals import Totals, Usage, added, usage_of
from batchrunner.shard import Shard
from batchrunner.spec import ErrorsSpec
from batchrunner.worker.stage_clock import StageClock

_log = logging.getLogger(__name__)
_FIRST_SECONDS = 2.0
"""How long workers must have run before their speed says something."""
_LONG_SECONDS, _LONG_TIMES = 5.0, 4
"""A shard is waited for once it has run this long, and so many times as long as is usual."""


class Phase(StrEnum):
    """What a session is doing; the phases follow each other in this order."""

    SURVEYING = "surveying"
    """It lists source, checkpoint and sink, and compares them."""
    STARTING = "starting"
    """It connects to Ray, or starts it."""
    LOADING = "loading"
    """Workers load the capability; none is ready yet."""
    RUNNING = "running"
    """At least one worker has loaded the capability."""
    FINISHING = "finishing"
    """All shards that will be committed are: it writes the record, the manifest and `_SUCCESS`."""


PENDING, IN_FLIGHT, COMMITTED, COMMITTED_BEFORE, FAILED = b".~#=x"
"""The states of a shard in `Progress.states`."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a run is. Before the survey is over, the run has no shards.

    Attributes:
        shards: Number of shards.
        committed: Number of committed shards.
        totals: Totals of the committed shards. Dead letters that this session retries count as
            failed only once they have failed again.
        weight: Size of all shards, in bytes of the source.
        weight_done: Size of the committed shards.
        weight_before: Size of the shards that were committed when this session began.
        failed: Number of shards that failed in this session.
        began: When the session began, by the monotonic clock.
        phase: What the session is doing.
        loaded: When the first worker was ready, by the monotonic clock; None before that.
        resumed: Number of the shards that earlier sessions committed.
        workers: Number of workers heard of lately, those that load the capability included.
        workers_busy: Number of workers that process a shard.
        rows_in_flight: Rows that have gone through the capability in shards that are not ended.
        weight_in_flight: Estimated size of these rows, in bytes of the source.
        rows_allowed: How many rows may fail in the whole run; None if unknown yet.
        is_extrapolated: Whether that is a share of an estimated number of rows, so that it moves.
        slowest: Id and seconds so far of the shard that has been in flight longest; None if none is.
        usual_seconds: How long a shard of that one's size took in this session; None if unknown.
        rows_to_retry: Number of dead letters that this session is to retry.
        rows_retried: Number of those in shards that are committed.
        is_retry: Whether this session does nothing but retry dead letters.
        stages: What the workers of this session have spent their time on, from the reading of the
            source to the writing of the parts.
        advice: Which of them bounds the run, and what to change; empty if that is not clear.
        usage: What the calls have used that the committed shards came of, in all sessions.
        spent: What all calls have used, in all sessions, whatever became of them.
        states: The state of each shard in the order of the plan, one byte each: `.` pending, `~` in
            flight, `#` committed in this session, `=` committed before, `x` failed or quarantined.
        ids: Id of each shard in the order of the plan.
    """

    shards: int
    committed: int
    totals: Totals
    weight: int
    weight_done: int
    weight_before: int
    failed: int = 0
    began: float = field(default_factory=time.monotonic)
    phase: Phase = Phase.RUNNING
    loaded: float | None = None
    resumed: int = 0
    workers: int = 0
    workers_busy: int = 0
    rows_in_flight: int = 0
    weight_in_flight: float = 0.0
    rows_allowed: int | None = None
    is_extrapolated: bool = False
    slowest: tuple[int, float] | None = None
    usual_seconds: float | None = None
    rows_to_retry: int = 0
    rows_retried: int = 0
    is_retry: bool = False
    stages: tuple[StageClock, ...] = ()
    advice: str = ""
    usage: Usage = field(default_factory=dict)
    spent: Usage = field(default_factory=dict)
    states: bytes = b""
    ids: tuple[int, ...] = ()

    @classmethod
    def before_the_survey(cls) -> Progress:
        """Return the progress of a session that does not know its shards yet."""
        totals = Totals()
        return cls(0, 0, totals, weight=0, weight_done=0, weight_before=0, phase=Phase.SURVEYING)

    @classmethod
    def of(
        cls, shards: Sequence[Shard], committed: Mapping[int, Sentinel], *, pending: Iterable[Shard]
    ) -> Progress:
        """Return the progress of a run with *shards*; this session runs those in *pending*."""
        totals, todo = Totals.of(shards, committed), {shard.id: shard for shard in pending}
        retried = sum(shard.rows or 0 for shard in todo.values() if shard.retries is not None)
        done = sum(shard.weight for shard in shards if shard.id in committed)
        return cls(
            shards=len(shards),
            committed=len(committed),
            totals=replace(totals, rows_failed=totals.rows_failed - retried),
            weight=sum(shard.weight for shard in shards),
            weight_done=done,
            weight_before=done,
            resumed=len(committed),
            rows_to_retry=retried,
            is_retry=bool(todo) and all(shard.retries is not None for shard in todo.values()),
            states=bytes(_state(shard.id, committed, todo) for shard in shards),
            ids=tuple(shard.id for shard in shards),
            usage=usage_of(shards, committed),
        )

    @classmethod
    def at_the_end(cls, shards: Sequence[Shard], committed: Mapping[int, Sentinel]) -> Progress:
        """Return the progress of a run with *shards* of which none will run."""
        return replace(cls.of(shards, committed, pending=()), phase=Phase.FINISHING)

    def committing(self, shard: Shard, sentinel: Sentinel) -> Progress:
        """Return the progress after *shard* is committed with *sentinel*."""
        is_retry = shard.retries is not None
        totals = Totals(
            # The rows of a retry are counted already, by the shard that read them first.
            rows_in=self.totals.rows_in + (0 if is_retry else sentinel.rows_in),
            rows_out=self.totals.rows_out + sentinel.rows_out,
            rows_failed=self.totals.rows_failed + sentinel.rows_failed,
            bytes_out=self.totals.bytes_out + sentinel.bytes,
        )
        done = self.weight_done + shard.weight
        return replace(
            self,
            committed=self.committed + 1,
            totals=totals,
            usage=added(self.usage, sentinel.usage),
            weight_done=done,
            rows_retried=self.rows_retried + (sentinel.rows_in if is_retry else 0),
        )

    def grown(self, shards: Sequence[Shard], *, not_retried: int) -> Progress:
        """Return the progress with *shards* as those of the run, and *not_retried* dead letters fewer."""
        failed = self.totals.rows_failed + not_retried
        return replace(
            self,
            shards=len(shards),
            weight=sum(shard.weight for shard in shards),
            totals=replace(self.totals, rows_failed=failed),
            rows_to_retry=self.rows_to_retry - not_retried,
            ids=tuple(shard.id for shard in shards),
        )

    def failing(self, failed: int) -> Progress:
        """Return the progress with *failed* as the number of shards that failed in this session."""
        return self if failed == self.failed else replace(self, failed=failed)

    def exceeds(self, policy: ErrorsSpec) -> bool:
        """Return whether more rows failed than *policy* allows the whole run.

        The number of rows of the run is extrapolated from the committed shards, by their size.
        """
        return self.totals.rows_failed > policy.allowed(self._likely_rows())

    def allowed(self, policy: ErrorsSpec) -> int | None:
        """Return how many rows *policy* allows the whole run to fail; None if that is unknown yet."""
        is_known = isinstance(policy.max_row_errors, int) or self.totals.rows_in
        return int(policy.allowed(self._likely_rows())) if is_known else None

    def _likely_rows(self) -> float:
        return self.totals.rows_in * self.weight / max(self.weight_done, 1)

    @property
    def seconds(self) -> float:
        """How long this session has run."""
        return time.monotonic() - self.began

    @property
    def share(self) -> float:
        """Share of the work that is done, from 0 to 1, measured by the size of the shards.

        Rows in flight count: it moves within a shard. It goes back when a worker dies.
        """
        return min((self.weight_done + self.weight_in_flight) / max(self.weight, 1), 1.0)

    @property
    def waits(self) -> bool:
        """Whether the slowest shard has run for several times what is usual: it may hang."""
        if self.slowest is None or self.usual_seconds is None:
            return False
        return self.slowest[1] > max(_LONG_SECONDS, _LONG_TIMES * self.usual_seconds)

    @property
    def cost_left(self) -> float | None:
        """What the rest would cost, if a byte of the source costs what it has so far; None if unknown."""
        cost = self.usage.get("cost")
        if cost is None or not self.weight_done:
            return None
        return cost * max(self.weight - self.weight_done, 0) / self.weight_done

    def seconds_left(self) -> float | None:
        """Estimate the seconds to the end, by this session's speed; None before there is one.

        And none while it waits for a shard: no speed says when that one ends. The time before a worker was ready does not count: starting Ray and loading a model take as
        long for a small run as for a large one.
        """
        elapsed = time.monotonic() - (self.began if self.loaded is None else self.loaded)
        done = self.weight_done + self.weight_in_flight
        gained = done - self.weight_before
        if gained <= 0 or elapsed < _FIRST_SECONDS or self.waits:
            return None
        return max(elapsed * (self.weight - done) / gained, 0.0)

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain values, without the states of the shards."""
        left = self.seconds_left()
        return {
            "phase": str(self.phase),
            **{name: getattr(self, name) for name in _STORED},
            **asdict(self.totals),
            "slowest_shard": self.slowest[0] if self.slowest else None,
            "slowest_seconds": round(self.slowest[1], 1) if self.slowest else None,
            "usual_seconds": None if self.usual_seconds is None else round(self.usual_seconds, 1),
            "share": round(self.share, 4),
            "seconds": round(self.seconds, 1),
            "running_seconds": None
            if self.loaded is None
            else round(time.monotonic() - self.loaded, 1),
            "seconds_left": None if left is None else round(left),
            "stages": [clock.to_dict() for clock in self.stages],
            "advice": self.advice,
            "usage": dict(self.usage),
            "spent": dict(self.spent),
        }


_STORED = (
    *("shards", "committed", "resumed", "failed"),
    *("workers", "workers_busy", "rows_in_flight", "rows_allowed", "is_extrapolated"),
    *("rows_to_retry", "rows_retried", "is_retry"),
    *("weight", "weight_done", "weight_in_flight"),
)


def _state(shard: int, committed: Container[int], pending: Container[int]) -> int:
    """Return the state of *shard* before any is handed out; one in neither is quarantined."""
    if shard in committed:
        return COMMITTED_BEFORE
    return PENDING if shard in pending else FAILED


class Display(Protocol):
    """Shows the progress of a run."""

    def show(self, progress: Progress) -> None:
        """Take the current *progress*. Called several times a second; need not show each call."""

    def close(self) -> None:
        """Remove the display, if it stays on the screen. Called last."""


class FromStart:
    """Passes progress on to a display, as of the one session that began when this object was made.

    A display that raises is shown nothing more: the run goes on without it.
    """

    def __init__(self, display: Display) -> None:
        self._display, self.began = display, time.monotonic()
        self._is_broken = False

    def show(self, progress: Progress) -> None:
        if self._is_broken:
            return
        try:
            self._display.show(replace(progress, began=self.began))
        except Exception as error:  # noqa: BLE001 - a display may be the user's, or write to what is gone
            self._is_broken = True
            _log.warning("progress is not shown from here on: the display raised %r", error)

    def close(self) -> None:
        self._display.close()


class NoDisplay:
    """Shows nothing."""

    def show(self, progress: Progress) -> None:
        pass

    def close(self) -> None:
        pass
