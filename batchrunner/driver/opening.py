"""The beginning of a session: makes the run durable before the driver hands out the first shard."""

from __future__ import annotations

import contextlib
import getpass
import logging
import platform
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from batchrunner.checkpoint import RunRecord, Sentinel
from batchrunner.checkpoint.commit import adopt
from batchrunner.checkpoint.incarnations import CLEARING
from batchrunner.driver.clearing import StaleOutput
from batchrunner.driver.retiring import files_of, put_aside, retire
from batchrunner.driver.run import Run
from batchrunner.driver.session import Session
from batchrunner.driver.sink_state import DAMAGED, refuse_unvouched
from batchrunner.driver.survey import Survey
from batchrunner.errors import ForeignOutputError, LeaseHeldError, TakenPathError
from batchrunner.shard import Shard
from batchrunner.spec.fingerprint import fingerprint
from batchrunner.storage import Entry
from batchrunner.worker.schema import SinkSchema

_log = logging.getLogger(__name__)

_REMOVED_AT_ONCE = 500
"""How many parts are removed between two checks of the lease."""


@dataclass(frozen=True, slots=True)
class Opened:
    """A run whose plan is durable, so that its shards can be handed out.

    Attributes:
        run: The run; a `--fresh` has given it a new checkpoint.
        run_uid: Identifies the run.
        committed: Sentinels of the committed shards, by id.
        pending: Shards to run, in the order of their ids.
        adopted: Number of the committed shards that had a part and no sentinel until now.
        first: Id of the pending shard whose part fixes the types that the spec does not declare;
            other workers wait for it. None if the spec declares them or the parts have no types.
    """

    run: Run
    run_uid: str
    committed: dict[int, Sentinel]
    pending: tuple[Shard, ...]
    first: int | None = None
    adopted: int = 0


def open_run(run: Run, survey: Survey, session: Session) -> Opened:
    """Make the plan of *survey* durable, and adopt the parts that lack a sentinel.

    Idempotent: if the session dies in here, the next one does the remaining steps.

    Raises:
        ForeignOutputError: A part has the name of a shard, but no attempt of this run wrote it; or
            another run has claimed the sink since the survey.
        LeaseHeldError: Another driver opens the run at the same time, or has taken over.
    """
    if survey.starts_over:
        run.checkpoint.keep_number()
        run = replace(run, checkpoint=run.checkpoint.next())
    record = survey.record or _record(run, run_uid=uuid.uuid4().hex)
    # Before any record is written: a run that does not own the sink leaves no records behind.
    has_begun = survey.record is not None or survey.starts_over
    run.ownership(record.run_uid).claim(before_replacing=session.check, has_begun=has_begun)
    _record_request(run, survey, record, session)
    # Before the plan: as long as there is no plan, the next driver goes on with clearing the sink.
    # And `_SUCCESS` must not declare the output complete once the plan has grown.
    _clear_sink(run, survey.stale, session)
    if survey.addition is not None:
        if survey.record is not None:  # a displaced driver would add shards to a complete output
            session.check()
        run.checkpoint.add_generation(survey.addition, number=survey.plan.generations - 1)
    SinkSchema(run.checkpoint, declared=run.spec.sink.schema_).declare()
    adopted, taken = _adopt(run, survey, session, run_uid=record.run_uid)
    if survey.plan.facts.part_format.publishes_files:
        # Before any shard is handed out: successors want the paths of retired parts, and a shard whose paths
        # are taken is made again, where the conflict costs its row.
        done = {**survey.output.committed, **adopted}.values()
        put_aside(run.sink, taken, folder=session.id, active=done, check=session.check)
        retire(run.sink, survey.output.retired, active=done, check=session.check)
    unindexed = {shard: survey.output.committed[shard] for shard in survey.output.unindexed}
    run.checkpoint.fold(unindexed, name=uuid.uuid4().hex)
    # Only after the adoption: a part without a sentinel is adopted by its intent.
    session.check()
    run.sink.clean()
    # Including intents: in the checkpoint they belong to dead letters, which are never adopted.
    run.checkpoint.storage.clean(intents=True)
    committed = {**survey.output.committed, **adopted}
    not_adopted = set(survey.output.unadopted) - adopted.keys() - survey.quarantined.keys()
    todo = {shard.id for shard in survey.pending} | not_adopted
    pending = tuple(shard for shard in survey.plan.active if shard.id in todo)
    first = _first(run, survey, pending)
    return Opened(run, record.run_uid, committed, pending, first, adopted=len(adopted))


