"""A checkpoint: records under one root, each written once, so that any reader sees a whole one."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import orjson

from batchrunner.checkpoint.plan_file import Generation, plan_from_bytes, plan_to_bytes
from batchrunner.checkpoint.records import Quarantine, RunRecord, Sentinel
from batchrunner.errors import DamagedOutputError, LeaseHeldError, ObjectNotFoundError
from batchrunner.storage.seam import Entry, Staged, Storage

_SENTINEL = re.compile(r"sentinels/part-(\d{5,})\.json")
_READERS = 16
_BLOCK_BYTES = 1 << 20


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


class Checkpoint:
    """The records of one run.

    Everything here is put-if-absent: safe with any number of drivers and workers.
    """

    def __init__(self, storage: Storage) -> None:
        self.storage = storage

    def run(self) -> RunRecord | None:
        """Return what was asked for last, or None when there is no run yet."""
        first = self.storage.head("run.json")
        if first is None:
            return None
        changes = [entry.key for entry in self.storage.list("changes")]
        key = changes[-1] if changes else "run.json"
        return RunRecord.from_bytes(self.storage.get(key), key=key)

    def begin(self, record: RunRecord) -> None:
        """Write down what is asked for, before anything is done about it."""
        self._create("run.json", record.to_bytes())

    def accept_change(self, record: RunRecord) -> None:
        """Write down that somebody accepted another spec for this run, and who."""
        number = len(list(self.storage.list("changes"))) + 1
        self._create(f"changes/{number:04d}.json", record.to_bytes())

    def generations(self) -> list[Generation]:
        """Return the plan, oldest generation first."""
        keys = [entry.key for entry in self.storage.list("plan")]
        return [plan_from_bytes(self.storage.get(key), key=key) for key in keys]

    def add_generation(self, generation: Generation, *, number: int) -> None:
        """Add to the plan. Atomic: the shards get their ids all together or not at all."""
        self._create(f"plan/{number:04d}.parquet", plan_to_bytes(generation))

    def _create(self, key: str, data: bytes) -> None:
        if not self.storage.put_if_absent({key: data}):
            raise LeaseHeldError(
                f"{self.storage.uri}/{key} was written by another driver just now; run again"
            )

    def schemas(self) -> list[bytes]:
        """Return the schemas of the sink, serialized by Arrow: the first, then each that adds to it."""
        try:
            first = self.storage.get(_schema_key(0))
        except ObjectNotFoundError:
            return []
        keys = [entry.key for entry in self.storage.list("schema")]
        return [first, *map(self.storage.get, keys)]

    def add_schema(self, schema: bytes, *, number: int) -> bool:
        """Make *schema* the one that counts, if it is the next; return whether it is, or was already.

        Atomic: of several that add at once, one comes first, and the others look at what it added.
        """
        return bool(self.storage.put_if_absent({_schema_key(number): schema}))

    def publish_letters(self, letters: Mapping[str, Staged]) -> None:
        """Make the rows that an attempt set aside durable, under names that are its own."""
        keys = {f"errors/{name}": (staged, b"letters") for name, staged in letters.items()}
        self.storage.publish(keys)
        self.storage.forget_notes(keys)

    def lines(self, key: str) -> Iterator[bytes]:
        """Yield the lines of an object of any size.

        Raises:
            ObjectNotFoundError: There is none.
        """
        entry = self.storage.head(key)
        if entry is None:
            raise ObjectNotFoundError(f"{self.storage.uri}/{key} is not there")
        rest = b""
        with self.storage.open(entry) as file:
            while block := file.read(_BLOCK_BYTES):
                *whole, rest = (rest + block).split(b"\n")
                yield from whole
        if rest:
            yield rest

    def publish(self, sentinels: Mapping[str, Sentinel]) -> dict[str, Sentinel]:
        """Declare shards complete, by the stem of their part; return the sentinels that count.

        Call it only once the parts are published. A sentinel that was there first counts: it is of
        the same part.
        """
        keys = {f"sentinels/{stem}.json": sentinel for stem, sentinel in sentinels.items()}
        won = self.storage.put_if_absent({key: s.to_bytes() for key, s in keys.items()})
        return {
            _stem(key): sentinel if key in won else self._read(key)
            for key, sentinel in keys.items()
        }

    def sentinel(self, stem: str) -> Sentinel | None:
        """Return the sentinel of one shard, or None when it is not committed."""
        try:
            return self._read(f"sentinels/{stem}.json")
        except ObjectNotFoundError:
            return None

    def quarantine(self, records: Mapping[str, Quarantine]) -> None:
        """Set shards apart, by the stem of their part, until `release`."""
        self.storage.put_if_absent(
            {f"quarantine/{stem}.json": record.to_bytes() for stem, record in records.items()}
        )

    def quarantined(self) -> dict[int, Quarantine]:
        """Return the shards that are set apart, by id."""
        keys = [entry.key for entry in self.storage.list("quarantine")]
        with ThreadPoolExecutor(_READERS) as pool:
            found = zip(keys, pool.map(self.storage.get, keys), strict=True)
            records = [Quarantine.from_bytes(data, key=key) for key, data in found]
        return {record.shard: record for record in records}

    def release(self) -> None:
        """Let the shards that are set apart be tried again, as if nothing had happened to them."""
        for folder in ("attempts", "quarantine"):
            self.storage.delete([entry.key for entry in self.storage.list(folder)])

    def is_recorded(self, uid: str) -> bool:
        """Tell whether the analytics store has the run in the state called *uid*."""
        return self.storage.head(f"recorded/{uid}.json") is not None

    def mark_recorded(self, uid: str) -> None:
        """Remember that it does. Call it only once that is durable."""
        self.storage.put_if_absent({f"recorded/{uid}.json": b"{}"})

    def find(self, stems: Iterable[str]) -> dict[str, Sentinel]:
        """Return the sentinels of those *stems* that are committed: a listing, and a read for each."""
        stems = list(stems)
        there = {_stem(entry.key) for entry in self._entries().values()} if stems else set()
        found = [stem for stem in stems if stem in there]
        with ThreadPoolExecutor(_READERS) as pool:
            read = zip(found, pool.map(self.sentinel, found), strict=True)
            return {stem: sentinel for stem, sentinel in read if sentinel is not None}

    def sentinels(self) -> Sentinels:
        """Return all sentinels: a few listings, plus one read for each that is in no ledger."""
        entries = self._entries()
        good = {
            shard: sentinel
            for shard, (sentinel, identity) in self._ledgers().items()
            if shard in entries and entries[shard].identity == identity
        }
        loose = [(shard, entry.key) for shard, entry in entries.items() if shard not in good]
        with ThreadPoolExecutor(_READERS) as pool:
            found = dict(zip(loose, pool.map(self._try_read, loose), strict=True))
        read = {shard: s for (shard, _), s in found.items() if isinstance(s, Sentinel)}
        damaged = {shard: why for (shard, _), why in found.items() if isinstance(why, str)}
        return Sentinels({**good, **read}, damaged, frozenset(read))

    def _entries(self) -> dict[int, Entry]:
        matches = ((_SENTINEL.fullmatch(e.key), e) for e in self.storage.list("sentinels"))
        return {int(match[1]): entry for match, entry in matches if match}

    def _try_read(self, item: tuple[int, str]) -> Sentinel | str:
        shard, key = item
        try:
            sentinel = self._read(key)
        except DamagedOutputError as error:
            return str(error)
        return sentinel if sentinel.shard == shard else f"{key} is of shard {sentinel.shard}"

    def _read(self, key: str) -> Sentinel:
        return Sentinel.from_bytes(self.storage.get(key), key=key)

    def fold(self, sentinels: Mapping[int, Sentinel], *, name: str) -> None:
        """Copy sentinels into one ledger, so that the next session need not read each of them.

        A copy counts as long as its sentinel is the very object that it was made of.
        """
        if not sentinels:
            return
        entries = self._entries()
        lines = [
            orjson.dumps([entries[shard].identity, sentinel])
            for shard, sentinel in sentinels.items()
            if shard in entries
        ]
        self.storage.put_if_absent({f"ledger/{name}.jsonl": b"\n".join(lines)})

    def _ledgers(self) -> dict[int, tuple[Sentinel, str]]:
        """Return each folded sentinel with the identity of its object.

        A ledger that cannot be read is no loss: its sentinels are then read one by one.
        """
        keys = [entry.key for entry in self.storage.list("ledger")]
        found = {}
        with ThreadPoolExecutor(_READERS) as pool:
            for key, data in zip(keys, pool.map(self.storage.get, keys), strict=True):
                with contextlib.suppress(DamagedOutputError, ValueError, TypeError):
                    for line in data.splitlines():
                        identity, fields = orjson.loads(line)
                        sentinel = Sentinel.from_fields(fields, key=key)
                        found[sentinel.shard] = sentinel, identity
        return found


def _schema_key(number: int) -> str:
    return f"schema/{number:04d}.arrow" if number else "schema.arrow"


def _stem(key: str) -> str:
    return key.removeprefix("sentinels/").removesuffix(".json")
