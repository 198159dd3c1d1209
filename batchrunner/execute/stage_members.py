"""The workers of one stage on Ray, as the worker of the shards sees them: who has which calls."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from batchrunner.worker.stage_pool import Span, StageAnswer
from batchrunner.worker.usage import Usage

CALLS_EACH = 2
"""Calls at a worker: one runs, and one waits there, its rows brought to that machine meanwhile."""


@dataclass(frozen=True, slots=True)
class Kept:
    """A block in Ray's object store, and the id of the node that made it."""

    ref: Any
    node: str


@dataclass(eq=False, slots=True)
class Call:
    """One call of the stage on its way.

    Attributes:
        spans: Its rows.
        answer: What the caller waits for.
        deaths: How many workers have died while they had it.
        is_answered: Whether its end is known before that of the worker: it took too long.
    """

    spans: Sequence[Span]
    answer: Future[StageAnswer] = field(default_factory=Future)
    deaths: int = 0
    is_answered: bool = False

    @property
    def node(self) -> str:
        """The node that has the most of its rows."""
        rows: dict[str, int] = {}
        for span in self.spans:
            rows[span.handle.node] = rows.get(span.handle.node, 0) + span.stop - span.start
        return max(rows, key=lambda node: rows[node], default="")


class Phase(StrEnum):
    """What has become of a stage worker."""

    STARTING = "starting"
    """Ray has no process for it yet: it may be waiting for room."""
    LOADING = "loading"
    """It builds the capability."""
    READY = "ready"
    """It takes calls."""
    LEAVING = "leaving"
    """It takes no more calls, and ends with its last one."""
    GONE = "gone"
    """It has ended, or died."""


@dataclass(eq=False, slots=True)
class Member:
    """One stage worker.

    Attributes:
        actor: Ray's handle.
        began: When it was started, by the monotonic clock.
        phase: What has become of it.
        node: The id of its node, once it has one.
        worker: Its `<host>-<pid>`, once it has one.
        most: How many calls it takes at once.
        calls: The calls that it has, each with the time since when it can have been at it.
        used: What its calls have used so far.
        is_excused: Whether it ends for a reason that none of its calls is to blame for.
    """

    actor: Any
    began: float
    phase: Phase = Phase.STARTING
    node: str = ""
    worker: str = ""
    most: int = CALLS_EACH
    calls: dict[Call, float] = field(default_factory=dict)
    is_excused: bool = False
    used: Usage = field(default_factory=dict)

    def begin(self, call: Call, now: float) -> None:
        """Give it *call*."""
        self.calls[call] = now

    def end(self, call: Call, now: float) -> None:
        """Take *call* from it; a call that waited for it can begin."""
        self.calls.pop(call, None)
        if self.most == CALLS_EACH:
            self.calls = dict.fromkeys(self.calls, now)

    def late(self, before: float) -> Call | None:
        """Return a call that it has been at since *before*."""
        late = (c for c, since in self.calls.items() if since < before and not c.is_answered)
        return next(late, None)

    def takes(self, call: Call) -> bool:
        """Return whether it takes *call* now.

        A call that a worker has died over is alone at the next: if that dies, too, no other call is
        suspected with it.
        """
        if self.phase is not Phase.READY:
            return False
        if call.deaths:
            return not self.calls
        return len(self.calls) < self.most and not any(other.deaths for other in self.calls)


def best(members: Sequence[Member], call: Call) -> Member | None:
    """Return the member that should get *call*: that with the fewest calls, where its rows are."""
    home = call.node
    takers = (member for member in members if member.takes(call))
    return min(takers, key=lambda m: (len(m.calls), m.node != home), default=None)
