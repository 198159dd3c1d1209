"""The map of a run's shards: a cell for each, or for several where there are too many to draw."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

from batchrunner.checkpoint import Sentinel
from batchrunner.shard import Shard
from batchrunner.views.report_reading import RunFacts
from batchrunner.views.report_sessions import SessionFacts

MOST_CELLS = 10_000


class ShardState(StrEnum):
    """What a shard is, by one character; where a cell has several shards, the first here counts."""

    DAMAGED = "!"
    FAILED = "x"
    IN_FLIGHT = "~"
    PENDING = "."
    NOW = "#"
    BEFORE = "="


STATE_WORDS = {
    ShardState.NOW: "committed in the last session",
    ShardState.BEFORE: "committed earlier",
    ShardState.IN_FLIGHT: "at a worker",
    ShardState.PENDING: "pending",
    ShardState.FAILED: "failed",
    ShardState.DAMAGED: "damaged",
}
"""What each state is called, in the order of the legend."""

_SEVERITY = list(ShardState)


@dataclass(frozen=True, slots=True)
class ShardFacts:
    """One shard, as the report has it.

    Attributes:
        id: Its id.
        state: What it is.
        source: URI of its file; of several, of the first one.
        slicing, start, stop: Which slice of the file it is; of several, `files`, 0 and their number.
        rows_in, rows_out, rows_failed, bytes: What its sentinel says; 0 without one.
        seconds, reading, calling, writing: Seconds of the attempt that committed it.
        began: When that attempt began, in seconds since 1970 UTC; 0 if unknown.
        worker: Which worker made it; empty if unknown.
        session: Number of the session that committed it; 0 for none.
        why: Why it failed, or what is wrong with its sentinel.
    """

    id: int
    state: ShardState
    source: str
    slicing: str
    start: int
    stop: int
    rows_in: int = 0
    rows_out: int = 0
    rows_failed: int = 0
    bytes: int = 0
    seconds: float = 0.0
    reading: float = 0.0
    calling: float = 0.0
    writing: float = 0.0
    began: float = 0.0
    worker: str = ""
    session: int = 0
    why: str = ""

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def shards_of(
    documents: RunFacts, sessions: Sequence[SessionFacts], *, state: str
) -> tuple[ShardFacts, ...]:
    """Return the shards in plan order. *state* is that of the run."""
    number = {session.id: session.number for session in sessions}
    # The last session that committed any: a cleaning after it does not make its shards "earlier".
    now = max((s.number for s in sessions if s.committed), default=0)
    failed = {**_failures(documents), **{i: q.reason for i, q in documents.quarantined.items()}}
    open_shards = _Open(documents.damaged, failed, _at_work(documents, state=state))
    return tuple(
        open_shards.facts(shard)
        if (sentinel := documents.sentinels.get(shard.id)) is None
        else _committed(shard, sentinel, session=number.get(sentinel.session, 0), now=now)
        for shard in documents.shards
    )


@dataclass(frozen=True, slots=True)
class _Open:
    """What is known of the shards that are not committed, by their ids."""

    damaged: Mapping[int, str]
    failed: Mapping[int, str]
    at_work: Collection[int]

    def facts(self, shard: Shard) -> ShardFacts:
        state = next((s for s, ids in self._by_state() if shard.id in ids), ShardState.PENDING)
        why = self.damaged.get(shard.id) or self.failed.get(shard.id, "")
        return ShardFacts(shard.id, state, shard.first.uri, *shard.extent, why=why)

    def _by_state(self) -> Iterator[tuple[ShardState, Collection[int]]]:
        yield ShardState.DAMAGED, self.damaged
        yield ShardState.IN_FLIGHT, self.at_work  # it failed before, and is tried again
        yield ShardState.FAILED, self.failed


def _committed(shard: Shard, sentinel: Sentinel, *, session: int, now: int) -> ShardFacts:
    return ShardFacts(
        shard.id,
        ShardState.NOW if session == now else ShardState.BEFORE,
        shard.first.uri,
        *shard.extent,
        rows_in=sentinel.rows_in,
        rows_out=sentinel.rows_out,
        rows_failed=sentinel.rows_failed,
        bytes=sentinel.bytes,
        seconds=sentinel.seconds,
        reading=sentinel.reading,
        calling=sentinel.calling,
        writing=sentinel.writing,
        began=sentinel.began,
        worker=sentinel.worker,
        session=session,
    )


def _failures(documents: RunFacts) -> dict[int, str]:
    """Return why shards failed in the last session, by id, as far as its event log has it."""
    failed = (e for e in documents.last_events if e.get("action") == "shard_failed")
    return {int(event["shard"]): str(event.get("why", "")) for event in failed if "shard" in event}


def _at_work(documents: RunFacts, *, state: str) -> frozenset[int]:
    """Return the ids of the shards that workers have taken; none unless the run is running."""
    if not state.startswith("running"):
        return frozenset()
    marks = (mark for mark in documents.marks if mark.session == documents.session)
    return frozenset(shard for mark in marks for shard in mark.shards)


@dataclass(frozen=True, slots=True)
class Cell:
    """One cell of the map: a shard, or neighbours in the plan.

    Attributes:
        shards: Its shards.
    """

    shards: Sequence[ShardFacts]

    @property
    def state(self) -> ShardState:
        """The state that most needs to be seen among its shards."""
        return min((shard.state for shard in self.shards), key=_SEVERITY.index)

    @property
    def example(self) -> ShardFacts:
        """The first shard in that state."""
        return next(shard for shard in self.shards if shard.state is self.state)


def cells_of(shards: Sequence[ShardFacts], *, group: int = 1) -> list[Cell]:
    """Return the cells of *shards* in plan order, *group* shards each."""
    return [Cell(shards[n : n + group]) for n in range(0, len(shards), group)]


def group_for(shards: int) -> int:
    """Return how many shards a cell stands for, so that there are at most `MOST_CELLS`."""
    return max(1, math.ceil(shards / MOST_CELLS))


def counts_of(shards: Iterable[ShardFacts]) -> dict[ShardState, int]:
    """Return how many shards are in each state, in the order of the legend."""
    counts = Counter(shard.state for shard in shards)
    return {state: counts[state] for state in STATE_WORDS}
