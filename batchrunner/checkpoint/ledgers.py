"""All sentinels of a run, read from ledgers: copies of many of them in one object."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

import orjson

from batchrunner.checkpoint.records import Sentinel
from batchrunner.errors import DamagedOutputError
from batchrunner.storage.seam import Entry, Storage

_SENTINEL = re.compile(r"sentinels/part-(\d{5,})\.json")
READERS = 32
"""Small objects to read at once: it is the way there and back that takes the time."""


@dataclass(frozen=True, slots=True)
class Sentinels:
    """What the sentinels say.

    Attributes:
        good: Of the committed shards, by id.
        damaged: What is wrong with the others, by id.
        unfolded: Ids of those that had to be read one by one.
    """

    good: Mapping[int, Sentinel]
    damaged: Mapping[int, str]
    unfolded: frozenset[int]


def read_sentinels(records: Storage, known: dict[Entry, Sentinel]) -> Sentinels:
    """Return all sentinels: a few listings, plus one read for each that is in no ledger.

    Args:
        records: Of the run.
        known: What was read before, by the objects, which never change. Gets what is read now.
    """
    entries = sentinel_entries(records)
    good = {
        shard: sentinel
        for shard, (sentinel, identity) in _read_ledgers(records).items()
        if shard in entries and entries[shard].identity == identity
    }
    loose = {shard: entry for shard, entry in entries.items() if shard not in good}
    unread = [(shard, entry.key) for shard, entry in loose.items() if entry not in known]
    with ThreadPoolExecutor(READERS) as pool:
        found = dict(zip(unread, pool.map(partial(_try_read, records), unread), strict=True))
    known |= {loose[shard]: s for (shard, _), s in found.items() if isinstance(s, Sentinel)}
    damaged = {shard: why for (shard, _), why in found.items() if isinstance(why, str)}
    read = {shard: known[entry] for shard, entry in loose.items() if entry in known}
    return Sentinels({**good, **read}, damaged, frozenset(read))


def sentinel_entries(records: Storage) -> dict[int, Entry]:
    """Return the objects of the sentinels, by shard: one listing."""
    matches = ((_SENTINEL.fullmatch(e.key), e) for e in records.list("sentinels"))
    return {int(match[1]): entry for match, entry in matches if match}


def _try_read(records: Storage, item: tuple[int, str]) -> Sentinel | str:
    shard, key = item
    try:
        sentinel = Sentinel.from_bytes(records.get(key), key=key)
    except DamagedOutputError as error:
        return str(error)
    return sentinel if sentinel.shard == shard else f"{key} is of shard {sentinel.shard}"


def write_ledger(
    records: Storage,
    sentinels: Mapping[int, Sentinel],
    *,
    entries: Mapping[int, Entry],
    name: str,
) -> None:
    """Copy *sentinels*, each with the identity of its object among *entries*."""
    lines = [
        orjson.dumps([entries[shard].identity, sentinel])
        for shard, sentinel in sentinels.items()
        if shard in entries
    ]
    records.put_if_absent({f"ledger/{name}.jsonl": b"\n".join(lines)})


def _read_ledgers(records: Storage) -> dict[int, tuple[Sentinel, str]]:
    """Return each copied sentinel with the identity of its object.

    A ledger that cannot be read is no loss: its sentinels are then read one by one.
    """
    keys = [entry.key for entry in records.list("ledger")]
    found = {}
    with ThreadPoolExecutor(READERS) as pool:
        for key, data in zip(keys, pool.map(records.get, keys), strict=True):
            with contextlib.suppress(DamagedOutputError, ValueError, TypeError):
                for line in data.splitlines():
                    identity, fields = orjson.loads(line)
                    sentinel = Sentinel.from_fields(fields, key=key)
                    found[sentinel.shard] = sentinel, identity
    return found
