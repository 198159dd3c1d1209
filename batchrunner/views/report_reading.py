"""Reads, once, all that a checkpoint holds of its current run; what is damaged is passed over and named."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

from batchrunner.checkpoint import Checkpoint, RunRecord, Sentinel
from batchrunner.checkpoint.documents import Quarantine
from batchrunner.checkpoint.incarnations import record_key
from batchrunner.checkpoint.lease import Lease, all_leases, current_lease
from batchrunner.checkpoint.marks import Mark, marks_left
from batchrunner.checkpoint.plan_file import Generation
from batchrunner.checkpoint.sentinel_index import READERS, Sentinels
from batchrunner.driver.stored_plan import StoredPlan
from batchrunner.errors import DamagedOutputError, NewerFormatError, ObjectNotFoundError
from batchrunner.shard import Shard
from batchrunner.views.event_logs import Event, event_log, last_log
from batchrunner.views.report_clocks import by_drivers_clock

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class RunFacts:
    """What a checkpoint holds of its current run.

    Attributes:
        uri: URI of the checkpoint.
        sink: URI of the sink, as the plan has it; empty if it does not.
        asked: The run's record, then a record for each change that was accepted; those that can be read.
        shards: The shards that count, in plan order.
        sentinels: The sentinels of these shards, by id.
        damaged: What is wrong with each sentinel that cannot be read, by shard id.
        quarantined: The quarantined shards that are not committed, by id.
        marks: What workers that are at work, or died, had taken.
        lease: The lease of the latest epoch.
        leases: All leases, by session; a damaged one by a stand-in.
        events: The event logs by session, as far as they can be read.
        problems: What could not be read, each with its way out.
        skewed: Workers whose clock was wrong: the times in their sentinels are by the driver's.
    """

    uri: str
    sink: str
    asked: tuple[RunRecord, ...]
    shards: tuple[Shard, ...]
    sentinels: Mapping[int, Sentinel]
    damaged: Mapping[int, str]
    quarantined: Mapping[int, Quarantine]
    marks: tuple[Mark, ...]
    lease: Lease | None
    leases: Mapping[str, Lease]
    events: Mapping[str, tuple[Event, ...]]
    problems: tuple[str, ...]
    skewed: tuple[str, ...] = ()

    @property
    def session(self) -> str:
        """Id of the session that had the lease last; empty for none."""
        return self.lease.owner.session if self.lease else ""

    @property
    def last_events(self) -> tuple[Event, ...]:
        """The event log of the last session that could run shards; empty if it cannot be read."""
        by_epoch = sorted(self.leases.values(), key=lambda lease: -lease.epoch)
        return last_log(
            self.lease,
            lambda session: self.events.get(session, ()),
            before=lambda later: next((one for one in by_epoch if one.epoch < later.epoch), None),
        )

    @property
    def started_with(self) -> tuple[str, str]:
        """The spec of the last session that names one, as its command line did, and its folder; or empty."""
        in_order = sorted(self.leases.values(), key=lambda lease: -lease.epoch)
        logs = (self.events.get(lease.owner.session, ()) for lease in in_order)
        begun = (log[0] for log in logs if log and log[0].get("action") == "session_started")
        first: Event = next((event for event in begun if event.get("spec")), {})
        return str(first.get("spec", "")), str(first.get("folder", ""))

    @property
    def progress(self) -> Event:
        """How far the last session was at its last sign of life; empty once it has ended."""
        last = self.last_events[-1] if self.last_events else {}
        return last if last.get("action") == "progress" else {}


def read_documents(checkpoint: Checkpoint) -> RunFacts:
    """Read the documents of the current run. Needs no lease, and delays no driver.

    Raises:
        ObjectNotFoundError: There is no run.
        NewerFormatError: A later batchrunner wrote the run.
        StorageError: The checkpoint cannot be listed or read.
    """
    problems: list[str] = []
    # The lease first and the sentinels last: what is read late is at least as new as what it is held
    # against, so a run that ends meanwhile is never shown as dead.
    lease = current_lease(checkpoint.storage)
    asked = _asked(checkpoint, problems)
    generations: list[Generation] = _tried(checkpoint.generations, problems, default=[])
    plan = StoredPlan.of(generations) if generations else None
    if not asked and plan is None and not problems:
        raise ObjectNotFoundError(
            f"there is no run in {checkpoint.storage.uri}; check the path, or start one with "
            "`batchrunner run SPEC`"
        )
    shards = plan.active if plan else ()
    active = {shard.id for shard in shards}
    quarantined = checkpoint.quarantined()
    marks = marks_left(checkpoint.records)
    found: Sentinels = checkpoint.sentinels()
    good = {i: s for i, s in found.good.items() if i in active or plan is None}
    events = _events(checkpoint)
    timing = by_drivers_clock(good, events, now=time.time())
    return RunFacts(
        uri=checkpoint.storage.uri,
        sink=generations[-1].place.sink if generations else "",
        asked=asked,
        shards=shards,
        sentinels=timing.sentinels,
        damaged=found.damaged,
        quarantined={i: q for i, q in quarantined.items() if i in active and i not in good},
        marks=tuple(marks),
        lease=lease,
        leases=_leases(checkpoint),
        events=events,
        problems=(*problems, *found.damaged.values()),
        skewed=timing.skewed,
    )


def _tried(read: Callable[[], T], problems: list[str], *, default: T) -> T:
    """Return what *read* returns; if that is damaged, add it to *problems* and return *default*."""
    try:
        return read()
    except NewerFormatError:
        raise
    except DamagedOutputError as error:
        problems.append(str(error))
        return default


def _asked(checkpoint: Checkpoint, problems: list[str]) -> tuple[RunRecord, ...]:
    storage, records = checkpoint.storage, checkpoint.records
    keys = [(storage, record_key(checkpoint.incarnation))]
    keys += [(records, entry.key) for entry in records.list("changes")]
    found: list[RunRecord] = []
    for place, key in keys:
        where = f"{place.uri}/{key}"
        with contextlib.suppress(ObjectNotFoundError):
            data = place.get(key)
            record = _tried(
                lambda data=data, where=where: RunRecord.from_bytes(data, key=where),  # type: ignore[misc]
                problems,
                default=None,
            )
            found += [record] if record else []
    if not found:
        _tried(checkpoint.refuse_without_record, problems, default=None)
    return tuple(found)


def _leases(checkpoint: Checkpoint) -> dict[str, Lease]:
    found = all_leases(checkpoint.storage, readers=READERS)
    return {lease.owner.session: lease for lease in found}


def _events(checkpoint: Checkpoint) -> dict[str, tuple[Event, ...]]:
    names = (entry.key.partition("/")[2] for entry in checkpoint.storage.list("sessions"))
    ids = [name.removesuffix(".jsonl") for name in names if name.endswith(".jsonl")]
    with ThreadPoolExecutor(READERS) as pool:
        logs = pool.map(lambda session: event_log(checkpoint.storage, session), ids)
        return dict(zip(ids, logs, strict=True))
