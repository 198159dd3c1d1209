"""A checkpoint: documents under one root, written atomically, so that readers see whole ones."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, BinaryIO, cast

from batchrunner.checkpoint.damage import lost, lost_plan, schema_from_bytes, with_ways_out
from batchrunner.checkpoint.documents import Quarantine, Sentinel
from batchrunner.checkpoint.incarnations import RunDocuments, create
from batchrunner.checkpoint.plan_file import (
    Generation,
    plan_from_bytes,
    plan_key,
    plan_to_bytes,
)
from batchrunner.checkpoint.sentinel_index import (
    READERS,
    Sentinels,
    read_sentinels,
    sentinel_entries,
    write_index,
)
from batchrunner.errors import DamagedOutputError, ObjectNotFoundError
from batchrunner.storage.contract import Entry, Staged, Storage

if TYPE_CHECKING:
    import pyarrow as pa

BUNDLES = "files"
"""Folder of the bundles: the bytes of files that a part lists, until its shard is committed."""

PATHS = "paths"
"""Folder of the paths of these files, a line each: without its part, they say which files are its."""

_QUARANTINE = re.compile(r"quarantine/part-(\d{5,})\.json")
_numbered: dict[tuple[Storage, int], Checkpoint] = {}
_MOST_NUMBERED = 64


class Checkpoint(RunDocuments):
    """The documents of one run and of its shards.

    They are put if absent, which is safe with any number of drivers and workers. Two methods delete:
    `release`, only what its driver listed while it had the lease, and `withdraw`.
    """

    @classmethod
    def numbered(cls, storage: Storage, incarnation: int) -> Checkpoint:
        """Return run number *incarnation* for a worker: one object for all threads of a process."""
        checkpoint = _numbered.get((storage, incarnation))
        if checkpoint is None:
            if len(_numbered) >= _MOST_NUMBERED:
                _numbered.clear()
            checkpoint = _numbered[storage, incarnation] = cls(storage, incarnation=incarnation)
        return checkpoint

    def generations(self) -> list[Generation]:
        """Return the plan, oldest generation first.

        Raises:
            DamagedOutputError: A generation cannot be read, or is gone; the message names the ways out.
        """
        entries = list(self.records.list("plan"))
        with with_ways_out():
            if gone := lost_plan(self.records, [entry.key for entry in entries]):
                raise lost(self.records, gone)
            return [self._generation(entry) for entry in entries]

    def _generation(self, entry: Entry) -> Generation:
        read = self._read_before.setdefault(self.incarnation, {})
        if entry not in read:
            where = f"{self.records.uri}/{entry.key}"
            read[entry] = plan_from_bytes(self.records.get(entry.key), key=where)
        return cast(Generation, read[entry])

    def add_generation(self, generation: Generation, *, number: int) -> None:
        """Add *generation* to the plan. Atomic: either all its shards get their ids, or none does.

        Raises:
            LeaseHeldError: Another driver added a generation of that *number* first.
        """
        create(self.records, plan_key(number), plan_to_bytes(generation))

    def schemas(self) -> list[pa.Schema]:
        """Return the schemas of the sink: the first, then each that adds to it.

        Raises:
            DamagedOutputError: A schema cannot be read; the message names the ways out.
        """
        try:
            first = self.records.get(_schema_key(0))
        except ObjectNotFoundError:
            return []
        stored = {_schema_key(0): first}
        stored |= {entry.key: self.records.get(entry.key) for entry in self.records.list("schema")}
        with with_ways_out():
            return [
                schema_from_bytes(data, key=f"{self.records.uri}/{key}")
                for key, data in stored.items()
            ]

    def add_schema(self, schema: bytes, *, number: int) -> bool:
        """Store *schema* under *number* if that is free; return whether it is what is stored there.

        Atomic: of several workers that add one at the same time, one is first; the others read its schema.
        """
        return bool(self.records.put_if_absent({_schema_key(number): schema}))

    def publish_dead_letters(self, dead_letters: Mapping[str, Staged]) -> None:
        """Publish the dead letters of an attempt, durably, under names that only it uses."""
        keys = {
            f"errors/{name}": (staged, b"dead_letters") for name, staged in dead_letters.items()
        }
        self.records.publish(keys)
        self.records.remove_intents(keys)

    def publish_bundles(
        self, bundles: Mapping[str, Staged], *, paths: Mapping[str, Staged]
    ) -> None:
        """Publish the bundles of attempts, and the *paths* in them, under names that only these use. Durable."""
        keys = {f"{BUNDLES}/{name}": (staged, b"bundle") for name, staged in bundles.items()}
        keys |= {f"{PATHS}/{name}": (staged, b"paths") for name, staged in paths.items()}
        if keys:
            self.records.publish(keys)
            self.records.remove_intents(keys)

    def open_bundle(self, name: str) -> BinaryIO:
        """Open the bundle *name* for reading.

        Raises:
            ObjectNotFoundError: It is gone.
        """
        entry = self.records.head(f"{BUNDLES}/{name}")
        if entry is None:
            raise ObjectNotFoundError(f"{self.records.uri}/{BUNDLES}/{name} is gone")
        return self.records.open(entry)

    def paths_of(self, stem: str, *, attempt: str = "") -> set[str]:
        """Return the paths of the files that a shard published, by the record of its *attempt*.

        The *attempt* is the name of its bundle; empty for all attempts at the shard. No paths are returned
        where there is no record, as of an earlier version.
        """
        if attempt:
            entries = [self.records.head(f"{PATHS}/{attempt}")]
        else:
            of_stem = f"{PATHS}/{stem}."
            entries = [e for e in self.records.list(PATHS) if e.key.startswith(of_stem)]
        found: set[str] = set()
        for entry in filter(None, entries):
            with self.records.open(entry) as file:
                found.update(file.read().decode(errors="replace").split("\n"))
        return found - {""}

    def drop_bundles(self, names: Iterable[str]) -> None:
        """Remove the bundles *names*; empty ones are ignored. Idempotent.

        Call it only for shards whose sentinel is durable, and for attempts that lost.
        """
        if keys := [f"{BUNDLES}/{name}" for name in names if name]:
            self.records.delete(keys)

    def publish(self, sentinels: Mapping[str, Sentinel]) -> dict[str, Sentinel]:
        """Declare shards complete, by the stem of their part; return the sentinels that count.

        Call it only once the parts are published. If a sentinel of the same run and part is there
        already, that one counts; if one of another run is, the shard is missing from the result.
        """
        keys = {f"sentinels/{stem}.json": sentinel for stem, sentinel in sentinels.items()}
        # Of attempts whose parts differ, only one won the part's name, and all come here with the sentinel
        # of its part: so a sentinel that is there already is read back, and never replaced.
        won = self.records.put_if_absent({key: s.to_bytes() for key, s in keys.items()})
        counting = {}
        for key, sentinel in keys.items():
            stem = _stem(key)
            stored = sentinel if key in won else self.sentinel(stem, run_uid=sentinel.run_uid)
            if stored is not None:
                counting[stem] = stored
        return counting

    def sentinel(self, stem: str, *, run_uid: str) -> Sentinel | None:
        """Return the sentinel of one shard, or None when this run has not committed it."""
        try:
            stored = self._read(f"sentinels/{stem}.json")
        except ObjectNotFoundError:
            return None
        return stored if stored.is_of(stem, run_uid=run_uid) else None

    def quarantine(self, shards: Mapping[str, Quarantine]) -> None:
        """Quarantine *shards*, which are named by the stem of their part, until `release`."""
        self.records.put_if_absent(
            {
                f"quarantine/{stem}.json": quarantine.to_bytes()
                for stem, quarantine in shards.items()
            }
        )

    def quarantined(self) -> dict[int, Quarantine]:
        """Return the quarantined shards, by id.

        A shard whose document is damaged is quarantined as well, and the reason says so: the document's
        name has the id, and `release` removes it, too.
        """
        keys = [e.key for e in self.records.list("quarantine") if _QUARANTINE.fullmatch(e.key)]
        with ThreadPoolExecutor(READERS) as pool:
            quarantines = list(pool.map(self._quarantine, keys))
        return {quarantine.shard: quarantine for quarantine in quarantines}

    def _quarantine(self, key: str) -> Quarantine:
        where = f"{self.records.uri}/{key}"
        try:
            return Quarantine.from_bytes(self.records.get(key), key=where)
        except DamagedOutputError as error:
            return Quarantine.unreadable(int(key[len("quarantine/part-") : -len(".json")]), error)

    def release(self, *, check: Callable[[], None]) -> None:
        """Remove all quarantines and marks, so that shards are tried as if they had not failed.

        *check* raises if another driver has taken over: what was quarantined since then is that driver's.
        """
        entries = [e for name in ("attempts", "quarantine") for e in self.records.list(name)]
        if entries:
            check()
            self.records.delete_exactly(entries)

    def is_recorded(self, uid: str) -> bool:
        """Return whether the analytics store is recorded to have the run in the state *uid*."""
        return self.records.head(f"recorded/{uid}.json") is not None

    def mark_recorded(self, uid: str) -> None:
        """Record that the analytics store has the run in the state *uid*.

        Call it only once the store has it, durably.
        """
        self.records.put_if_absent({f"recorded/{uid}.json": b"{}"})

    def find(self, stems: Iterable[str], *, run_uid: str) -> dict[str, Sentinel]:
        """Return the sentinels of the committed *stems*: a listing, and a read for each."""
        stems = list(stems)
        there = (
            {_stem(entry.key) for entry in sentinel_entries(self.records).values()}
            if stems
            else set()
        )
        stems = [stem for stem in stems if stem in there]
        with ThreadPoolExecutor(READERS) as pool:
            read = zip(stems, pool.map(partial(self.sentinel, run_uid=run_uid), stems), strict=True)
            return {stem: sentinel for stem, sentinel in read if sentinel is not None}

    def sentinels(self) -> Sentinels:
        """Return all sentinels: a few listings, and a read for each outside the sentinel indexes."""
        return read_sentinels(self.records, self._read_before.setdefault(self.incarnation, {}))

    def _read(self, key: str) -> Sentinel:
        return Sentinel.from_bytes(self.records.get(key), key=f"{self.records.uri}/{key}")

    def fold(self, sentinels: Mapping[int, Sentinel], *, name: str) -> None:
        """Copy *sentinels* into sentinel indexes, so that the next session need not read each one.

        A copy counts only while its sentinel is still the object that was copied.
        """
        if sentinels:
            write_index(self.records, sentinels, entries=sentinel_entries(self.records), name=name)


def _schema_key(number: int) -> str:
    return f"schema/{number:04d}.arrow" if number else "schema.arrow"


def _stem(key: str) -> str:
    return key.removeprefix("sentinels/").removesuffix(".json")
