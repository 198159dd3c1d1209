"""The order of writes that makes a shard's output exactly once.

Part and sentinel are both put-if-absent, the part first: a sentinel without its part would lose
rows in silence, a part without its sentinel is only work that the next driver can finish.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from batchrunner.checkpoint import Checkpoint, Sentinel
from batchrunner.errors import (
    DamagedOutputError,
    ForeignOutputError,
    NewerFormatError,
    ObjectNotFoundError,
)
from batchrunner.storage import Entry, Staged, Storage

_BLOCK_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Finished:
    """A part whose bytes are staged, and what its sentinel will say.

    Attributes:
        dead_letters: The shard's dead letters, staged; the sentinel has their name. None for none.
    """

    stem: str
    staged: Staged
    sentinel: Sentinel
    dead_letters: Staged | None = None

    def discard(self) -> None:
        """Discard all that is staged. Idempotent."""
        self.staged.discard()
        if self.dead_letters is not None:
            self.dead_letters.discard()


def commit(
    finished: Sequence[Finished], *, sink: Storage, checkpoint: Checkpoint
) -> dict[str, Sentinel]:
    """Publish parts and declare their shards complete; return the sentinels that count, by stem.

    Atomic and durable for each shard, idempotent. Where another attempt was first, its part stays
    and ours is dropped. A shard is missing from the result if its part's name is taken by an object
    that no attempt of this run wrote.

    Raises:
        StorageError: A write failed; some shards may be committed, and the others still can be.
    """
    # Before the parts: a driver that adopts a part cannot make its dead letters again. Each attempt has
    # its own name for them, so the file of an attempt that loses is in no other attempt's way.
    checkpoint.publish_dead_letters(
        {f.sentinel.errors: f.dead_letters for f in finished if f.dead_letters}
    )
    won = sink.publish({f.sentinel.part: (f.staged, f.sentinel.to_intent()) for f in finished})
    sentinels = {f.stem: f.sentinel for f in finished if f.sentinel.part in won}
    for lost in (f for f in finished if f.sentinel.part not in won):
        with contextlib.suppress(ForeignOutputError):
            sentinels[lost.stem] = adopt(
                lost.stem,
                lost.sentinel.part,
                run_uid=lost.sentinel.run_uid,
                sink=sink,
                checkpoint=checkpoint,
            )
    counting = checkpoint.publish(sentinels)
    # After the sentinels: until these are durable, a part can be adopted only by its intent.
    sink.remove_intents([sentinel.part for sentinel in counting.values()])
    return counting


def adopt(stem: str, part: str, *, run_uid: str, sink: Storage, checkpoint: Checkpoint) -> Sentinel:
    """Return the sentinel of a part that another attempt published: the stored one, or its intent.

    Raises:
        ForeignOutputError: No attempt of this run wrote that part.
        ObjectNotFoundError: The part is gone.
    """
    if stored := checkpoint.sentinel(stem, run_uid=run_uid):
        return stored
    entry = sink.head(part)
    if entry is None:
        raise ObjectNotFoundError(f"{sink.uri}/{part} was there and is gone; run again")
    intents = _intents(sink, part, run_uid=run_uid)
    if intents:  # the part is read only where an intent is there to be compared with it
        sha256 = sha256_of(sink, entry)
        for intent in intents:
            if (intent.bytes, intent.sha256) == (entry.size, sha256):
                return intent
    # The attempt that published it may have committed, and removed its intent, since the first look.
    if stored := checkpoint.sentinel(stem, run_uid=run_uid):
        return stored
    raise ForeignOutputError(foreign_part(f"{sink.uri}/{part}"))


def foreign_part(uri: str) -> str:
    """Return the message for a part at *uri* that no sentinel or intent of this run names."""
    return (
        f"{uri} was not written by this run: no sentinel or intent of it names that part; "
        "`batchrunner verify --repair SPEC` moves it to _damaged/, then run again"
    )


def _intents(sink: Storage, part: str, *, run_uid: str) -> list[Sentinel]:
    ours = []
    for data in sink.intents(part):
        try:
            intent = Sentinel.from_bytes(data, key=part)
        except (DamagedOutputError, NewerFormatError):
            continue  # an intent that was cut short belongs to an attempt that never published
        if (intent.run_uid, intent.part) == (run_uid, part):
            ours.append(intent)
    return ours


def sha256_of(sink: Storage, entry: Entry) -> str:
    """Read an object from end to end, and return its SHA-256 in hex."""
    digest = hashlib.sha256()
    with sink.open(entry) as file:
        while block := file.read(_BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()
