"""Records of the checkpoint that cannot be read, and whether the run can do without them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import Any

from batchrunner.checkpoint import RunLocation, RunRecord
from batchrunner.checkpoint.damage import lost, lost_plan, schema_from_bytes
from batchrunner.checkpoint.documents import Quarantine
from batchrunner.checkpoint.incarnations import record_key
from batchrunner.checkpoint.plan_file import plan_from_bytes
from batchrunner.checkpoint.sentinel_index import index_from_bytes, sentinel_entries
from batchrunner.driver.sink_state import parts_in, shard_of
from batchrunner.errors import DamagedOutputError, ObjectNotFoundError
from batchrunner.storage import Entry, Storage
from batchrunner.storage.contract import MAX_DOCUMENT_BYTES
from batchrunner.verify.findings import Finding, FindingKind

_Read = Callable[..., Any]
"""Reads a record from its bytes, and raises `DamagedOutputError` under the name *key*."""


def record_faults(place: RunLocation) -> Iterator[Finding]:
    """Yield the records that are damaged, but for sentinels: `ShardCheck` looks at those."""
    storage, records = place.checkpoint.storage, place.checkpoint.records
    if changes := list(records.list("changes")):  # else what was asked at first counts
        yield from _damaged(records, changes[-1:], RunRecord.from_bytes, spare=True)
    else:
        key = record_key(place.checkpoint.incarnation)
        asked = storage.head(key)
        yield from _damaged(storage, [asked] if asked else [], RunRecord.from_bytes)
        if asked is None:
            yield Finding(FindingKind.RECORD, key, str(lost(storage, key)))
    yield from _plan_faults(place)
    yield from _damaged(records, records.list("quarantine"), Quarantine.from_bytes, spare=True)
    yield from _damaged(records, records.list("sentinel_index"), index_from_bytes, spare=True)
    first = records.head("schema.arrow")
    schemas = [*([first] if first else []), *records.list("schema")]
    yield from _damaged(records, schemas, schema_from_bytes)


def _damaged(
    records: Storage, entries: Iterable[Entry], read: _Read, *, spare: bool = False
) -> Iterator[Finding]:
    for entry in entries:
        if why := _why(records, entry, read):
            yield Finding(FindingKind.SPARE if spare else FindingKind.RECORD, entry.key, why)


def _why(records: Storage, entry: Entry, read: _Read) -> str:
    """Return what is wrong with a record; nothing if a run at work took it away meanwhile."""
    where = f"{records.uri}/{entry.key}"
    if entry.size > MAX_DOCUMENT_BYTES:  # to read it is refused, as if the store had failed
        return f"{where} is damaged: {entry.size:,} bytes are no record"
    try:
        read(records.get(entry.key), key=where)
    except DamagedOutputError as error:
        return str(error)
    except ObjectNotFoundError:
        pass
    return ""


def _plan_faults(place: RunLocation) -> Iterator[Finding]:
    """Yield the generations that are damaged.

    The run can do without the last ones if no shard of theirs has left anything: the next run adds
    to the plan what the source has then.
    """
    records, first = place.checkpoint.records, 0
    entries = list(records.list("plan"))
    if gone := lost_plan(records, [entry.key for entry in entries]):
        yield Finding(FindingKind.RECORD, gone, str(lost(records, gone)))
        return
    for number, entry in enumerate(entries):
        found = list(_damaged(records, [entry], plan_from_bytes))
        if not found:
            first += len(plan_from_bytes(records.get(entry.key), key=entry.key).shards)
            continue
        is_last = number == len(entries) - 1
        kind = (
            FindingKind.SPARE if is_last and not _has_output(place, first) else FindingKind.RECORD
        )
        yield replace(found[0], kind=kind)
        return


def _has_output(place: RunLocation, first: int) -> bool:
    """Tell whether a shard from number *first* on has a sentinel or a part."""
    committed = sentinel_entries(place.checkpoint.records)
    published = map(shard_of, parts_in(place.sink.list()))
    return any(shard >= first for shard in (*committed, *published))
