"""The end of a run: moves retired parts away and declares the output complete."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import orjson

from batchrunner.checkpoint import Sentinel
from batchrunner.checkpoint.answers import ANSWERS
from batchrunner.checkpoint.incarnations import remove_records
from batchrunner.checkpoint.store import BUNDLES, PATHS
from batchrunner.checkpoint.totals import Totals
from batchrunner.driver.part_sources import PartSources
from batchrunner.driver.retiring import retire
from batchrunner.driver.run import Run
from batchrunner.driver.session import Session
from batchrunner.driver.sink_state import MANIFEST, RETIRED, SOURCES, SUCCESS, check_parts, parts_in
from batchrunner.driver.survey import Survey
from batchrunner.errors import LeaseHeldError, ObjectNotFoundError
from batchrunner.shard import Shard
from batchrunner.storage import Entry, Storage
from batchrunner.storage.contract import MAX_DOCUMENT_BYTES
from batchrunner.worker.schema import SinkSchema

MANIFEST_VERSION = 1
PACKED_MANIFEST_VERSION = 2
"""Of a manifest that names a file of sources, since not every part names its own."""
SUCCESS_VERSION = 1


def declare_success(
    run: Run, survey: Survey, committed: Mapping[int, Sentinel], session: Session
) -> None:
    """Declare the output complete, durably. Idempotent.

    Raises:
        LeaseHeldError: Another driver took over, and declares the output complete itself.
        DamagedOutputError: A committed part is gone or was changed; nothing is declared.
    """
    # A new listing: since the survey, a worker may have published the part of a shard that it got
    # before the shard was retired, and a user may have removed a committed part.
    entries = list(run.sink.list())
    check_parts(entries, committed, run_uid=_run_uid(committed), sink=run.sink.uri)
    # Only now, when all parts that replace the retired ones are committed: no row is ever missing.
    _move_retired(run, survey, session, parts=parts_in(entries), committed=committed)
    sources = PartSources.of(survey.plan.active, survey.plan.facts)
    if sources is not None:  # before the manifest that names it
        _put(run.sink, SOURCES, sources.to_bytes(), session)
    content = manifest(run, survey, committed, sources)
    _put(run.sink, MANIFEST, content, session)
    # Before `_SUCCESS`: a complete sink holds nothing but output.
    _collect_garbage(run, survey, session, committed=committed)
    success = _success(_run_uid(committed), content, epoch=session.epoch)
    _put(run.sink, SUCCESS, success, session)
    try:
        session.check()
    except LeaseHeldError:
        _take_back(run.sink, success)
        raise


def is_declared(run: Run, survey: Survey) -> bool:
    """Return whether manifest and `_SUCCESS` agree with the sentinels; True without a `_SUCCESS`.

    They disagree if a displaced driver wrote one of them late.
    """
    if not survey.is_finished:
        return True
    committed = survey.output.committed
    sources = PartSources.of(survey.plan.active, survey.plan.facts)
    content = manifest(run, survey, committed, sources)
    try:
        if not _holds(run.sink, MANIFEST, content):
            return False
        if sources is not None and not sources.is_stored(run.sink):
            return False
        success = run.sink.get(SUCCESS)
    except ObjectNotFoundError:
        return False
    expected = _success(_run_uid(committed), content, epoch=0)
    # Early versions wrote an empty `_SUCCESS`.
    return not success or _without_epoch(success) == _without_epoch(expected)


def _holds(sink: Storage, key: str, data: bytes) -> bool:
    """Return whether the object *key* holds *data*, which may exceed `MAX_DOCUMENT_BYTES`.

    Raises:
        ObjectNotFoundError: There is no such object.
    """
    if len(data) < MAX_DOCUMENT_BYTES:
        return sink.get(key) == data
    there = sink.head(key)
    if there is None or there.size != len(data):
        return False
    with sink.open(there) as file:
        return file.read(len(data) + 1) == data


def _without_epoch(success: bytes) -> Any:
    """Return the fields of a `_SUCCESS` with the epoch set to 0; None if it is damaged."""
    try:
        return {**orjson.loads(success), "epoch": 0}
    except (ValueError, TypeError):
        return None


def _success(run_uid: str, content: bytes, *, epoch: int) -> bytes:
    """Return the content of `_SUCCESS`, with the uid of the run and the hash of the manifest."""
    sha256 = hashlib.sha256(content).hexdigest()
    fields = {
        "version": SUCCESS_VERSION,
        "run_uid": run_uid,
        "epoch": epoch,
        "manifest_sha256": sha256,
    }
    return orjson.dumps(fields) + b"\n"


def _put(sink: Storage, key: str, data: bytes, session: Session) -> None:
    """Put *data* under *key*, and replace an object that an earlier session left there.

    Puts only if absent: if another driver takes over at the same time, its object stays.
    """
    if sink.put_if_absent({key: data}):
        return
    there = sink.head(key)
    session.check()  # after `head`: a driver that takes over later has not written this object
    if there is not None:
        sink.delete_exactly([there])
    if not sink.put_if_absent({key: data}):
        session.check()
        raise LeaseHeldError(f"{sink.uri}/{key} was written by another driver just now; run again")


def _take_back(sink: Storage, success: bytes) -> None:
    """Remove `_SUCCESS` if this driver wrote it: its content is *success*."""
    there = sink.head(SUCCESS)
    with contextlib.suppress(ObjectNotFoundError):
        if there is not None and sink.get(SUCCESS) == success:
            sink.delete_exactly([there])


def _move_retired(
    run: Run,
    survey: Survey,
    session: Session,
    *,
    parts: Mapping[str, Entry],
    committed: Mapping[int, Sentinel],
) -> None:
    """Move retired *parts* to `_retired/`; remove those that workers of ended runs published."""
    if not survey.plan.retired and not run.checkpoint.earlier:
        return
    late = run.cleared.late_parts(parts, plan=survey.plan)
    retired = {survey.plan.facts.part(shard.id) for shard in survey.plan.retired}
    session.check()
    there = sorted(retired & parts.keys())
    if survey.plan.facts.part_format.publishes_files:
        # Those that came after the session was opened.
        retire(run.sink, there, active=committed.values(), check=session.check)
        there = []
    for name in there:
        run.sink.move(parts[name], f"{RETIRED}/{name}")
    run.sink.delete_exactly(late.values())


def _collect_garbage(
    run: Run, survey: Survey, session: Session, *, committed: Mapping[int, Sentinel]
) -> None:
    """Remove what dead attempts and ended runs left; with all shards committed, none is read."""
    storage, records = run.checkpoint.storage, run.checkpoint.records
    with_files = survey.plan.facts.part_format.publishes_files
    # Before the check: none is of a later driver.
    rooms = {"errors", "attempts", *((BUNDLES, PATHS) if with_files else ())}
    rooms |= {ANSWERS} if run.spec.called.mode == "row" else set()
    left = _left_behind(records, committed, rooms=sorted(rooms))
    session.check()
    run.sink.remove_intents([sentinel.part for sentinel in committed.values()])
    run.sink.clean()
    storage.clean(intents=True)  # intents of workers that died in this session
    records.delete(left)
    for number in run.checkpoint.earlier:
        session.check()
        remove_records(storage, number)


def _left_behind(
    records: Storage, committed: Mapping[int, Sentinel], *, rooms: Sequence[str]
) -> list[str]:
    """Return the keys of what dead or uncommitted attempts left in *rooms*: marks, dead letters, answers and such.

    A listing each: only where there may be something.
    """
    counting = {f"errors/{sentinel.errors}" for sentinel in committed.values()}
    counting |= {f"{PATHS}/{sentinel.files}" for sentinel in committed.values()}
    keys = (entry.key for name in rooms for entry in records.list(name))
    return [key for key in keys if key not in counting]


def _run_uid(committed: Mapping[int, Sentinel]) -> str:
    return next((sentinel.run_uid for sentinel in committed.values()), "")


def manifest(
    run: Run, survey: Survey, committed: Mapping[int, Sentinel], sources: PartSources | None
) -> bytes:
    """Return the manifest as JSON: the totals, and all parts in the order of the shards.

    A part of one slice has it; of several, the number of its files, which are in *sources*.

    For Parquet, it also has the columns of all parts together: an early part may lack later
    columns.
    """
    sentinels = [committed[shard.id] for shard in survey.plan.active]
    parts = [
        {
            "part": sentinel.part,
            "rows": sentinel.rows_out,
            "bytes": sentinel.bytes,
            "sha256": sentinel.sha256,
            **_of_source(shard),
        }
        for shard, sentinel in zip(survey.plan.active, sentinels, strict=True)
    ]
    totals = asdict(Totals.of(survey.plan.active, committed))
    totals["bytes"] = totals.pop("bytes_out")
    run_uid = _run_uid(committed)
    columns = _columns(run) if survey.plan.facts.part_format.keeps_schema else {}
    content = {
        "version": MANIFEST_VERSION if sources is None else PACKED_MANIFEST_VERSION,
        "run_uid": run_uid,
        **totals,
        **columns,
        **({} if sources is None else {"sources": sources.in_manifest()}),
        "parts": parts,
    }
    return orjson.dumps(content, option=orjson.OPT_INDENT_2)


def _of_source(shard: Shard) -> dict[str, Any]:
    if len(shard.slices) > 1:
        return {"files": len(shard.slices)}
    piece = shard.first
    return {
        "source": piece.uri,
        "slicing": piece.slicing,
        "start": piece.start,
        "stop": piece.stop,
        **({"skip": piece.skip, "take": piece.take} if piece.has_window else {}),
    }


def _columns(run: Run) -> dict[str, Any]:
    schema = SinkSchema(run.checkpoint, declared=run.spec.sink.schema_).agreed()
    fields = schema or ()
    return {"schema": [{"name": field.name, "type": str(field.type)} for field in fields]}
