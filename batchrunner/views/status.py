"""The status of a run, from its checkpoint alone: on any machine, while it runs or long after."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

import orjson

from batchrunner.checkpoint import Checkpoint, Sentinel
from batchrunner.checkpoint.lease import Lease, current_lease
from batchrunner.checkpoint.totals import Totals
from batchrunner.driver.plan import StoredPlan
from batchrunner.errors import ObjectNotFoundError


@dataclass(frozen=True, slots=True)
class Status:
    """How far a run is.

    Attributes:
        name: Name of the spec.
        run_uid: Names the run.
        state: complete, running, "running elsewhere, or lost", interrupted, stopped; or failed, when
            every shard is committed but too many rows failed.
        shards: How many shards the run has.
        committed: How many shards are complete.
        quarantined: How many shards are quarantined until `retry`.
        damaged: How many sentinels cannot be read.
        rows_in: Rows read for the committed shards.
        rows_out: Rows in their parts.
        rows_failed: Rows that failed, without those that succeeded in a retry.
        bytes_out: Size of their parts.
        driver: The driver that runs it, or ran it last.
        seconds_left: Estimated seconds to the end while it runs; None when there is no estimate.
        checkpoint: URI of the checkpoint.
    """

    name: str
    run_uid: str
    state: str
    shards: int
    committed: int
    quarantined: int
    damaged: int
    rows_in: int
    rows_out: int
    rows_failed: int
    bytes_out: int
    driver: str
    seconds_left: int | None
    checkpoint: str

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def status_of(checkpoint: Checkpoint) -> Status:
    """Read the status of a run. Needs no lease, and delays no driver.

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
    quarantined = [i for i in checkpoint.quarantined() if i in active and i not in committed]
    lease = current_lease(checkpoint.storage)
    events = _events_of(checkpoint, lease)
    state = state_of(lease, events, whole=len(committed) == len(active))
    return Status(
        name=record.name,
        run_uid=record.run_uid,
        state=state,
        shards=len(active),
        committed=len(committed),
        quarantined=len(quarantined),
        damaged=len(sentinels.damaged),
        **asdict(Totals.of(shards, committed)),
        driver=str(lease) if lease else "",
        seconds_left=_left(events, lease, committed, len(active)) if "running" in state else None,
        checkpoint=checkpoint.storage.uri,
    )


def _events_of(checkpoint: Checkpoint, lease: Lease | None) -> list[dict[str, Any]]:
    """Return the events of the last session; none if they are missing or damaged."""
    try:
        data = checkpoint.storage.get(f"sessions/{lease.owner.session if lease else ''}.jsonl")
    except ObjectNotFoundError:
        return []
    try:
        events = [orjson.loads(line) for line in data.splitlines()]
        return [{**event, "at": datetime.fromisoformat(event["at"])} for event in events]
    except (
        ValueError,
        TypeError,
        KeyError,
    ):  # without them, the state follows from the records alone
        return []


def state_of(lease: Lease | None, events: Sequence[Mapping[str, Any]], *, whole: bool) -> str:
    """Return the state of a run, by its lease, the *events* of its last session, and whether it is *whole*."""
    # The last event decides, not the sentinels alone: with too many failed rows a run is not complete.
    if whole and (not events or events[-1].get("complete")):
        return "complete"
    if lease is None or lease.released:
        return "failed" if whole else "stopped"
    if not lease.owner.is_here():
        return "running elsewhere, or lost"
    return "running" if lease.owner.is_alive() else "interrupted"


def _left(
    events: Sequence[Mapping[str, Any]],
    lease: Lease | None,
    committed: Mapping[int, Sentinel],
    shards: int,
) -> int | None:
    """Estimate the seconds to the end from this session's speed; None before its first shard."""
    session = lease.owner.session if lease else ""
    of_session = sum(sentinel.session == session for sentinel in committed.values())
    if not events or not of_session:
        return None
    elapsed: float = (datetime.now(UTC) - events[0]["at"]).total_seconds()
    return round(elapsed * (shards - len(committed)) / of_session)
