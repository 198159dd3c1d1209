"""A look at a checkpoint: what it says about its run at one moment, read without a lease."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from enum import StrEnum
from functools import cached_property
from statistics import median
from typing import Any

from batchrunner.checkpoint import Checkpoint, Quarantine, RunRecord, Sentinel
from batchrunner.checkpoint.lease import Lease, current_lease, lease_before
from batchrunner.checkpoint.totals import Totals
from batchrunner.driver.progress import COMMITTED, Phase, Progress
from batchrunner.driver.stored_plan import StoredPlan
from batchrunner.errors import ObjectNotFoundError
from batchrunner.shard import Shard
from batchrunner.views.event_logs import Event, end_in, event_log, is_readable, last_log
from batchrunner.views.stage_times import advice_in, stages_in

_STUCK_SECONDS, _STUCK_TIMES = 60.0, 10
"""A shard is pointed out as stuck if it takes this long, and so many times as long as others."""


class RunState(StrEnum):
    """What a run is at, as far as its checkpoint shows."""

    COMPLETE = "complete"
    RUNNING = "running"
    ELSEWHERE = "running elsewhere, or lost"
    INTERRUPTED = "interrupted"
    STOPPED = "stopped"
    FAILED = "failed"


_IN_PROGRESS = frozenset({RunState.RUNNING, RunState.ELSEWHERE})


@dataclass(frozen=True)
class Look:
    """What a checkpoint says about its run.

    Attributes:
        record: What was asked.
        shards: The shards of the plan that count.
        committed: The sentinels of these, by id.
        quarantined: Those of them that are quarantined, by id.
        damaged: What is wrong with each damaged sentinel, by shard id.
        lease: The lease of the last driver; None if there was none.
        events: The event log of its session, with `at` as a time; empty if missing or damaged from the
            start.
        now: When all this was read.
    """

    record: RunRecord
    shards: Sequence[Shard]
    committed: Mapping[int, Sentinel]
    quarantined: Mapping[int, Quarantine]
    damaged: Mapping[int, str]
    lease: Lease | None
    events: Sequence[Mapping[str, Any]]
    now: datetime

    @cached_property
    def state(self) -> RunState:
        whole = len(self.committed) == len(self.shards)
        failed = bool(self.quarantined)
        return state_of(self.lease, self.events, whole=whole, has_failed=failed)

    @property
    def last_renewal(self) -> datetime | None:
        """When the last driver renewed its lease, by its clock; None once it released it."""
        is_open = self.events and self.events[-1].get("action") == "progress"
        return self.events[-1]["at"] if is_open else None

    @property
    def silent_seconds(self) -> int | None:
        """How long ago that was, by the clock here; None without a renewal."""
        last = self.last_renewal
        return None if last is None else max(round((self.now - last).total_seconds()), 0)

    @cached_property
    def progress(self) -> Mapping[str, Any]:
        """How far the session was at its last renewal, while it runs; empty if it does not.

        What was in flight then, and is committed now, is not in flight any more.
        """
        if self.state not in _IN_PROGRESS or not self.last_renewal:
            return {}
        stored, totals = self.events[-1], Totals.of(self.shards, self.committed)
        weight = sum(shard.weight for shard in self.shards if shard.id in self.committed)
        rows = stored.get("rows_in_flight", 0) + stored.get("rows_in", 0) - totals.rows_in
        weight_left = stored.get("weight_in_flight", 0) + stored.get("weight_done", 0) - weight
        in_flight = {"rows_in_flight": max(rows, 0), "weight_in_flight": max(weight_left, 0)}
        return {**stored, **in_flight, "seconds_left": self._left(stored)}

    def _left(self, stored: Mapping[str, Any]) -> int | None:
        left = stored.get("seconds_left")
        return None if left is None else max(left - (self.silent_seconds or 0), 0)

    @property
    def stopped(self) -> str:
        """Why the last session stopped before its work was done; empty if it did not, or did not say."""
        return str(end_in(self.events).get("stopped") or "")

    @property
    def stuck(self) -> str:
        """A sentence about the slowest shard if it takes far longer than others; else empty."""
        shard, so_far = self.progress.get("slowest_shard"), self.progress.get("slowest_seconds")
        usual = self._usual_seconds(shard)
        if so_far is None or usual is None or so_far < max(_STUCK_SECONDS, _STUCK_TIMES * usual):
            return ""
        return f"shard {shard} has run for {so_far:,.0f} s; of its size, others took {usual:,.1f} s"

    def _usual_seconds(self, shard: int | None) -> float | None:
        """Return how long a shard of the size of *shard* took; None if none is committed yet."""
        weights = {one.id: max(one.weight, 1) for one in self.shards}
        took = [sentinel.seconds / weights[i] for i, sentinel in self.committed.items()]
        return median(took) * weights[shard] if took and shard in weights else None


def state_of(
    lease: Lease | None, events: Sequence[Event], *, whole: bool, has_failed: bool
) -> RunState:
    """Return the state of a run, by its lease and the *events* of its last session.

    Args:
        lease: The lease of the last session.
        events: Its events.
        whole: Whether all shards are committed.
        has_failed: Whether shards are quarantined.
    """
    # How the session ended decides, not the sentinels alone: with too many failed rows a run is not
    # complete.
    end = end_in(events)
    if whole and (end.get("complete") or not (end or is_readable(events))):
        return RunState.COMPLETE
    if lease is None or lease.released:
        # As `run` said: it stopped where something stopped it, and failed where shards did.
        failed = not end.get("stopped") and (has_failed or bool(end.get("failed")))
        return RunState.FAILED if end and (whole or failed) else RunState.STOPPED
    if not lease.owner.is_here():
        return RunState.ELSEWHERE
    return RunState.RUNNING if lease.owner.is_alive() else RunState.INTERRUPTED


def progress_of(look: Look) -> Progress:
    """Return the progress of the run that was looked at, as its own session last stored it.

    Which shards are in flight is not stored: their state is pending.
    """
    session = look.lease.owner.session if look.lease else ""
    earlier = {i: one for i, one in look.committed.items() if one.session != session}
    pending = [one for one in look.shards if one.id not in {*look.committed, *look.quarantined}]
    at_first = Progress.of(look.shards, earlier, pending=pending)
    now = Progress.of(look.shards, look.committed, pending=pending)
    began = (look.now - look.events[0]["at"]).total_seconds() if look.events else 0.0
    states = (
        COMMITTED if shard.id in look.committed and shard.id not in earlier else state
        for shard, state in zip(look.shards, now.states, strict=True)
    )
    begun = replace(
        now,
        weight_before=at_first.weight_done,
        resumed=len(earlier),
        began=time.monotonic() - began,
        states=bytes(states),
        phase=Phase.SURVEYING if look.state in _IN_PROGRESS else Phase.FINISHING,
    )
    return replace(begun, **stored_fields(look.progress, silent=look.silent_seconds or 0))


def stored_fields(facts: Mapping[str, Any], *, silent: float) -> dict[str, Any]:
    """Return the fields of `Progress` that are in *facts*, the event stored *silent* seconds ago."""
    if not facts:
        return {}
    names = ("failed", "workers", "workers_busy", "rows_in_flight", "weight_in_flight")
    optional = ("rows_allowed", "is_extrapolated", "usual_seconds")
    retried = ("rows_to_retry", "rows_retried", "is_retry")
    running, slowest = facts.get("running_seconds"), facts.get("slowest_shard")
    return {
        **{name: facts[name] for name in (*names, *optional, *retried) if name in facts},
        "phase": Phase(facts.get("phase", Phase.SURVEYING)),
        "loaded": None if running is None else time.monotonic() - running - silent,
        "slowest": None if slowest is None else (slowest, facts["slowest_seconds"] + silent),
        "stages": stages_in([facts]),
        "advice": advice_in([facts]),
    }


def look_at(checkpoint: Checkpoint) -> Look:
    """Read a checkpoint. What does not change is read once from the same *checkpoint*.

    Raises:
        ObjectNotFoundError: There is no run.
        DamagedOutputError: The run's record or its plan cannot be read.
    """
    record = checkpoint.run()
    generations = checkpoint.generations()
    if record is None:
        checkpoint.refuse_without_record()
    if record is None or not generations:
        raise ObjectNotFoundError(
            f"there is no run in {checkpoint.storage.uri}; check the path, or start one with "
            "`batchrunner run SPEC`"
        )
    shards = StoredPlan.of(generations).active
    active = {shard.id for shard in shards}
    sentinels = checkpoint.sentinels()
    committed = {i: sentinel for i, sentinel in sentinels.good.items() if i in active}
    quarantined = checkpoint.quarantined().items()
    lease = current_lease(checkpoint.storage)
    return Look(
        record=record,
        shards=shards,
        committed=committed,
        quarantined={i: q for i, q in quarantined if i in active and i not in committed},
        damaged=sentinels.damaged,
        lease=lease,
        events=events_of(checkpoint, lease),
        now=datetime.now(UTC),
    )


def events_of(checkpoint: Checkpoint, lease: Lease | None) -> Sequence[Event]:
    """Return the events of the last session that could run shards; none if missing or damaged."""
    return last_log(
        lease,
        lambda session: event_log(checkpoint.storage, session),
        before=lambda later: lease_before(checkpoint.storage, later),
    )
