"""The owner of a sink: an object that a run puts there before its first part, against a second run."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from typing import Any

import orjson

from batchrunner.driver.clearing import ClearedRuns
from batchrunner.errors import ForeignOutputError, ObjectNotFoundError
from batchrunner.storage import Entry, Storage

OWNER = "_owner.json"
"""Readers pass over names that begin with `_`."""


@dataclass(frozen=True, slots=True)
class SinkOwner:
    """The content of `_owner.json`.

    Attributes:
        run_uid: The run that writes here; it stays the same when a folder is moved.
        checkpoint: URI of its checkpoint when it began; it stays the same over `--fresh`.
    """

    run_uid: str
    checkpoint: str
    version: int = 1

    def to_bytes(self) -> bytes:
        return orjson.dumps(asdict(self), option=orjson.OPT_INDENT_2)

    @classmethod
    def from_bytes(cls, data: bytes) -> SinkOwner:
        """Read it back; a damaged one has empty fields."""
        try:
            fields: Any = orjson.loads(data)
            return cls(str(fields["run_uid"]), str(fields["checkpoint"]))
        except (ValueError, TypeError, KeyError):
            return cls("", "")


@dataclass(frozen=True, slots=True)
class Ownership:
    """The right of a run to write into a sink.

    Attributes:
        me: The run, as the owner that it wants to be.
        sink: Where it wants to write.
        ended: The runs of the same checkpoint that a `--fresh` ended.
    """

    me: SinkOwner
    sink: Storage
    ended: ClearedRuns

    def check(self, entries: Iterable[Entry]) -> None:
        """Refuse a sink among whose *entries* is another owner. Reads nothing else.

        Raises:
            ForeignOutputError: There is one.
        """
        if any(entry.key == OWNER for entry in entries) and (owner := self._owner()):
            self._check(owner, has_begun=bool(self.me.run_uid or self.ended))

    def claim(self, *, before_replacing: Callable[[], None], has_begun: bool) -> None:
        """Become the owner, durably. Of several runs that want one sink exactly one does. Idempotent.

        Args:
            before_replacing: Called before an earlier run of this checkpoint is replaced as the owner;
                raises once another driver has taken over.
            has_begun: The run began before, so that a damaged owner is taken for itself.

        Raises:
            ForeignOutputError: Another run owns the sink.
        """
        owner = self._owner() if has_begun else None
        if owner is None:
            # Not after a look: of two runs that see no owner, only one puts the object.
            if self.sink.put_if_absent({OWNER: self.me.to_bytes()}):
                return
            owner = self._owner() or self.me
        if owner.run_uid == self.me.run_uid:
            return
        self._check(owner, has_begun=has_begun)
        # The one write here that is not put-if-absent; the lease keeps other drivers from it.
        before_replacing()
        self.sink.put(OWNER, self.me.to_bytes())

    def _owner(self) -> SinkOwner | None:
        try:
            return SinkOwner.from_bytes(self.sink.get(OWNER))
        except ObjectNotFoundError:
            return None

    def _check(self, owner: SinkOwner, *, has_begun: bool) -> None:
        is_damaged_own = has_begun and not owner.run_uid
        is_ours = owner.checkpoint == self.me.checkpoint or owner.run_uid == self.me.run_uid
        if not (is_damaged_own or is_ours or self.ended.include(owner.run_uid)):
            raise ForeignOutputError(_refusal(self.sink.uri, owner))


def _refusal(sink: str, owner: SinkOwner) -> str:
    if not owner.run_uid:
        return (
            f"{sink}/{OWNER} is damaged: it does not name the run that owns the sink.\n"
            "Nothing was changed. If no other run writes there, remove it, then run again."
        )
    return (
        f"the sink {sink} belongs to another run: {OWNER} in it names the checkpoint "
        f"{owner.checkpoint}\n"
        f"Nothing was changed. Choose another sink; or go on with that run (`batchrunner status "
        f"{owner.checkpoint}` shows it). If it is abandoned, or its checkpoint is gone, move its "
        f"parts and {sink}/{OWNER} away, then run again."
    )
