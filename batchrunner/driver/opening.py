"""The beginning of a session: everything written down before the first shard is handed out."""

from __future__ import annotations

import contextlib
import getpass
import platform
import uuid
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from batchrunner.checkpoint import RunRecord, Sentinel
from batchrunner.checkpoint.commit import adopt
from batchrunner.checkpoint.incarnations import CLEARING
from batchrunner.driver.clearing import InTheWay
from batchrunner.driver.session import Session
from batchrunner.driver.sink_state import DAMAGED, refuse_unvouched
from batchrunner.driver.survey import Run, Survey
from batchrunner.errors import ForeignOutputError, LeaseHeldError
from batchrunner.shard import Shard
from batchrunner.spec.fingerprint import fingerprint
from batchrunner.worker.schema import SinkSchema

_AT_ONCE = 500
"""How many parts are removed between two looks at the lease."""


@dataclass(frozen=True, slots=True)
class Opened:
    """A run that is ready for its shards.

    Attributes:
        run: With the checkpoint that counts from now on.
        run_uid: Names it.
        committed: What is complete.
        pending: What is to be done, in the order of the ids.
    """

    run: Run
    run_uid: str
    committed: dict[int, Sentinel]
    pending: tuple[Shard, ...]


def open_run(run: Run, seen: Survey, session: Session) -> Opened:
    """Make what *seen* found durable and sealed.

    Idempotent: a session that dies in here leaves the next one the same to do, or less.

    Raises:
        ForeignOutputError: A part has the name of a shard, but no attempt of this run wrote it; or the
            sink is another run's since it was looked at.
        LeaseHeldError: Another driver does the same at this very moment, or took over.
    """
    if seen.starts_over:
        run.checkpoint.keep_number()
        run = replace(run, checkpoint=run.checkpoint.next())
    record = seen.record or _record(run, run_uid=uuid.uuid4().hex)
    # Before anything is written down: a run that may not write here leaves no records behind.
    is_known = seen.record is not None or seen.starts_over
    run.ownership(record.run_uid).claim(before_replacing=session.check, is_known=is_known)
    _remember(run, seen, record, session)
    # Before the plan: as long as there is none, whoever comes next goes on with making way.
    # And `_SUCCESS` must not stand over a plan that has grown.
    _make_way(run, seen.in_the_way, session)
    if seen.addition is not None:
        if seen.record is not None:  # shards that come late would be added to a finished output
            session.check()
        run.checkpoint.add_generation(seen.addition, number=seen.plan.generations - 1)
    SinkSchema(run.checkpoint, declared=run.spec.sink.schema_).declare()
    adopted = _adopt(run, seen, session, run_uid=record.run_uid)
    loose = {shard: seen.output.committed[shard] for shard in seen.output.unindexed}
    run.checkpoint.fold(loose, name=uuid.uuid4().hex)
    # Only now: an attempt that published its part needed its note to be adopted.
    session.check()
    run.sink.clean()
    run.checkpoint.storage.clean(intents=True)  # rows set aside have notes, and nobody adopts them
    committed = {**seen.output.committed, **adopted}
    refused = set(seen.output.unadopted) - adopted.keys()
    todo = {shard.id for shard in seen.pending} | refused
    pending = tuple(shard for shard in seen.plan.active if shard.id in todo)
    return Opened(run, record.run_uid, committed, pending)


def _make_way(run: Run, found: InTheWay, session: Session) -> None:
    """Take out of the sink what was seen there, and nothing that came since.

    `_SUCCESS` first: nobody may take for complete what is being removed.
    """
    for sign in found.signs:
        session.check()
        run.sink.delete_exactly([sign])
    for part in found.damaged:
        session.check()
        run.sink.move(part, f"{DAMAGED}/{session.id}/{part.key}")
    for start in range(0, len(found.parts), _AT_ONCE):
        session.check()
        run.sink.delete_exactly(found.parts[start : start + _AT_ONCE])
    if run.checkpoint.is_half_cleared:
        run.checkpoint.storage.delete([CLEARING])


def _remember(run: Run, seen: Survey, record: RunRecord, session: Session) -> None:
    if seen.record is None:
        run.checkpoint.begin(record)
        if seen.starts_over:
            _keep_if_ours(run, record, session)
    elif seen.accepted:
        session.check()
        run.checkpoint.accept_change(_record(run, run_uid=record.run_uid))


def _keep_if_ours(run: Run, record: RunRecord, session: Session) -> None:
    """Take the claim back if it came late: it would end the run of the driver that took over."""
    try:
        session.check()
    except LeaseHeldError:
        run.checkpoint.withdraw(record)
        raise


def _record(run: Run, *, run_uid: str) -> RunRecord:
    return RunRecord(
        run_uid=run_uid,
        name=run.spec.name,
        created_at=datetime.now(UTC).isoformat(timespec="seconds"),
        created_by=f"{_user()}@{platform.node()}",
        spec=run.spec.kept_text,
        decisive=dict(run.decisive),
        fingerprint=fingerprint(run.decisive),
    )


def _user() -> str:
    with contextlib.suppress(OSError, KeyError):  # a container may run as nobody in particular
        return getpass.getuser()
    return "unknown"


def _adopt(run: Run, seen: Survey, session: Session, *, run_uid: str) -> dict[int, Sentinel]:
    """Seal the parts that were published by a worker which died before it could.

    Those that a worker of an ended run published late are removed.
    """
    facts, found, unvouched = seen.plan.facts, {}, []
    for shard in seen.output.unadopted:
        stem, part = facts.stem(shard), facts.part(shard)
        try:
            found[stem] = adopt(
                stem, part, run_uid=run_uid, sink=run.sink, checkpoint=run.checkpoint
            )
        except ForeignOutputError:
            if not run.cleared.remove(part, check=session.check):
                unvouched.append(part)
    if unvouched:  # all at once: each of them read costs its bytes, but one a run costs days
        refuse_unvouched(run.sink.uri, unvouched)
    counting = run.checkpoint.publish(found)
    run.sink.remove_intents([sentinel.part for sentinel in counting.values()])
    return {sentinel.shard: sentinel for sentinel in counting.values()}
