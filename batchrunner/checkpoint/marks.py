"""Marks, which only a dead worker leaves behind: they show which shards may have killed it.

A worker marks a group of shards before it begins, and removes the mark when it ends alive, with or
without an error. The shards that a remaining mark names are suspects: they are then tried one by one,
each with its own mark. A shard whose own mark remains is guilty, and goes on in isolation.

Many deaths come from outside: a driver is killed and takes its workers along, or a node is lost. They
count against no shard. A death counts if the driver of its session outlived it: then the next worker
of that session sees the mark, and records the death in it. Where worker and driver are one process,
the two kinds look alike: then the shard may be isolated, but is never quarantined.
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
"""How many workers may die over a shard that they try alone. After the first, its capability runs in a
process of its own, so what kills the later ones is the environment, or reading the file."""

_OUTSIDE_DEATHS_ALONE = 1
_OUTSIDE_DEATHS_BESIDE = 3


@dataclass(frozen=True, slots=True)
class Mark:
    """The mark of a worker that died, or that is still at work.

    Attributes:
        key: Key of the mark.
        shards: Ids of the shards of the worker's group, in the order in which it takes them.
        session: Session of its driver.
        node: Node that it ran on; "" if it ran in the driver's process.
        is_death: Whether a later worker of that session recorded that it had died.
    """

    key: str
    shards: tuple[int, ...]
    session: str
    node: str
    is_death: bool


@dataclass(frozen=True, slots=True)
class Witness:
    """Decides what a worker can conclude from the marks of other workers.

    Attributes:
        session: Its own session, whose driver is alive as long as this worker is.
        node: Node that it runs on; "" in the driver's own process, which outlives no worker.
        is_lost: Returns whether a node is gone, with all that ran there.
    """

    session: str
    node: str = ""
    is_lost: Callable[[str], bool] = lambda _: False

    def is_of_others(self, mark: Mark) -> bool:
        """Return whether another process left *mark*: this one is alive."""
        return bool(self.node) or mark.session != self.session

    def counts(self, mark: Mark) -> bool:
        """Return whether a row may have caused the death: driver and node outlived the worker."""
        outlived = mark.is_death or (self.node and mark.session == self.session)
        return bool(outlived) and not self.is_lost(mark.node)

    @property
    def patience(self) -> int:
        """How many deaths from outside isolate a shard that its worker had alone.

        Isolation costs a second copy of the model, so a worker outside the driver's process does not
        take the shard for the cause at once. But a row that uses up the memory of a whole container
        kills the driver, too, each time, and would do so for ever.
        """
        return _OUTSIDE_DEATHS_BESIDE if self.node else _OUTSIDE_DEATHS_ALONE


@dataclass(frozen=True, slots=True)
class Suspicion:
    """The shards that may have killed their workers.

    Attributes:
        suspects: Ids of shards that a dead worker may have begun.
        deaths: By shard id, how many workers died over it alone while their driver lived on.
        outside: By shard id, how many workers died over it alone with their driver or their node.
    """

    suspects: frozenset[int]
    deaths: Counter[int]
    outside: Counter[int]


NO_SUSPICION = Suspicion(frozenset(), Counter(), Counter())


def marks_left(storage: Storage) -> list[Mark]:
    """Return all marks, also of workers that are at work. One listing, and a read for each."""
    return [_mark(key, fields) for key, fields in _marks(storage)]


def suspicion(
    marks: Iterable[Mark], todo: Container[int], *, in_flight: int, witness: Witness
) -> Suspicion:
    """Return which of the shards *todo* are suspects, by the *marks*.

    Args:
        marks: All marks. Those of workers that are at work name shards that are not in *todo*.
        todo: Ids of uncommitted shards.
        in_flight: How many shards of its group, which it takes in order, a worker works on at most
            at the same time: a dead worker had not begun those after them.
        witness: The worker that asks.
    """
    suspects: set[int] = set()
    deaths: Counter[int] = Counter()
    outside: Counter[int] = Counter()
    for mark in filter(witness.is_of_others, marks):
        # The worker took its group in order, and shards that are committed are not in `todo`: what it had
        # begun is among the first `in_flight` of the rest.
        suspects.update(islice((shard for shard in mark.shards if shard in todo), in_flight))
        if len(mark.shards) == 1 and mark.shards[0] in todo:
            (deaths if witness.counts(mark) else outside).update(mark.shards)
    return Suspicion(frozenset(suspects), deaths, outside)


@contextmanager
def marked(
    storage: Storage, shards: Iterable[int], *, session: str, node: str = ""
) -> Iterator[None]:
    """Mark *shards* inside the block. The mark is durable before the block begins."""
    key = f"attempts/{uuid.uuid4().hex}.json"
    mark = {"version": 1, "session": session, "node": node, "shards": list(shards)}
    storage.put_if_absent({key: orjson.dumps(mark)})
    try:
        yield
    finally:
        # Also when an error ends the group: the process is alive, so no row has killed it.
        storage.delete([key])


def record_deaths(storage: Storage, todo: Container[int], *, session: str) -> None:
    """Record in the marks of *session* that name any of the shards *todo* that their workers died.

    The next worker that gets the shards calls this before it begins: the driver of the session is
    alive now, and once it is killed no later driver can find that out.
    """
    for key, fields in _marks(storage):
        is_new = fields["session"] == session and not fields.get("death")
        if is_new and any(shard in todo for shard in fields["shards"]):
            storage.put(key, orjson.dumps({**fields, "death": True}))


def remove_marks(storage: Storage, *, session: str) -> None:
    """Remove the marks of *session*: its workers ended on a stop, and did not die of a row.

    A mark with a recorded death stays: a deadly row kills its worker however the session ends.
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
            if isinstance(mark, dict) and _is_whole(mark):
                yield entry.key, mark


def _is_whole(mark: Mapping[str, Any]) -> bool:
    shards = mark.get("shards")
    is_list = isinstance(shards, list) and all(isinstance(shard, int) for shard in shards)
    return (
        is_list
        and "session" in mark
        and all(isinstance(mark.get(name, ""), str) for name in ("session", "node"))
    )
