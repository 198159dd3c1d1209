"""The end of a run: its output declared complete."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Mapping
from typing import Any

import orjson

from batchrunner.checkpoint import Sentinel
from batchrunner.checkpoint.incarnations import remove_records
from batchrunner.checkpoint.totals import Totals
from batchrunner.driver.session import Session
from batchrunner.driver.sink_state import MANIFEST, RETIRED, SUCCESS, parts_in
from batchrunner.driver.survey import Run, Survey, late_parts
from batchrunner.errors import LeaseHeldError, ObjectNotFoundError
from batchrunner.formats.naming import PARQUET
from batchrunner.storage import Storage
from batchrunner.storage.contract import MAX_RECORD_BYTES
from batchrunner.worker.schema import SinkSchema

MANIFEST_VERSION = 1
SUCCESS_VERSION = 1


def declare_success(
    run: Run, survey: Survey, committed: Mapping[int, Sentinel], session: Session
) -> None:
    """Say that the output is complete. Idempotent; `_SUCCESS` comes last.

    Retired parts go out of the way only now, when their successors are all committed.

    Raises:
        LeaseHeldError: Another driver took over: the output is its to declare.
    """
    _put_aside(run, survey, session)
    content = manifest(run, survey, committed)
    _put(run.sink, MANIFEST, content, session)
    _forget(run, committed, session)
    success = _success(_run_uid(committed), content, epoch=session.epoch)
    _put(run.sink, SUCCESS, success, session)
    try:
        session.check()
    except LeaseHeldError:
        _take_back(run.sink, success)
        raise


def is_declared(run: Run, survey: Survey) -> bool:
    """Tell whether manifest and `_SUCCESS` say what the sentinels say, where there is a `_SUCCESS`.

    A driver that was displaced may have come late with either.
    """
    if not survey.is_finished:
        return True
    committed = survey.output.committed
    content = manifest(run, survey, committed)
    try:
        if not _holds(run.sink, MANIFEST, content):
            return False
        said = run.sink.get(SUCCESS)
    except ObjectNotFoundError:
        return False
    # Earlier versions left it empty.
    return not said or _says(said) == _says(_success(_run_uid(committed), content, epoch=0))


def _holds(sink: Storage, key: str, data: bytes) -> bool:
    """Tell whether *data* is what stands under *key*, however large that is.

    Raises:
        ObjectNotFoundError: Nothing stands there.
    """
    if len(data) < MAX_RECORD_BYTES:
        return sink.get(key) == data
    there = sink.head(key)
    if there is None or there.size != len(data):
        return False
    with sink.open(there) as file:
        return file.read(len(data) + 1) == data


def _says(success: bytes) -> Any:
    """Return what a `_SUCCESS` says, but for who put it there."""
    try:
        return {**orjson.loads(success), "epoch": 0}
    except (ValueError, TypeError):
        return None


def _success(run_uid: str, content: bytes, *, epoch: int) -> bytes:
    """Return what `_SUCCESS` holds: whose it is, and over which manifest it stands."""
    sha256 = hashlib.sha256(content).hexdigest()
    fields = {
        "version": SUCCESS_VERSION,
        "run_uid": run_uid,
        "epoch": epoch,
        "manifest_sha256": sha256,
    }
    return orjson.dumps(fields) + b"\n"


def _put(sink: Storage, key: str, data: bytes, session: Session) -> None:
    """Put *data* under *key*, in place of what an earlier session left there.

    If absent: should this driver have been displaced in this very moment, what the other one put
    there stays.
    """
    if sink.put_if_absent({key: data}):
        return
    there = sink.head(key)
    session.check()  # after the look: what was seen is not of a driver that takes over from now on
    if there is not None:
        sink.delete_exactly([there])
    if not sink.put_if_absent({key: data}):
        session.check()
        raise LeaseHeldError(f"{sink.uri}/{key} was written by another driver just now; run again")


def _take_back(sink: Storage, success: bytes) -> None:
    """Remove `_SUCCESS` if it is this driver's own."""
    there = sink.head(SUCCESS)
    with contextlib.suppress(ObjectNotFoundError):
        if there is not None and sink.get(SUCCESS) == success:
            sink.delete_exactly([there])


def _put_aside(run: Run, survey: Survey, session: Session) -> None:
    """Move retired parts away, and remove what workers of ended runs published late.

    A worker that was handed a shard before that was retired, or before its run ended, may have
    published since the survey: so look again.
    """
    if not survey.plan.retired and not run.checkpoint.earlier:
        return
    parts = parts_in(run.sink.list())
    late = late_parts(run, survey.plan, parts)
    retired = {survey.plan.facts.part(shard.id) for shard in survey.plan.retired}
    session.check()
    for name in sorted(retired & parts.keys()):
        run.sink.move(parts[name], f"{RETIRED}/{name}")
    run.sink.delete_exactly(late.values())


def _forget(run: Run, committed: Mapping[int, Sentinel], session: Session) -> None:
    """Remove what attempts left that died: with every shard sealed, nobody needs it any more."""
    storage, records = run.checkpoint.storage, run.checkpoint.records
    attempts = _attempts(records, committed)  # before the check, so that none is of a later driver
    session.check()
    run.sink.remove_intents([sentinel.part for sentinel in committed.values()])
    run.sink.clean()
    storage.clean(intents=True)  # of workers that died in this session
    records.delete(attempts)
    for number in run.checkpoint.earlier:
        session.check()
        remove_records(storage, number)


def _attempts(records: Storage, committed: Mapping[int, Sentinel]) -> list[str]:
    """Return what attempts left that died or lost: their marks, and rows that they set aside."""
    counting = {sentinel.errors for sentinel in committed.values()}
    dead_letters = [
        e.key for e in records.list("errors") if e.key.partition("/")[2] not in counting
    ]
    return [*dead_letters, *(entry.key for entry in records.list("attempts"))]


def _run_uid(committed: Mapping[int, Sentinel]) -> str:
    return next((sentinel.run_uid for sentinel in committed.values()), "")


def manifest(run: Run, survey: Survey, committed: Mapping[int, Sentinel]) -> bytes:
    """Return the list of all parts, in shard order, with the totals.

    And the columns that parts of Parquet have together: an early one may lack what a later one adds.
    """
    sentinels = [committed[shard.id] for shard in survey.plan.active]
    parts = [
        {
            "part": sentinel.part,
            "rows": sentinel.rows_out,
            "bytes": sentinel.bytes,
            "sha256": sentinel.sha256,
            "source": shard.uri,
            "slicing": shard.slicing,
            "start": shard.start,
            "stop": shard.stop,
        }
        for shard, sentinel in zip(survey.plan.active, sentinels, strict=True)
    ]
    found = Totals.of(survey.plan.active, committed)
    totals = {
        "rows_in": found.rows_in,
        "rows_out": found.rows_out,
        "rows_failed": found.rows_failed,
        "bytes": found.bytes_out,
    }
    run_uid = _run_uid(committed)
    columns = _columns(run) if survey.plan.facts.format == PARQUET else {}
    content = {"version": MANIFEST_VERSION, "run_uid": run_uid, **totals, **columns, "parts": parts}
    return orjson.dumps(content, option=orjson.OPT_INDENT_2)


def _columns(run: Run) -> dict[str, Any]:
    schema = SinkSchema(run.checkpoint, declared=run.spec.sink.schema_).known()
    fields = schema or ()
    return {"schema": [{"name": field.name, "type": str(field.type)} for field in fields]}
