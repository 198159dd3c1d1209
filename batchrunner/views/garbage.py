"""Lists what dead drivers and workers left behind, and removes it under the lease."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

from batchrunner.checkpoint import Checkpoint
from batchrunner.checkpoint.answers import ANSWERS
from batchrunner.checkpoint.lease import Lease, current_lease
from batchrunner.checkpoint.store import BUNDLES
from batchrunner.driver.session import Stop, open_session
from batchrunner.errors import ObjectNotFoundError
from batchrunner.storage import Entry, Storage


class GarbageKind(StrEnum):
    """The kind of object that a dead driver or worker left."""

    STAGED = "staged"
    """Bytes that were never published."""
    UPLOAD = "upload"
    """A multipart upload that was not completed."""
    DEAD_LETTERS = "dead_letters"
    """Dead letters of an attempt that lost or died."""
    BUNDLE = "bundle"
    """The bytes of files that are published, or of an attempt that lost or died."""
    ANSWERS = "answers"
    """Journaled answers of a committed shard."""
    MARK = "mark"
    """The mark of a worker that died: the shards that it had taken."""
    STOP = "stop"
    """A request to stop a session that is over."""


@dataclass(frozen=True, slots=True)
class GarbageItem:
    """One object that no driver or worker needs.

    Attributes:
        kind: What it is.
        place: URI of the root of its storage.
        key: Its key in that storage.
        bytes: Its size; 0 where the storage lists no size, as for an upload.
    """

    kind: GarbageKind
    place: str
    key: str
    bytes: int

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


class Garbage:
    """The garbage of one run: what its dead drivers and workers left."""

    def __init__(self, checkpoint: Checkpoint, *, sink: Storage | None) -> None:
        """Prepare to list garbage in *checkpoint*, and in *sink* if given. Lists nothing yet."""
        self._checkpoint, self._sink = checkpoint, sink

    def active_lease(self) -> Lease | None:
        """Return the lease of a driver that may be running, and using what it staged; else None.

        A driver on another machine counts as running until it releases its lease; one on this machine
        is checked.
        """
        lease = current_lease(self._checkpoint.storage)
        if lease is None or lease.released:
            return None
        return None if lease.owner.is_here() and not lease.owner.is_alive() else lease

    def listed(self) -> list[GarbageItem]:
        """List the garbage. Changes nothing.

        Raises:
            ObjectNotFoundError: There is no run, and never was one.
            StorageError: Something cannot be listed.
        """
        storage = self._checkpoint.storage
        if current_lease(storage) is None and self._checkpoint.run() is None:
            raise ObjectNotFoundError(
                f"there is no run in {storage.uri}; check the path, or start one with "
                "`batchrunner run SPEC`"
            )
        items = [*_staged(storage, intents=True)]
        if self._sink is not None:
            # Not its intents: the next run adopts a part that has no sentinel by its intent.
            items += _staged(self._sink, intents=False)
        records = self._checkpoint.records
        items += [_of(GarbageKind.DEAD_LETTERS, records, entry) for entry in self._dead_letters()]
        items += [_of(GarbageKind.BUNDLE, records, entry) for entry in self._of_committed(BUNDLES)]
        items += [_of(GarbageKind.ANSWERS, records, entry) for entry in self._of_committed(ANSWERS)]
        items += [_of(GarbageKind.MARK, records, entry) for entry in records.list("attempts")]
        stops = (entry for entry in storage.list("sessions") if entry.key.endswith(".stop"))
        items += [_of(GarbageKind.STOP, storage, entry) for entry in stops]
        # In a bucket, uploads to a checkpoint below its sink are also listed as uploads to the sink.
        return list({f"{item.place}/{item.key}": item for item in items}.values())

    def remove(self) -> list[GarbageItem]:
        """Remove the garbage under the lease, and return it. Idempotent, also after a crash.

        Raises:
            LeaseHeldError: A driver runs.
            StorageError: Something cannot be listed or removed.
        """
        with open_session(self._checkpoint, stop=Stop(max_runtime=None)) as session:
            session.log_event("clean_began")  # first: a clean that dies is no run that died
            # List again: a driver that was running before may have needed what was listed then.
            items = self.listed()
            session.check()  # after the listing: so nothing in it belongs to a later driver
            records, storage = self._checkpoint.records, self._checkpoint.storage
            of_run = (
                GarbageKind.DEAD_LETTERS,
                GarbageKind.BUNDLE,
                GarbageKind.ANSWERS,
                GarbageKind.MARK,
            )
            records.delete(item.key for item in items if item.kind in of_run)
            storage.delete(item.key for item in items if item.kind is GarbageKind.STOP)
            storage.clean(intents=True)
            if self._sink is not None:
                self._sink.clean()
            session.log_event("cleaned", objects=len(items))
        return items

    def _dead_letters(self) -> Iterator[Entry]:
        """Yield the dead-letter files of committed shards that their sentinels do not name.

        Files of shards that are not committed stay: the worker of a driver that was killed a moment
        ago may be about to publish the part that they belong to.
        """
        entries = list(self._checkpoint.records.list("errors"))
        if not entries:
            return
        sentinels = self._checkpoint.sentinels().good.values()
        named = {_stem(sentinel.part): sentinel.errors for sentinel in sentinels}
        for entry in entries:
            name = entry.key.partition("/")[2]
            if named.get(_stem(name), name) != name:
                yield entry

    def _of_committed(self, folder: str) -> Iterator[Entry]:
        """Yield what *folder* has of committed shards, which do not need it any more; others may."""
        entries = list(self._checkpoint.records.list(folder))
        if not entries:
            return
        sentinels = self._checkpoint.sentinels().good.values()
        committed = {_stem(sentinel.part) for sentinel in sentinels}
        yield from (e for e in entries if _stem(e.key.partition("/")[2]) in committed)


def _stem(name: str) -> str:
    return name.partition(".")[0]


def _staged(storage: Storage, *, intents: bool) -> Iterator[GarbageItem]:
    for entry in storage.garbage(intents=intents):
        is_file = entry.key.startswith(".staging/")  # on a disk; a bucket has uploads
        yield _of(GarbageKind.STAGED if is_file else GarbageKind.UPLOAD, storage, entry)


def _of(kind: GarbageKind, storage: Storage, entry: Entry) -> GarbageItem:
    return GarbageItem(kind, storage.uri, entry.key, entry.size)
