"""Which shards have taken their worker with them: marks that only a death leaves behind.

A worker marks a group before it begins and takes the mark away when it ends, whichever way it ends
alive. A mark that stays names shards under suspicion. They are then tried one by one, each with a
mark of its own; a shard whose own mark stays is guilty, and goes on in isolation.
"""

from __future__ import annotations

import contextlib
import uuid
from collections import Counter
from collections.abc import Container, Iterable, Iterator, Sequence
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


@dataclass(frozen=True, slots=True)
class Suspicion:
    """What the marks that stayed say.

    Attributes:
        suspects: Shards of groups whose worker died.
        deaths: How often a worker died over a shard alone, by id.
    """

    suspects: frozenset[int]
    deaths: Counter[int]


def marks_left(storage: Storage) -> list[list[int]]:
    """Return the ids of the shards of each mark that is there, in the order in which they are taken.

    One listing, and a read for each. Also those of groups that are at work elsewhere.
    """
    return [mark["shards"] for _, mark in _marks(storage)]


def suspicion(marks: Iterable[Sequence[int]], todo: Container[int], *, in_flight: int) -> Suspicion:
    """Say what *marks* mean for the shards *todo*.

    Args:
        marks: Those that are left. Those of groups at work elsewhere name shards that are not ours.
        todo: Ids of the shards that are asked about; none is committed.
        in_flight: A worker takes the shards of a group in order, at most so many at a time: the
            others of a dead one had not begun.
    """
    suspects: set[int] = set()
    deaths: Counter[int] = Counter()
    for shards in marks:
        suspects.update(islice((shard for shard in shards if shard in todo), in_flight))
        deaths.update(shards if len(shards) == 1 else ())
    return Suspicion(frozenset(suspects), deaths)


@contextmanager
def marked(storage: Storage, shards: Iterable[int], *, session: str) -> Iterator[None]:
    """Have *shards* marked inside the block. Durable before it begins."""
    key = f"attempts/{uuid.uuid4().hex}.json"
    record = {"version": 1, "session": session, "shards": list(shards)}
    storage.put_if_absent({key: orjson.dumps(record)})
    try:
        yield
    finally:
        storage.delete([key])


def forget_attempts(storage: Storage, *, session: str) -> None:
    """Take the marks of *session* away: its workers were told to end, and did not die of a row."""
    storage.delete([key for key, mark in _marks(storage) if mark["session"] == session])


def _marks(storage: Storage) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the marks that can be read, with their keys."""
    for entry in storage.list("attempts"):
        with contextlib.suppress(ObjectNotFoundError, ValueError):
            mark = orjson.loads(storage.get(entry.key))
            if isinstance(mark, dict) and {"session", "shards"} <= mark.keys():
                yield entry.key, mark
