"""Reads all sentinels of a run; a sentinel index has copies of many of them in one object."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

import orjson

from batchrunner.checkpoint.documents import Sentinel
from batchrunner.errors import DamagedOutputError, NewerFormatError
from batchrunner.storage.contract import MAX_DOCUMENT_BYTES, Entry, Storage

_SENTINEL = re.compile(r"sentinels/part-(\d{5,})\.json")
READERS = 128
"""How many small objects to read at the same time: the round trip takes the time, not the bytes."""
_LINES = 50_000
"""Most lines in one sentinel index, of some 500 bytes each: it must stay below `MAX_DOCUMENT_BYTES`."""


@dataclass(frozen=True, slots=True)
class Sentinels:
    """All sentinels of a run.

    Attributes:
        good: The sentinels of the committed shards, by shard id.
        damaged: What is wrong with each damaged sentinel, by shard id.
        unindexed: Ids of the shards whose good sentinels are in no sentinel index.
    """

    good: Mapping[int, Sentinel]
    damaged: Mapping[int, str]
    unindexed: frozenset[int]


def read_sentinels(records: Storage, read_before: dict[Entry, Any]) -> Sentinels:
    """Return all sentinels: a few listings, plus one read for each that is in no sentinel index.

    Args:
        records: Storage of the run's documents.
        read_before: Content of the sentinels and sentinel indexes that were read before, by their
            objects, which never change. What is read now is added.
    """
    # A copy counts only for the very object that it was made of: a sentinel that `verify --repair` moved
    # away, and that was made again, is another object.
    entries = sentinel_entries(records)
    good = {
        shard: sentinel
        for shard, (sentinel, identity) in _read_indexes(records, read_before).items()
        if shard in entries and entries[shard].identity == identity
    }
    loose = {shard: entry for shard, entry in entries.items() if shard not in good}
    unread = [(shard, entry) for shard, entry in loose.items() if entry not in read_before]
    with ThreadPoolExecutor(READERS) as pool:
        outcomes = dict(zip(unread, pool.map(partial(_try_read, records), unread), strict=True))
    read_before |= {entry: s for (_, entry), s in outcomes.items() if isinstance(s, Sentinel)}
    damaged = {shard: why for (shard, _), why in outcomes.items() if isinstance(why, str)}
    read = {shard: read_before[entry] for shard, entry in loose.items() if entry in read_before}
    return Sentinels({**good, **read}, damaged, frozenset(read))


def sentinel_entries(records: Storage) -> dict[int, Entry]:
    """Return the object of each sentinel, by shard id: one listing."""
    matches = ((_SENTINEL.fullmatch(e.key), e) for e in records.list("sentinels"))
    return {int(match[1]): entry for match, entry in matches if match}


def _try_read(records: Storage, item: tuple[int, Entry]) -> Sentinel | str:
    shard, entry = item
    try:
        sentinel = read_sentinel(records, entry)
    except DamagedOutputError as error:
        return str(error)
    where = f"{records.uri}/{entry.key}"
    return sentinel if sentinel.shard == shard else f"{where} is of shard {sentinel.shard}"


def read_sentinel(records: Storage, entry: Entry) -> Sentinel:
    """Read the sentinel of *entry*.

    Raises:
        DamagedOutputError: It is not whole, or not a sentinel at all.
    """
    where = f"{records.uri}/{entry.key}"
    if entry.size > MAX_DOCUMENT_BYTES:  # `get` would raise as if the store had failed
        raise DamagedOutputError(f"{where} is damaged: {entry.size:,} bytes are no sentinel")
    return Sentinel.from_bytes(records.get(entry.key), key=where)


def write_index(
    records: Storage,
    sentinels: Mapping[int, Sentinel],
    *,
    entries: Mapping[int, Entry],
    name: str,
) -> None:
    """Copy *sentinels* into a few sentinel indexes, whose keys begin with *name*.

    Each copy has the identity of its object, from *entries*; a sentinel that is not there is left out.
    """
    lines = [
        orjson.dumps([entries[shard].identity, sentinel])
        for shard, sentinel in sentinels.items()
        if shard in entries
    ]
    for number, start in enumerate(range(0, len(lines), _LINES)):
        key = f"sentinel_index/{name}-{number}.jsonl" if number else f"sentinel_index/{name}.jsonl"
        records.put_if_absent({key: b"\n".join(lines[start : start + _LINES])})


def _read_indexes(
    records: Storage, read_before: dict[Entry, Any]
) -> dict[int, tuple[Sentinel, str]]:
    """Return the copied sentinels by shard id, each with the identity of its object.

    A damaged sentinel index costs only time: its sentinels are then read one by one.
    """
    entries = [e for e in records.list("sentinel_index") if e.size <= MAX_DOCUMENT_BYTES]
    unread = [entry for entry in entries if entry not in read_before]
    with ThreadPoolExecutor(READERS) as pool:
        keys = [entry.key for entry in unread]
        for entry, data in zip(unread, pool.map(records.get, keys), strict=True):
            read_before[entry] = {}  # what is torn now will not be whole when it is read again
            with contextlib.suppress(DamagedOutputError, NewerFormatError):
                read_before[entry] = index_from_bytes(data, key=entry.key)
    copies: dict[int, tuple[Sentinel, str]] = {}
    for entry in entries:
        copies |= read_before[entry]
    return copies


def index_from_bytes(data: bytes, *, key: str) -> dict[int, tuple[Sentinel, str]]:
    """Parse a sentinel index: return its sentinels by shard id, each with its object's identity.

    Raises:
        DamagedOutputError: The bytes are torn or foreign.
        NewerFormatError: A sentinel is of a later format version.
    """
    copies = {}
    try:
        for line in data.splitlines():
            identity, fields = orjson.loads(line)
            sentinel = Sentinel.from_fields(fields, key=key)
            copies[sentinel.shard] = sentinel, identity
    except (ValueError, TypeError) as error:
        raise DamagedOutputError(f"{key} is damaged: it holds no whole sentinel index") from error
    return copies
