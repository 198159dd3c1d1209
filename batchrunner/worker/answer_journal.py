"""Writes answers into the checkpoint as they come, for shards in flight, and finds those of earlier workers.

A thread of its own writes them, a moment after they came: what a crash can lose is that moment. Nothing waits
for it, and nothing that it fails at fails a row: what is not written is asked again after a crash.
"""

from __future__ import annotations

import logging
import threading
import time
import uuid
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from batchrunner.checkpoint import Checkpoint, PlanFacts
from batchrunner.checkpoint.answers import (
    ANSWERS,
    READERS,
    JournaledAnswer,
    Scope,
    answers_key,
    answers_object,
    lines_for,
    shard_of,
)
from batchrunner.errors import StorageError

_log = logging.getLogger(__name__)

DELAY_SECONDS = 0.1
"""How long answers are collected before they are written. An object for each would cost more than it saves."""

_MOST_BYTES = 8 << 20
_LEAVE_SECONDS = 5.0

Places = dict[tuple[int, int], bytes]
"""Lines of answers, by the slice of their row and where it stands in the file of that slice."""


@dataclass(slots=True)
class _Pending:
    """What the thread has to do."""

    lines: dict[int, list[bytes]] = field(default_factory=lambda: defaultdict(list))
    dropped: set[int] = field(default_factory=set)
    nbytes: int = 0

    def __bool__(self) -> bool:
        return bool(self.lines or self.dropped)


class AnswerJournal:
    """The journaled answers of one run, for one worker. Safe in several threads; idempotent.

    Two workers that answer the same row both keep their answers, and a reader takes one of the two: a worker
    whose driver was displaced does no harm.
    """

    def __init__(
        self, checkpoint: Checkpoint, facts: PlanFacts, *, run_uid: str, definition: str, epoch: int
    ) -> None:
        """Keep answers for the run *run_uid*, as long as its *definition* stays the same."""
        self._records, self._facts = checkpoint.records, facts
        self._run_uid, self._definition = run_uid, definition
        self._writer, self._number = f"{epoch}-{uuid.uuid4().hex[:12]}", 0
        self._keys: dict[int, list[str]] = defaultdict(list)
        self._dropped: set[int] = set()
        self._pending, self._changed = _Pending(), threading.Condition()
        self._is_closing = False
        self._thread = threading.Thread(target=self._run, daemon=True, name="answer-journal")
        self._thread.start()

    def look(self) -> None:
        """List what is journaled, before some shards begin: another worker may have died over them.

        Raises:
            StorageError: The checkpoint cannot be listed.
        """
        keys: dict[int, list[str]] = defaultdict(list)
        for entry in self._records.list(ANSWERS):
            shard = shard_of(entry.key)
            if shard is not None:
                keys[shard].append(entry.key)
        with self._changed:
            self._keys = keys

    def known(self, shard: int) -> Places:
        """Return what is journaled of *shard*; what cannot be read is not there."""
        keys, scope = sorted(self._keys.get(shard, ())), self._scope(shard)
        with ThreadPoolExecutor(READERS) as pool:
            return {
                place: line
                for data in pool.map(self._read, keys)
                for place, line in lines_for(scope, data)
            }

    def _read(self, key: str) -> bytes:
        try:
            return self._records.get(key)
        except StorageError as error:  # gone since the listing, or unreadable
            _log.warning("journaled answers in %s were not read: %s", key, error)
            return b""

    def add(self, shard: int, answer: JournaledAnswer) -> None:
        """Keep *answer* of a row of *shard*. Never raises: what JSON does not hold exactly is not kept."""
        try:
            line = answer.to_line()
        except Exception:  # noqa: BLE001 - an object of the user's may raise anything
            return
        with self._changed:
            if shard in self._dropped:
                return
            self._pending.lines[shard].append(line)
            self._pending.nbytes += len(line)
            self._changed.notify()

    def drop(self, shards: Collection[int]) -> None:
        """Remove what is journaled of *shards*, whose sentinels are durable."""
        with self._changed:
            self._dropped.update(shards)
            self._pending.dropped.update(shards)
            self._changed.notify()

    def close(self) -> None:
        """Write what is pending, within some seconds, and end the thread."""
        with self._changed:
            self._is_closing = True
            self._changed.notify()
        self._thread.join(_LEAVE_SECONDS)

    def _run(self) -> None:
        for pending in self._orders():
            try:
                self._write(pending.lines, pending.dropped)
                self._remove(pending.dropped)
            except StorageError as error:
                _log.warning(
                    "answers were not journaled, and a crash would ask for them again: %s", error
                )

    def _orders(self) -> Iterator[_Pending]:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._pending or self._is_closing)
                until = time.monotonic() + DELAY_SECONDS
                while not self._is_full and (left := until - time.monotonic()) > 0:
                    self._changed.wait(left)
                pending, self._pending = self._pending, _Pending()
                if not pending:
                    return
            yield pending

    @property
    def _is_full(self) -> bool:
        return self._is_closing or self._pending.nbytes > _MOST_BYTES

    def _write(self, lines: Mapping[int, list[bytes]], dropped: Collection[int]) -> None:
        objects = {}
        for shard, some in lines.items():
            if shard not in dropped:
                key = answers_key(self._facts.stem(shard), self._writer, self._number)
                objects[key] = answers_object(self._scope(shard), some)
                self._keys[shard].append(key)
        self._number += 1
        if objects:
            self._records.put_if_absent(objects)

    def _remove(self, shards: Collection[int]) -> None:
        keys = [key for shard in shards for key in self._keys.pop(shard, ())]
        if keys:
            self._records.delete(keys)

    def _scope(self, shard: int) -> Scope:
        return Scope(self._run_uid, self._definition, shard)
