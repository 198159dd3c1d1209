"""What dead drivers and workers left behind: listed, and removed under the lease."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

from batchrunner.checkpoint import Checkpoint
from batchrunner.checkpoint.lease import Lease, current_lease
from batchrunner.driver.session import Stop, open_session
from batchrunner.errors import ObjectNotFoundError
from batchrunner.storage import Entry, Storage


class GarbageKind(StrEnum):
    """What was left."""

    STAGED = "staged"
    """Bytes that were never published."""
    UPLOAD = "upload"
    """A multipart upload that nobody finished."""
    DEAD_LETTERS = "dead_letters"
    """Rows set aside by an attempt that lost or died."""
    MARK = "mark"
    """Says that a worker began some shards, and was not there to say how they ended."""
    STOP = "stop"
    """A wish to stop a session that is over."""


@dataclass(frozen=True, slots=True)
class GarbageItem:
    """One object that nobody needs.

    Attributes:
        kind: What it is.
        place: Root of the storage that it is in.
        key: In that storage.
        bytes: Its size, as far as the store tells.
    """

    kind: GarbageKind
    place: str
    key: str
    bytes: int

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


class Garbage:
    """What is left of the dead in one run's places."""

    def __init__(self, checkpoint: Checkpoint, *, sink: Storage | None) -> None:
        """Look into *checkpoint*, and into *sink* if it is known."""
        self._checkpoint, self._sink = checkpoint, sink

    def runner(self) -> Lease | None:
        """Return who runs now, as far as this machine can tell: what is listed may be theirs."""
        lease = current_lease(self._checkpoint.storage)
        if lease is None or lease.released:
            return None
        return None if lease.owner.is_here() and not lease.owner.is_alive() else lease

    def listed(self) -> list[GarbageItem]:
        """Return what is there. Changes nothing.

        Raises:
            ObjectNotFoundError: There is no run, and never was one.
            StorageError: Something cannot be listed.
        """
        storage = self._checkpoint.storage
        if current_lease(storage) is None and self._checkpoint.run() is None:
            raise ObjectNotFoundError(f"there is no run in {storage.uri}")
        items = [*_staged(storage, intents=True)]
        if self._sink is not None:
            items += _staged(self._sink, intents=False)  # they make a part without a sentinel count
        records = self._checkpoint.records
        items += [_of(GarbageKind.DEAD_LETTERS, records, entry) for entry in self._dead_letters()]
        items += [_of(GarbageKind.MARK, records, entry) for entry in records.list("attempts")]
        stops = (entry for entry in storage.list("sessions") if entry.key.endswith(".stop"))
        items += [_of(GarbageKind.STOP, storage, entry) for entry in stops]
        # A checkpoint below its sink, in a bucket, is swept with it.
        return list({f"{one.place}/{one.key}": one for one in items}.values())

    def remove(self) -> list[GarbageItem]:
        """Remove what is there, and return it. Idempotent; needs no order.

        Raises:
            LeaseHeldError: A driver runs.
            StorageError: Something cannot be listed or removed.
        """
        with open_session(self._checkpoint, stop=Stop(max_runtime=None)) as session:
            items = self.listed()
            session.check()  # after the listing: nothing in it is of a later driver
            records, storage = self._checkpoint.records, self._checkpoint.storage
            records.delete(
                one.key for one in items if one.kind in (GarbageKind.DEAD_LETTERS, GarbageKind.MARK)
            )
            storage.delete(one.key for one in items if one.kind is GarbageKind.STOP)
            storage.clean(intents=True)
            if self._sink is not None:
                self._sink.clean()
            session.log_event("cleaned", objects=len(items))
        return items

    def _dead_letters(self) -> Iterator[Entry]:
        """Yield the files of committed shards that are not the ones that their sentinels name.

        Those of other shards stay until the run is complete: the worker of a driver that was killed
        a moment ago may be about to publish the part that they belong to.
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


def _staged(storage: Storage, *, intents: bool) -> Sequence[GarbageItem]:
    return [
        _of(GarbageKind.STAGED if _is_staged(entry) else GarbageKind.UPLOAD, storage, entry)
        for entry in storage.garbage(intents=intents)
    ]


def _is_staged(entry: Entry) -> bool:
    return entry.key.startswith(".staging/")


def _of(kind: GarbageKind, storage: Storage, entry: Entry) -> GarbageItem:
    return GarbageItem(kind, storage.uri, entry.key, entry.size)
