"""Records of the checkpoint that cannot be read, and whether the run can do without them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

from batchrunner.checkpoint import RunRecord
from batchrunner.checkpoint.damage import schema_from_bytes
from batchrunner.checkpoint.incarnations import record_key
from batchrunner.checkpoint.ledgers import ledger_from_bytes, sentinel_entries
from batchrunner.checkpoint.plan_file import plan_from_bytes
from batchrunner.checkpoint.records import Quarantine
from batchrunner.errors import DamagedOutputError
from batchrunner.plan.output import parts_in, shard_of
from batchrunner.storage import Storage
from batchrunner.verify.evidence import Place
from batchrunner.verify.findings import Finding, Kind

_Read = Callable[..., Any]
"""Reads a record from its bytes, and raises `DamagedOutputError` under the name *key*."""


def record_faults(place: Place) -> Iterator[Finding]:
    """Yield the records that are damaged, but for sentinels: `ShardCheck` looks at those."""
    storage, records = place.checkpoint.storage, place.checkpoint.records
    if changes := _keys(
        records, "changes"
    ):  # without the last one, what was asked before it counts
        yield from _damaged(records, changes[-1:], RunRecord.from_bytes, spare=True)
    else:
        asked = [record_key(place.checkpoint.incarnation)]
        yield from _damaged(storage, asked, RunRecord.from_bytes)
    yield from _plan_faults(place)
    yield from _damaged(records, _keys(records, "quarantine"), Quarantine.from_bytes, spare=True)
    yield from _damaged(records, _keys(records, "ledger"), ledger_from_bytes, spare=True)
    first = ["schema.arrow"] if records.head("schema.arrow") else []
    yield from _damaged(records, [*first, *_keys(records, "schema")], schema_from_bytes)


def _keys(records: Storage, folder: str) -> list[str]:
    return [entry.key for entry in records.list(folder)]


def _damaged(
    records: Storage, keys: list[str], read: _Read, *, spare: bool = False
) -> Iterator[Finding]:
    for key in keys:
        try:
            read(records.get(key), key=f"{records.uri}/{key}")
        except DamagedOutputError as error:
            yield Finding(Kind.SPARE if spare else Kind.RECORD, key, str(error))


def _plan_faults(place: Place) -> Iterator[Finding]:
    """Yield the generations that are damaged.

    The run can do without the last ones if no shard of theirs has left anything: the next run adds
    to the plan what the source has then.
    """
    records, first = place.checkpoint.records, 0
    keys = _keys(records, "plan")
    for number, key in enumerate(keys):
        found = list(_damaged(records, [key], plan_from_bytes))
        if not found:
            first += len(plan_from_bytes(records.get(key), key=key).shards)
            continue
        is_last = number == len(keys) - 1
        kind = Kind.SPARE if is_last and not _has_output(place, first) else Kind.RECORD
        yield replace(found[0], kind=kind)
        return


def _has_output(place: Place, first: int) -> bool:
    """Tell whether a shard from number *first* on has a sentinel or a part."""
    committed = sentinel_entries(place.checkpoint.records)
    published = map(shard_of, parts_in(place.sink.list()))
    return any(shard >= first for shard in (*committed, *published))