def _first(run: Run, survey: Survey, pending: Sequence[Shard]) -> int | None:
    if not survey.plan.facts.part_format.keeps_schema or run.spec.sink.schema_ is not None:
        return None
    return min((shard.id for shard in pending), default=None)


def _clear_sink(run: Run, stale: StaleOutput, session: Session) -> None:
    """Remove the *stale* output from the sink; leave objects that were written after the survey.

    `_SUCCESS` is removed first: a reader must not take a half-removed output for complete.
    """
    for entry in stale.declaration:
        session.check()
        run.sink.delete_exactly([entry])
    for part in stale.damaged:
        session.check()
        # Files before their part: without it, no record says which files are the run's.
        for entry in (*_files_of(run, stale, part), part):
            run.sink.move(entry, f"{DAMAGED}/{session.id}/{entry.key}")
    for part in stale.parts if stale.list_files else ():
        session.check()
        run.sink.delete_exactly(_files_of(run, stale, part))
    for start in range(0, len(stale.parts), _REMOVED_AT_ONCE):
        session.check()
        run.sink.delete_exactly(stale.parts[start : start + _REMOVED_AT_ONCE])
    # Last: as long as this object exists, the next session goes on with clearing.
    if run.checkpoint.is_half_cleared:
        run.checkpoint.storage.delete([CLEARING])


def _files_of(run: Run, stale: StaleOutput, part: Entry) -> list[Entry]:
    return files_of(run.sink, part) if stale.list_files else []


def _record_request(run: Run, survey: Survey, record: RunRecord, session: Session) -> None:
    if survey.record is None:
        run.checkpoint.begin(record)
        if survey.starts_over:
            _withdraw_if_displaced(run, record, session)
    elif survey.accepted or run.spec.kept_text != record.spec:  # for reports: batch_size, say
        session.check()
        run.checkpoint.accept_change(_record(run, run_uid=record.run_uid))


def _withdraw_if_displaced(run: Run, record: RunRecord, session: Session) -> None:
    """Remove a *record* written after another driver took over: it would end that driver's run."""
    try:
        session.check()
    except LeaseHeldError:
        run.checkpoint.withdraw(record)
        raise


def _record(run: Run, *, run_uid: str) -> RunRecord:
    return RunRecord(
        run_uid=run_uid,
        name=run.spec.name,
        created_at=datetime.now(UTC).isoformat(timespec="milliseconds"),
        created_by=f"{_user()}@{platform.node()}",
        spec=run.spec.kept_text,
        decisive=dict(run.decisive),
        fingerprint=fingerprint(run.decisive),
    )


def _user() -> str:
    with contextlib.suppress(OSError, KeyError):  # the user of a container may have no name
        return getpass.getuser()
    return "unknown"


def _adopt(
    run: Run, survey: Survey, session: Session, *, run_uid: str
) -> tuple[dict[int, Sentinel], list[str]]:
    """Commit the parts of workers that died after publishing the part, before the sentinel.

    Files that they list are published first. Parts that a worker of an ended run published late are
    removed. The second result is the parts that list a path of other bytes, and whose shards this session
    makes again; a quarantined one stays, until `retry` or until its paths are free.
    """
    facts, cleared = survey.plan.facts, run.cleared  # read once, for all parts
    adopted: dict[str, Sentinel] = {}
    unvouched: list[str] = []
    taken: list[str] = []
    for shard in survey.output.unadopted:
        stem, part = facts.stem(shard), facts.part(shard)
        try:
            adopted[stem] = adopt(
                stem, part, run_uid=run_uid, sink=run.sink, checkpoint=run.checkpoint
            )
        except TakenPathError as error:
            if shard not in survey.quarantined:
                taken.append(part)
            session.log_event("path_taken", shard=shard, why=str(error))
            _log.warning("%s", error)
        except ForeignOutputError:
            if not cleared.remove(part, check=session.check):
                unvouched.append(part)
    if unvouched:  # all in one message: with one part per run, the user would need many runs
        refuse_unvouched(run.sink.uri, unvouched)
    counting = run.checkpoint.publish(adopted)
    run.sink.remove_intents([sentinel.part for sentinel in counting.values()])
    run.checkpoint.drop_bundles(sentinel.files for sentinel in counting.values())
    return {sentinel.shard: sentinel for sentinel in counting.values()}, taken
