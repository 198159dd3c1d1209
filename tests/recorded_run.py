"""Checkpoints of runs that took place on paper: real documents, as large and as old as a test wants."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import islice

import orjson

from batchrunner.checkpoint import Checkpoint, Generation, PlanFacts, RunPlace, RunRecord, Sentinel
from batchrunner.checkpoint.documents import Quarantine
from batchrunner.checkpoint.lease import Lease, LeaseOwner
from batchrunner.shard import Slicing
from batchrunner.storage import open_storage
from shards import one_slice

BEGAN = datetime(2026, 11, 24, 21, 40, 12, tzinfo=UTC).timestamp()
FACTS = PlanFacts(width=5, format="jsonl", compression="none", unit="size", count=64 << 20)


@dataclass
class OnPaper:
    """A session: how many shards it commits, at how many workers, and how it ends.

    Attributes:
        shards: How many shards it commits.
        workers: At how many workers.
        later: Seconds between the end of the session before and its beginning.
        end: What its last event says; None if it was killed.
        seconds: About how long a shard takes.
        versions: Packages that it found.
    """

    shards: int
    workers: int = 4
    later: float = 600.0
    end: dict | None = None
    seconds: float = 8.0
    versions: dict = field(default_factory=lambda: {"python": "3.12.3", "torch": "2.9.1"})


COMPLETE = {"committed": 0, "failed": 0, "stopped": None, "complete": True}


def record_run(
    folder, sessions, *, shards, name="nightly-embeddings", fails=0.0, dated=True, quarantined=()
):
    """Write the checkpoint of a run with these sessions into *folder*; return it, opened."""
    dice = random.Random(7)
    storage = open_storage(str(folder))
    checkpoint = Checkpoint.current(storage)
    record = RunRecord(
        "b7e6f2",
        name,
        _iso(BEGAN + 1),
        "ada@build-7",
        "source: in\n",
        {"source.format": '"jsonl"'},
        "f00d",
    )
    checkpoint.begin(record)
    plan = tuple(_shard(n) for n in range(shards))
    place = RunPlace("s3://lake/embeddings", str(folder))
    checkpoint.add_generation(Generation(FACTS, plan, place=place), number=0)
    now, first, sentinels = BEGAN, 0, {}
    for number, session in enumerate(sessions, 1):
        id_ = f"{number:032x}"
        now += session.later if number > 1 else 0.0
        made, until = _commit(
            session, id_, list(plan[first : first + session.shards]), now + 2, dice, fails, dated
        )
        sentinels |= made
        first += session.shards
        _write_log(storage, session, id_, number, (now, until), left=shards - first)
        now = until
    for shard in quarantined:
        stem = FACTS.stem(shard)
        why = (
            f"shard {shard} ({plan[shard].first.uri}): ValueError: cannot be read (at embed.py:41)"
        )
        checkpoint.quarantine({stem: Quarantine("b7e6f2", shard, why, 3, f"{len(sessions):032x}")})
    rest = iter(sentinels.items())
    while some := dict(islice(rest, 500)):  # each holds a file open until all are published
        checkpoint.publish(some)
    checkpoint.fold({s.shard: s for s in sentinels.values()}, name="all")
    return checkpoint


def _iso(seconds):
    return datetime.fromtimestamp(seconds, UTC).isoformat()


def _shard(number):
    file, slice_ = divmod(number, 8)
    uri = f"s3://lake/crawl/2026/part-{file:05d}.jsonl"
    start = slice_ * (64 << 20)
    return one_slice(
        number,
        uri,
        Slicing.BYTES,
        start,
        start + (64 << 20),
        512 << 20,
        f"{number:x}",
        weight=64 << 20,
    )


def _commit(session, id_, shards, began, dice, fails, dated):
    free = [began + 0.4 * n for n in range(session.workers)]
    made = {}
    for shard in shards:
        worker = min(range(session.workers), key=free.__getitem__)
        seconds = session.seconds * dice.lognormvariate(0, 0.3)
        rows = dice.randint(3_600, 4_400)
        failed = dice.randint(1, 5) if dice.random() < fails else 0
        times = {
            "worker": f"node-{worker // 2}-{4000 + worker}",
            "began": free[worker],
            "reading": seconds * 0.11,
            "calling": seconds * 0.82,
            "writing": seconds * 0.09,
        }
        made[FACTS.stem(shard.id)] = Sentinel(
            "b7e6f2",
            shard.id,
            FACTS.part(shard.id),
            rows,
            rows - failed,
            failed,
            rows * 900,
            "0" * 64,
            f"w{shard.id}",
            id_,
            seconds,
            **(times if dated else {}),
        )
        free[worker] += seconds
    return made, max(free) if shards else began + 3


def _write_log(storage, session, id_, number, when, *, left):
    began, until = when
    events = [
        {
            "at": _iso(began),
            "action": "session_started",
            "epoch": number,
            "pid": 4000 + number,
            "host": "build-7",
        },
        {"at": _iso(began + 1), "action": "packages_found", "versions": session.versions},
        {
            "at": _iso(began + 1),
            "action": "plan_made",
            "shards": left + session.shards,
            "pending": left + session.shards,
        },
    ]
    if session.end is not None:
        events.append({"at": _iso(until), "action": "session_ended", **session.end})
    storage.put(f"sessions/{id_}.jsonl", b"".join(orjson.dumps(e) + b"\n" for e in events))
    # A host of its own: no process here can be taken for the driver.
    owner = LeaseOwner(id_, "build-7", "boot", 4000 + number, "1")
    lease = Lease(number, owner, released=session.end is not None)
    storage.put(lease.key, lease.to_bytes())
