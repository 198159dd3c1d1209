"""Whose a sink is: a mark that a run puts there before its first part, so that no second one begins."""

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
    """What the mark says.

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
        """Read it back; a mark that is damaged names nobody."""
        try:
            found: Any = orjson.loads(data)
            return cls(str(found["run_uid"]), str(found["checkpoint"]))
        except (ValueError, TypeError, KeyError):
            return cls("", "")


@dataclass(frozen=True, slots=True)
class Ownership:
    """The right of a run to write into a sink.

    Attributes:
        me: What the run's mark says.
        sink: Where it wants to write.
        ended: The runs of the same checkpoint that a `--fresh` ended.
    """

    me: SinkOwner
    sink: Storage
    ended: ClearedRuns

    def check(self, entries: Iterable[Entry]) -> None:
        """Refuse a sink among whose *entries* is the mark of another run. Reads nothing else.

        Raises:
            ForeignOutputError: There is one.
        """
        if any(entry.key == OWNER for entry in entries) and (said := self._said()):
            is_known = bool(self.me.run_uid or self.ended)
            self._check(said, is_known=is_known)

    def claim(self, *, before_replacing: Callable[[], None], is_known: bool) -> None:
        """Put the mark, durably. Of several runs that want one sink exactly one gets it. Idempotent.

        Args:
            before_replacing: Called before the mark of an earlier run of this checkpoint is replaced;
                raises once another driver has taken over.
            is_known: The run began before, so that a mark that is damaged is its own.

        Raises:
            ForeignOutputError: The sink is another run's.
        """
        said = self._said() if is_known else None
        if said is None:
            if self.sink.put_if_absent({OWNER: self.me.to_bytes()}):
                return
            said = self._said() or self.me
        if said.run_uid == self.me.run_uid:
            return
        self._check(said, is_known=is_known)
        before_replacing()
        self.sink.put(OWNER, self.me.to_bytes())

    def _said(self) -> SinkOwner | None:
        try:
            return SinkOwner.from_bytes(self.sink.get(OWNER))
        except ObjectNotFoundError:
            return None

    def _check(self, said: SinkOwner, *, is_known: bool) -> None:
        is_damaged_own = is_known and not said.run_uid
        is_ours = said.checkpoint == self.me.checkpoint or said.run_uid == self.me.run_uid
        if not (is_damaged_own or is_ours or self.ended.include(said.run_uid)):
            raise ForeignOutputError(_refusal(self.sink.uri, said))


def _refusal(sink: str, said: SinkOwner) -> str:
    if not said.run_uid:
        return (
            f"{sink}/{OWNER} is damaged: it does not say whose the sink is.\n"
            "Nothing was changed. If no other run writes there, remove it, then run again."
        )
    return (
        f"the sink {sink} belongs to another run: {OWNER} in it names the checkpoint "
        f"{said.checkpoint}\n"
        f"Nothing was changed. Choose another sink; or go on with that run, of which `batchrunner "
        f"status {said.checkpoint}` tells. If that is given up, or its checkpoint is gone, move its "
        f"parts and {sink}/{OWNER} away, then run again."
    )
