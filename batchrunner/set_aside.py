"""The rows that a run set aside, from its checkpoint alone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from batchrunner.checkpoint import Checkpoint
from batchrunner.errors import ObjectNotFoundError
from batchrunner.plan.planning import StoredPlan
from batchrunner.shard import Slicing
from batchrunner.worker.letters import letters_of


@dataclass(slots=True)
class ErrorGroup:
    """Rows that failed in the same way.

    Attributes:
        stage: Where they were stopped: read, capability.
        error: Type of the error.
        rows: How many they are.
        shards: In how many shards.
        message: What the error says of the first of them.
        source: File of that row.
        unit: What *at* counts: byte or row.
        at: Where it stands.
        raw: How it looks; at most 4 KiB of it.
    """

    stage: str
    error: str
    rows: int
    shards: int
    message: str
    source: str
    unit: str
    at: int
    raw: str

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def rows_set_aside(checkpoint: Checkpoint) -> Iterator[dict[str, Any]]:
    """Yield the dead letters of a run, shard by shard, without those that went through since.

    Raises:
        ObjectNotFoundError: There is no run.
        DamagedOutputError: Some of them are not whole.
    """
    generations = checkpoint.generations()
    if not generations:
        raise ObjectNotFoundError(f"there is no run in {checkpoint.storage.uri}")
    plan = StoredPlan.of(generations)
    committed = checkpoint.sentinels().good
    tried_again = {
        shard.start
        for shard in plan.active
        if shard.slicing is Slicing.LETTERS and shard.id in committed
    }
    for shard in plan.active:
        if shard.id in committed and shard.id not in tried_again:
            yield from letters_of(checkpoint, committed[shard.id])


def error_groups(checkpoint: Checkpoint) -> list[ErrorGroup]:
    """Return the rows set aside in groups, the largest first.

    Raises:
        ObjectNotFoundError: There is no run.
        DamagedOutputError: Some of them are not whole.
    """
    groups: dict[tuple[str, str], ErrorGroup] = {}
    seen: set[tuple[str, str, int]] = set()
    for letter in rows_set_aside(checkpoint):
        key = letter["stage"], letter["error"]
        if key not in groups:
            groups[key] = _group(letter)
        groups[key].rows += 1
        groups[key].shards += (*key, letter["shard"]) not in seen
        seen.add((*key, letter["shard"]))
    return sorted(groups.values(), key=lambda group: -group.rows)


def _group(letter: dict[str, Any]) -> ErrorGroup:
    raw = letter.get("raw") or f"base64: {letter.get('raw_base64', '')}"
    return ErrorGroup(
        stage=letter["stage"],
        error=letter["error"],
        rows=0,
        shards=0,
        message=letter["message"],
        source=letter["source"],
        unit=letter["unit"],
        at=letter["at"],
        raw=raw,
    )
