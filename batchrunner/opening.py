"""The beginning of a session: everything written down before the first shard is handed out."""

from __future__ import annotations

import contextlib
import getpass
import platform
import uuid
from datetime import UTC, datetime

from batchrunner.checkpoint import RunRecord, Sentinel
from batchrunner.plan.output import MANIFEST, SUCCESS
from batchrunner.plan.survey import Run, Survey
from batchrunner.spec.fingerprint import fingerprint
from batchrunner.worker.committing import adopt


def open_run(run: Run, seen: Survey) -> tuple[str, dict[int, Sentinel]]:
    """Make what *seen* found durable and sealed; return the run's uid and what is committed.

    Idempotent: a session that dies in here leaves the next one the same to do, or less.

    Raises:
        ForeignOutputError: A part has the name of a shard, but no attempt of this run wrote it.
        LeaseHeldError: Another driver does the same at this very moment.
    """
    record = _remember(run, seen)
    # Before the plan grows: `_SUCCESS` must not stand over half an output.
    if seen.is_finished and not seen.is_whole:
        run.sink.delete([SUCCESS, MANIFEST])
    if seen.addition is not None:
        run.checkpoint.add_generation(seen.addition, number=seen.plan.generations - 1)
    adopted = _adopt(run, seen, run_uid=record.run_uid)
    loose = {shard: seen.output.committed[shard] for shard in seen.output.unfolded}
    run.checkpoint.fold(loose, name=uuid.uuid4().hex)
    # Only now: an attempt that published its part needed its note to be adopted.
    run.sink.sweep()
    run.checkpoint.storage.sweep()
    return record.run_uid, {**seen.output.committed, **adopted}


def _remember(run: Run, seen: Survey) -> RunRecord:
    if seen.record is None:
        record = _record(run, run_uid=uuid.uuid4().hex)
        run.checkpoint.begin(record)
        return record
    if seen.accepted:
        run.checkpoint.accept_change(_record(run, run_uid=seen.record.run_uid))
    return seen.record


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


def _adopt(run: Run, seen: Survey, *, run_uid: str) -> dict[int, Sentinel]:
    """Seal the parts that were published by a worker which died before it could."""
    facts = seen.plan.facts
    found = {
        facts.stem(shard): adopt(
            facts.stem(shard),
            facts.part(shard),
            run_uid=run_uid,
            sink=run.sink,
            checkpoint=run.checkpoint,
        )
        for shard in seen.output.unsealed
    }
    counting = run.checkpoint.publish(found)
    run.sink.forget_notes([sentinel.part for sentinel in counting.values()])
    return {sentinel.shard: sentinel for sentinel in counting.values()}
