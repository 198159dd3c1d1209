"""How far a run is, from its checkpoint alone: on any machine, while it runs or long after."""

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
    """What a checkpoint tells.

    Attributes:
        name: Of the spec.
        run_uid: Names the run.
        state: complete, running, running elsewhere, interrupted, stopped; or failed, when every shard
            is committed but too many rows were set aside.
        shards: How many there are.
        committed: How many are complete.
        quarantined: How many are set apart until `retry`.
        damaged: How many sentinels cannot be read.
        rows_in: Rows read for them.
        rows_out: Rows in their parts.
        rows_failed: Rows set aside and not gone through since.
        bytes_out: Size of their parts.
        driver: Who runs it, or ran it last.
        seconds_left: Estimate while it runs; None when there is none.
        checkpoint: Where all this stands.
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
    """Read the state of a run.

    Raises:
        ObjectNotFoundError: There is no run.
        DamagedOutputError: Its records cannot be read.
    """
    record = checkpoint.run()
    generations = checkpoint.generations()
    if record is None:
        checkpoint.refuse_without_record()
    if record is None or not generations:
        raise ObjectNotFoundError(f"there is no run in {checkpoint.storage.uri}")
    shards = StoredPlan.of(generations).active
    active = {shard.id for shard in shards}
    sentinels = checkpoint.sentinels()
    done = {shard: sentinel for shard, sentinel in sentinels.good.items() if shard in active}
    totals = Totals.of(shards, done)
    apart = [i for i in checkpoint.quarantined() if i in active and i not in done]
    lease = current_lease(checkpoint.storage)
    events = _events_of(checkpoint, lease)
    state = _state(lease, events, whole=len(done) == len(active))
    return Status(
        name=record.name,
        run_uid=record.run_uid,
        state=state,
        shards=len(active),
        committed=len(done),
        quarantined=len(apart),
        damaged=len(sentinels.damaged),
        rows_in=totals.rows_in,
        rows_out=totals.rows_out,
        rows_failed=totals.rows_failed,
        bytes_out=totals.bytes_out,
        driver=str(lease) if lease else "",
        seconds_left=_left(events, lease, done, len(active)) if "running" in state else None,
        checkpoint=checkpoint.storage.uri,
    )


def _events_of(checkpoint: Checkpoint, lease: Lease | None) -> list[dict[str, Any]]:
    """Return the events of the last session; none of them is needed."""
    try:
        data = checkpoint.storage.get(f"sessions/{lease.owner.session if lease else ''}.jsonl")
    except ObjectNotFoundError:
        return []
    try:
        events = [orjson.loads(line) for line in data.splitlines()]
        return [{**event, "at": datetime.fromisoformat(event["at"])} for event in events]
    except (ValueError, TypeError, KeyError):  # it is torn: the records alone tell
        return []


def _state(lease: Lease | None, events: Sequence[Mapping[str, Any]], *, whole: bool) -> str:
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
    done: Mapping[int, Sentinel],
    shards: int,
) -> int | None:
    """Estimate the seconds to the end from what the present session has committed so far."""
    session = lease.owner.session if lease else ""
    lately = sum(sentinel.session == session for sentinel in done.values())
    if not events:
        return None
    elapsed = (datetime.now(UTC) - events[0]["at"]).total_seconds()
    return round(elapsed * (shards - len(done)) / lately) if lately else None
