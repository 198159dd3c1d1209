"""What dead drivers and workers left behind: listed, and removed under the lease."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

from batchrunner.checkpoint import Checkpoint
from batchrunner.checkpoint.lease import Lease, current_lease
from batchrunner.driver.session import Stop, open_session
from batchrunner.errors import ObjectNotFoundError
from batchrunner.storage import Entry, Storage


class GarbageKind(StrEnum):
    """What kind of object was left."""

    STAGED = "staged"
    """Bytes that were never published."""
    UPLOAD = "upload"
    """A multipart upload that was not completed."""
    DEAD_LETTERS = "dead_letters"
    """Dead letters of an attempt that lost or died."""
    MARK = "mark"
    """The shards that a worker began and died at."""
    STOP = "stop"
    """A request to stop a session that is over."""


@dataclass(frozen=True, slots=True)
class GarbageItem:
    """One object that no driver or worker needs.

    Attributes:
        kind: What it is.
        place: Root of the storage that it is in.
        key: In that storage.
        bytes: Its size; 0 where the storage lists none, as of an upload.
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
        """Take the garbage of *checkpoint*, and of *sink* if there is one. Lists nothing yet."""
        self._checkpoint, self._sink = checkpoint, sink

    def active_lease(self) -> Lease | None:
        """Return the lease of a driver that may still be running, else None: its staged files may be in use.

        A driver on another machine may be running; one of this machine is known to be dead or alive.
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
        items += [_of(GarbageKind.MARK, records, entry) for entry in records.list("attempts")]
        stops = (entry for entry in storage.list("sessions") if entry.key.endswith(".stop"))
        items += [_of(GarbageKind.STOP, storage, entry) for entry in stops]
        # Uploads to a checkpoint below its sink, in a bucket, are listed with those to the sink, too.
        return list({f"{item.place}/{item.key}": item for item in items}.values())

    def remove(self) -> list[GarbageItem]:
        """Remove the garbage under the lease, and return it. Idempotent, at any point of a crash.

        Raises:
            LeaseHeldError: A driver runs.
            StorageError: Something cannot be listed or removed.
        """
        with open_session(self._checkpoint, stop=Stop(max_runtime=None)) as session:
            # Listed again: a driver that was running before may have needed what was shown.
            items = self.listed()
            session.check()  # after the listing: nothing in it is of a later driver
            records, storage = self._checkpoint.records, self._checkpoint.storage
            of_run = (GarbageKind.DEAD_LETTERS, GarbageKind.MARK)
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


def _stem(name: str) -> str:
    return name.partition(".")[0]


def _staged(storage: Storage, *, intents: bool) -> Iterator[GarbageItem]:
    for entry in storage.garbage(intents=intents):
        is_file = entry.key.startswith(".staging/")  # on a disk; a bucket has uploads
        yield _of(GarbageKind.STAGED if is_file else GarbageKind.UPLOAD, storage, entry)


def _of(kind: GarbageKind, storage: Storage, entry: Entry) -> GarbageItem:
    return GarbageItem(kind, storage.uri, entry.key, entry.size)
