"""The status of a run, from its checkpoint alone: on any machine, while it runs or long after."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from batchrunner.checkpoint import Checkpoint
from batchrunner.checkpoint.answers import journaled_rows
from batchrunner.checkpoint.totals import Totals, usage_of
from batchrunner.driver.session import StopReason
from batchrunner.views.look import Look, RunState, look_at
from batchrunner.views.spending import spent_in
from batchrunner.views.stage_times import advice_in, stages_in


@dataclass(frozen=True, slots=True)
class Status:
    """How far a run is.

    Attributes:
        name: Name of the spec.
        run_uid: Names the run.
        state: complete, running, "running elsewhere, or lost", interrupted, stopped; or failed, when
            shards failed, or all are committed but too many rows failed.
        phase: What the session does while it runs: surveying, starting (Ray), loading (the
            capability), running or finishing; empty if it does not run, or is not known yet.
        shards: How many shards the run has.
        committed: How many shards are complete.
        quarantined: How many shards are quarantined until `retry`.
        damaged: How many sentinels cannot be read.
        rows_in: Rows read for the committed shards.
        rows_out: Rows in their parts.
        rows_failed: Rows that failed, without those that succeeded in a retry.
        bytes_out: Size of their parts.
        rows_in_flight: Rows that have gone through the capability in shards that are not committed.
        answers_journaled: For how many rows of shards that are not committed the journal has answers, for which no
            session asks again; None while it runs, and for a run without any.
        rows_allowed: How many rows may fail; None if that is not known yet, or it does not run.
        workers: Number of workers that were heard of lately.
        workers_busy: Number of those that have shards.
        slowest_shard: The shard that has been in flight longest; None if none is.
        slowest_seconds: How long that is.
        stuck: If that is far longer than others took, a sentence that says so; else empty.
        driver: The driver that runs it, or ran it last.
        last_renewal: When that driver last renewed its lease, by its clock, ISO 8601; empty if it
            never did, or the session is over.
        silent_seconds: How long ago that was, by the clock here; None without one.
        stages: What the workers of the last session spent their time on: a clock for the reading, each
            stage of the capability, and the writing, as plain values.
        usage: What the calls have used that the committed rows came of, with their `cost`.
        spent: What all calls have used, as far as the last session has reported it.
        advice: Which of them bounds the run, and what to change; empty if that is not clear.
        seconds_left: Estimated seconds to the end while it runs; None when there is no estimate.
        checkpoint: URI of the checkpoint.
        next: The next command to paste.
    """

    name: str
    run_uid: str
    state: str
    phase: str
    shards: int
    committed: int
    quarantined: int
    damaged: int
    rows_in: int
    rows_out: int
    rows_failed: int
    bytes_out: int
    rows_in_flight: int
    answers_journaled: int | None
    rows_allowed: int | None
    workers: int
    workers_busy: int
    slowest_shard: int | None
    slowest_seconds: float | None
    stuck: str
    driver: str
    last_renewal: str
    silent_seconds: int | None
    seconds_left: int | None
    stages: tuple[Mapping[str, Any], ...]
    advice: str
    usage: Mapping[str, float]
    spent: Mapping[str, float]
    checkpoint: str
    next: str

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def status_of(checkpoint: Checkpoint, *, place: str = "", spec: str = "SPEC") -> Status:
    """Read the status of a run. Needs no lease, and delays no driver.

    Args:
        checkpoint: The checkpoint of the run.
        place: How the next command names the run; by default, by the URI of its checkpoint.
        spec: How the next command names its spec.

    Raises:
        ObjectNotFoundError: There is no run.
        DamagedOutputError: The run's record or its plan cannot be read.
        StorageError: The checkpoint cannot be read.
    """
    look = look_at(checkpoint)
    usage = usage_of(look.shards, look.committed)
    return Status(
        name=look.record.name,
        run_uid=look.record.run_uid,
        state=look.state,
        shards=len(look.shards),
        committed=len(look.committed),
        quarantined=len(look.quarantined),
        damaged=len(look.damaged),
        **asdict(Totals.of(look.shards, look.committed)),
        answers_journaled=_journaled(checkpoint, look),
        **_live(look),
        stuck=look.stuck,
        driver=str(look.lease) if look.lease else "",
        last_renewal=look.last_renewal.isoformat(timespec="seconds") if look.last_renewal else "",
        silent_seconds=look.silent_seconds,
        stages=tuple(clock.to_dict() for clock in stages_in(look.events)),
        advice=advice_in(look.events),
        usage=dict(usage),
        spent=dict(spent_in(look.events, run_uid=look.record.run_uid, committed=usage)),
        checkpoint=checkpoint.storage.uri,
        next=next_command(look, place=place or checkpoint.storage.uri, spec=spec),
    )


def _journaled(checkpoint: Checkpoint, look: Look) -> int | None:
    if look.state in (RunState.RUNNING, RunState.COMPLETE):
        return None
    pending = {shard.id for shard in look.shards} - look.committed.keys()
    return journaled_rows(checkpoint.records, look.record.run_uid, pending=pending) or None


def _live(look: Look) -> dict[str, Any]:
    progress = look.progress
    return {
        "phase": progress.get("phase", ""),
        "rows_in_flight": progress.get("rows_in_flight", 0),
        "rows_allowed": progress.get("rows_allowed"),
        "workers": progress.get("workers", 0),
        "workers_busy": progress.get("workers_busy", 0),
        "slowest_shard": progress.get("slowest_shard"),
        "slowest_seconds": progress.get("slowest_seconds"),
        "seconds_left": progress.get("seconds_left"),
    }


def next_command(look: Look, *, place: str, spec: str) -> str:
    """Return the next command: what a tired person may paste without harm.

    The first step of the verdict in the report is the same.
    """
    if look.damaged:
        return f"batchrunner verify --repair {spec}"
    if look.state is RunState.RUNNING:
        return f"batchrunner {'logs' if look.stuck else 'status --watch'} {place}"
    if _has_failed(look):
        return f"batchrunner errors {place}"
    if look.state is RunState.COMPLETE:
        return f"batchrunner verify {spec}"
    if look.record.trial:  # SPEC, since this sink is the trial's
        return f"batchrunner run {look.record.trial} SPEC"
    # `run` is safe also where the driver may be alive: it waits, and takes over only from a dead one.
    return f"batchrunner run {spec}"


def _has_failed(look: Look) -> bool:
    """Return whether a person has to act first: `errors` lists what failed, and how to retry it."""
    if look.state is RunState.COMPLETE:
        return Totals.of(look.shards, look.committed).rows_failed > 0
    if look.state not in (RunState.STOPPED, RunState.FAILED):
        return False
    left = len(look.shards) - len(look.committed) - len(look.quarantined)
    # Also a shard that failed and is not quarantined is run again by `run`.
    is_stuck = not left and (look.state is RunState.FAILED or bool(look.quarantined))
    return look.stopped == StopReason.ROW_ERRORS or is_stuck
