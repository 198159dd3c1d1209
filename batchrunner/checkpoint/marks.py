"""Which shards have taken their worker with them: marks that only a death leaves behind.

A worker marks a group before it begins and takes the mark away when it ends, whichever way it ends
alive. A mark that stays names shards under suspicion. They are then tried one by one, each with a
mark of its own; a shard whose own mark stays is guilty, and goes on in isolation.

Many deaths come from outside: a driver is killed and takes its workers along, a node is lost. They
count against no shard. A death counts when the driver of its session outlived it: then the next
worker of that session sees the mark, and writes into it that this was a death. Where the worker is
the driver, the two kinds look alike: there a shard may be isolated for it, but is never quarantined.
"""

from __future__ import annotations

import contextlib
import uuid
from collections import Counter
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import Any

import orjson

from batchrunner.errors import ObjectNotFoundError
from batchrunner.storage import Storage

MOST_DEATHS = 10
"""So many workers may die over a shard alone. From the second on, its capability runs in a process
of its own, so that it is the environment that kills them, or the reading of its file."""

_OUTSIDE_DEATHS_ALONE = 1
_OUTSIDE_DEATHS_BESIDE = 3


@dataclass(frozen=True, slots=True)
class Mark:
    """What a worker left that did not end alive, or has not ended yet.

    Attributes:
        key: Where it is stored.
        shards: Ids of the shards of its group, in the order in which it takes them.
        session: Of its driver.
        node: Where it ran; "" where that is the driver's process.
        is_death: Whether a later worker of that session saw that it had died.
    """

    key: str
    shards: tuple[int, ...]
    session: str
    node: str
    is_death: bool


@dataclass(frozen=True, slots=True)
class Witness:
    """What a worker can say of the deaths of others.

    Attributes:
        session: Its own; whose driver is alive as long as it is.
        node: Where it runs; "" in the driver's own process, which outlives no worker.
        is_lost: Returns whether a node is gone, with all that ran there.
    """

    session: str
    node: str = ""
    is_lost: Callable[[str], bool] = lambda _: False

    def is_of_others(self, mark: Mark) -> bool:
        """Return whether *mark* is of another process: this one is alive."""
        return bool(self.node) or mark.session != self.session

    def counts(self, mark: Mark) -> bool:
        """Return whether *mark* is of a death that a row may have caused: its driver and node live."""
        outlived = mark.is_death or (self.node and mark.session == self.session)
        return bool(outlived) and not self.is_lost(mark.node)

    @property
    def patience(self) -> int:
        """How many deaths from outside, over a shard alone, isolate it.

        Isolation costs a second copy of the model, so elsewhere than in the driver a shard is not
        held for the cause at once. But a row that takes the memory of a whole container takes the
        driver along each time, and would do so for ever.
        """
        return _OUTSIDE_DEATHS_BESIDE if self.node else _OUTSIDE_DEATHS_ALONE


@dataclass(frozen=True, slots=True)
class Suspicion:
    """What the marks that stayed say.

    Attributes:
        suspects: Shards of groups whose worker died.
        deaths: How often a worker died over a shard alone and its driver did not, by id.
        outside: How often one died over a shard alone with its driver or its node, by id.
    """

    suspects: frozenset[int]
    deaths: Counter[int]
    outside: Counter[int]


def marks_left(storage: Storage) -> list[Mark]:
    """Return each mark that is there. One listing, and a read for each.

    Also those of groups that are at work elsewhere.
    """
    return [_mark(key, fields) for key, fields in _marks(storage)]


def suspicion(
    marks: Iterable[Mark], todo: Container[int], *, in_flight: int, witness: Witness
) -> Suspicion:
    """Say what *marks* mean for the shards *todo*.

    Args:
        marks: Those that are left. Those of groups at work elsewhere name shards that are not ours.
        todo: Ids of the shards that are asked about; none is committed.
        in_flight: A worker takes the shards of a group in order, at most so many at a time: the
            others of a dead one had not begun.
        witness: Who asks.
    """
    suspects: set[int] = set()
    deaths: Counter[int] = Counter()
    outside: Counter[int] = Counter()
    for mark in filter(witness.is_of_others, marks):
        # In the order of the group, and without the committed ones: what it had begun is among the
        # first `in_flight` of the rest.
        suspects.update(islice((shard for shard in mark.shards if shard in todo), in_flight))
        if len(mark.shards) == 1 and mark.shards[0] in todo:
            (deaths if witness.counts(mark) else outside).update(mark.shards)
    return Suspicion(frozenset(suspects), deaths, outside)


@contextmanager
def marked(
    storage: Storage, shards: Iterable[int], *, session: str, node: str = ""
) -> Iterator[None]:
    """Have *shards* marked inside the block. Durable before it begins."""
    key = f"attempts/{uuid.uuid4().hex}.json"
    mark = {"version": 1, "session": session, "node": node, "shards": list(shards)}
    storage.put_if_absent({key: orjson.dumps(mark)})
    try:
        yield
    finally:
        # Also when an error ends the group: the process is alive, so no row has killed it.
        storage.delete([key])


def record_deaths(storage: Storage, todo: Container[int], *, session: str) -> None:
    """Write into the marks of *session* that name shards *todo* that their workers died.

    To be called by the next worker that gets the shards, before it begins: the driver of the
    session is alive now, and once it is killed no later driver can find that out.
    """
    for key, fields in _marks(storage):
        is_new = fields["session"] == session and not fields.get("death")
        if is_new and any(shard in todo for shard in fields["shards"]):
            storage.put(key, orjson.dumps({**fields, "death": True}))


def remove_marks(storage: Storage, *, session: str) -> None:
    """Remove the marks of *session*: its workers ended on a stop, and did not die of a row.

    A mark that says so stays: a row that kills does so however the session ends.
    """
    marks = marks_left(storage)
    storage.delete([m.key for m in marks if m.session == session and not m.is_death])


def _mark(key: str, fields: Mapping[str, Any]) -> Mark:
    return Mark(
        key,
        tuple(fields["shards"]),
        fields["session"],
        node=fields.get("node", ""),
        is_death=bool(fields.get("death")),
    )


def _marks(storage: Storage) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the marks that can be read, with their keys."""
    for entry in storage.list("attempts"):
        with contextlib.suppress(ObjectNotFoundError, ValueError):
            mark = orjson.loads(storage.get(entry.key))
            if isinstance(mark, dict) and {"session", "shards"} <= mark.keys():
                yield entry.key, mark
