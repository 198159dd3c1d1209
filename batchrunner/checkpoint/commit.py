"""The order of writes that makes a shard's output exactly once.

Part and sentinel are both put-if-absent, the part first: a sentinel without its part would lose
rows in silence, a part without its sentinel is only work that the next driver can finish. Files that a
part lists are published between the two (`bundles.py`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from batchrunner.checkpoint import Checkpoint, Sentinel
from batchrunner.checkpoint.bundles import Bundle, publish_files
from batchrunner.checkpoint.documents import sha256_of
from batchrunner.errors import (
    DamagedOutputError,
    ForeignOutputError,
    NewerFormatError,
    ObjectNotFoundError,
    RunRefusedError,
)
from batchrunner.storage import Staged, Storage


@dataclass(frozen=True, slots=True)
class Finished:
    """A part whose bytes are staged, and what its sentinel will say.

    Attributes:
        dead_letters: The shard's dead letters, staged; the sentinel has their name. None for none.
        bundle: The bytes of the files that the part lists; the sentinel has its name. None for none.
    """

    stem: str
    staged: Staged
    sentinel: Sentinel
    dead_letters: Staged | None = None
    bundle: Bundle | None = None

    @property
    def nbytes(self) -> int:
        """How many bytes are to be published."""
        return self.sentinel.bytes + (self.bundle.size if self.bundle else 0)

    def discard(self) -> None:
        """Discard all that is staged. Idempotent."""
        self.staged.discard()
        if self.dead_letters is not None:
            self.dead_letters.discard()
        if self.bundle is not None:
            self.bundle.discard()


def commit(
    finished: Sequence[Finished],
    *,
    sink: Storage,
    checkpoint: Checkpoint,
    refused: dict[str, RunRefusedError] | None = None,
) -> dict[str, Sentinel]:
    """Publish parts and declare their shards complete; return the sentinels that count, by stem.

    Atomic and durable for each shard, idempotent. Where another attempt was first, its part stays
    and ours is dropped. A shard is missing from the result, and *refused* gets the reason, if its part's
    name is taken by an object that no attempt of this run wrote, or a file that its part lists cannot be
    published: then the part has no sentinel.

    Raises:
        StorageError: A write failed; some shards may be committed, and the others still can be.
    """
    refused = {} if refused is None else refused
    try:
        return _committed(finished, sink, checkpoint, refused)
    finally:
        for one in finished:
            if one.bundle is not None:
                one.bundle.close()


def _committed(
    finished: Sequence[Finished],
    sink: Storage,
    checkpoint: Checkpoint,
    refused: dict[str, RunRefusedError],
) -> dict[str, Sentinel]:
    # Before the parts: a driver that adopts a part can make neither its dead letters nor its files again.
    # Each attempt has its own names for them, so what an attempt that loses leaves is in no other's way.
    checkpoint.publish_dead_letters(
        {f.sentinel.errors: f.dead_letters for f in finished if f.dead_letters}
    )
    bundles = {f.sentinel.files: f.bundle for f in finished if f.bundle}
    checkpoint.publish_bundles(
        {name: bundle.staged for name, bundle in bundles.items()},
        paths={name: bundle.paths for name, bundle in bundles.items() if bundle.paths},
    )
    won = sink.publish({f.sentinel.part: (f.staged, f.sentinel.to_intent()) for f in finished})
    sentinels = {}
    for one in finished:
        try:
            # Files after their part, which decides whose bytes they have, and before the sentinel, which
            # says that they are there.
            sentinels[one.stem] = _with_files(
                one, is_ours=one.sentinel.part in won, sink=sink, checkpoint=checkpoint
            )
        except (ForeignOutputError, DamagedOutputError) as error:
            refused[one.stem] = error
    counting = checkpoint.publish(sentinels)
    # After the sentinels: until these are durable, a part can be adopted only by its intent, and its
    # files published only from its bundle.
    sink.remove_intents([sentinel.part for sentinel in counting.values()])
    made = [f.sentinel for f in finished if f.stem in counting]
    checkpoint.drop_bundles({s.files for s in (*made, *counting.values())})
    return counting


def _with_files(one: Finished, *, is_ours: bool, sink: Storage, checkpoint: Checkpoint) -> Sentinel:
    """Return the sentinel of the part that won, whose files are published."""
    if is_ours:
        publish_files(one.sentinel, sink=sink, checkpoint=checkpoint, bundle=one.bundle)
        return one.sentinel
    run_uid, part = one.sentinel.run_uid, one.sentinel.part
    return adopt(one.stem, part, run_uid=run_uid, sink=sink, checkpoint=checkpoint)


def adopt(stem: str, part: str, *, run_uid: str, sink: Storage, checkpoint: Checkpoint) -> Sentinel:
    """Return the sentinel of a part that another attempt published, and publish its files. Idempotent.

    Raises:
        TakenPathError: Other bytes have the path of a file that the part lists.
        DamagedOutputError: The bundle is gone, and a file is not there yet.
        ForeignOutputError: No attempt of this run wrote that part.
        ObjectNotFoundError: The part is gone.
    """
    if stored := checkpoint.sentinel(stem, run_uid=run_uid):
        return stored  # its files are published: the sentinel says so
    sentinel = _claimed(stem, part, run_uid=run_uid, sink=sink, checkpoint=checkpoint)
    try:
        publish_files(sentinel, sink=sink, checkpoint=checkpoint)
    except DamagedOutputError:
        # The attempt that published it may have committed, and dropped its bundle, since the claim.
        if stored := checkpoint.sentinel(stem, run_uid=run_uid):
            return stored
        raise
    return sentinel


def claim(stem: str, part: str, *, run_uid: str, sink: Storage, checkpoint: Checkpoint) -> Sentinel:
    """Return the sentinel of a part that another attempt published: the stored one, or its intent.

    Writes nothing: files that the part lists may be missing.

    Raises:
        ForeignOutputError: No attempt of this run wrote that part.
        ObjectNotFoundError: The part is gone.
    """
    stored = checkpoint.sentinel(stem, run_uid=run_uid)
    return stored or _claimed(stem, part, run_uid=run_uid, sink=sink, checkpoint=checkpoint)


def _claimed(
    stem: str, part: str, *, run_uid: str, sink: Storage, checkpoint: Checkpoint
) -> Sentinel:
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
