"""Who owns a sink: a run puts `_owner.json` there before its first part, to keep other runs out."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from typing import Any

import orjson

from batchrunner.driver.clearing import ClearedRuns
from batchrunner.driver.sink_state import OWNER
from batchrunner.errors import ForeignOutputError, ObjectNotFoundError
from batchrunner.storage import Entry, Storage


@dataclass(frozen=True, slots=True)
class SinkOwner:
    """The content of `_owner.json`.

    Attributes:
        run_uid: Identifies the run that writes here; stays the same when a folder is moved.
        checkpoint: URI of the run's checkpoint when the run began; stays the same over `--fresh`.
    """

    run_uid: str
    checkpoint: str
    version: int = 1

    def to_bytes(self) -> bytes:
        return orjson.dumps(asdict(self), option=orjson.OPT_INDENT_2)

    @classmethod
    def from_bytes(cls, data: bytes) -> SinkOwner:
        """Read the content of `_owner.json`; return empty fields if it is damaged."""
        try:
            fields: Any = orjson.loads(data)
            return cls(str(fields["run_uid"]), str(fields["checkpoint"]))
        except (ValueError, TypeError, KeyError):
            return cls("", "")


@dataclass(frozen=True, slots=True)
class Ownership:
    """The right of a run to write into a sink.

    Attributes:
        me: The run that wants to own the sink.
        sink: The sink.
        ended: The runs of the same checkpoint that a `--fresh` ended.
    """

    me: SinkOwner
    sink: Storage
    ended: ClearedRuns

    def check(self, entries: Iterable[Entry]) -> None:
        """Refuse a sink that another run owns. Reads only `_owner.json`, if *entries* has it.

        Raises:
            ForeignOutputError: Another run owns the sink.
        """
        if any(entry.key == OWNER for entry in entries) and (owner := self._owner()):
            self._check(owner, has_begun=bool(self.me.run_uid or self.ended))

    def claim(self, *, before_replacing: Callable[[], None], has_begun: bool) -> None:
        """Make the run the owner, durably. Of several that claim one sink, one gets it. Idempotent.

        Args:
            before_replacing: Called before the run replaces an earlier run of its checkpoint as the
                owner; raises if another driver has taken over.
            has_begun: Whether the run began in an earlier session, or replaces one that did. It
                then takes a damaged `_owner.json` for its own.

        Raises:
            ForeignOutputError: Another run owns the sink.
        """
        owner = self._owner() if has_begun else None
        if owner is None:
            # Without a read first: if two runs see no owner, only one of them puts the object.
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
