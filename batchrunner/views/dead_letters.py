"""The dead letters of a run, and the first rows of its failed shards, from its checkpoint alone."""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from itertools import chain, islice
from typing import Any

from batchrunner.checkpoint import Checkpoint, Sentinel
from batchrunner.checkpoint.dead_letters import (
    MAX_SHOWN_MESSAGE,
    MAX_SHOWN_ROW,
    dead_letters_of,
    dead_letters_under,
    kept_dead_letters,
    one_line,
)
from batchrunner.driver.stored_plan import StoredPlan
from batchrunner.errors import ObjectNotFoundError
from batchrunner.shard import Shard

_SHARDS_READ = 50
"""How many shards to read for the most frequent error: each costs one read."""


@dataclass(slots=True)
class ErrorGroup:
    """Rows that failed in the same way.

    Attributes:
        stage: Where they failed: read, capability, or the name of a stage of it.
        error: Name of the error's type.
        code: File and line of the user's code that raised the error; empty for none.
        shard_failed: Whether their shards failed as a whole and are not committed: quarantined, or the
            run stopped over its budget. None of their rows is in the output, and only the first failed
            rows are kept.
        rows: How many rows the group has.
        shards: How many shards these rows are in.
        message: Error message of the first row.
        source: URI of the first row's file.
        unit: What *at* counts: byte or row.
        at: Position of the first row in its file.
        raw: Content of the first row; at most 4 KiB of it.
        traceback: Traceback in the user's code for the first row; empty for none.
    """

    stage: str
    error: str
    code: str
    shard_failed: bool
    rows: int
    shards: int
    message: str
    source: str
    unit: str
    at: int
    raw: str
    traceback: str = ""

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    def __str__(self) -> str:
        place = f" (at {self.code})" if self.code else ""
        why = one_line(f"{self.error}: {self.message}", most=MAX_SHOWN_MESSAGE)
        row = one_line(self.raw, most=MAX_SHOWN_ROW)
        return f"{why}{place}, {self.rows:,} of the failed rows; one of them: {row}"


def read_dead_letters(checkpoint: Checkpoint) -> Iterator[dict[str, Any]]:
    """Yield the dead letters of a run, shard by shard, without those that a retry has taken over.

    Yield also the first failed rows of each shard that failed as a whole and is not committed,
    quarantined or not; these have `shard_failed` set.

    Raises:
        ObjectNotFoundError: There is no run.
        DamagedOutputError: Some dead letters are damaged or gone.
    """
    generations = checkpoint.generations()
    if not generations:
        raise ObjectNotFoundError(
            f"there is no run in {checkpoint.storage.uri}; check the path, or start one with "
            "`batchrunner run SPEC`"
        )
    plan = StoredPlan.of(generations)
    committed = checkpoint.sentinels().good
    retried = retried_shards(plan.active, committed)
    of_failed_shards = kept_dead_letters(checkpoint)
    for shard in plan.active:
        stem = plan.facts.stem(shard.id)
        if shard.id in committed and shard.id not in retried:
            for dead_letter in dead_letters_of(checkpoint, committed[shard.id]):
                yield {**dead_letter, "shard_failed": False}
        elif shard.id not in committed and stem in of_failed_shards:
            for dead_letter in dead_letters_under(checkpoint, of_failed_shards[stem]):
                yield {**dead_letter, "shard_failed": True}


def error_groups(checkpoint: Checkpoint) -> list[ErrorGroup]:
    """Return what `read_dead_letters` yields, grouped by how rows failed, the largest group first.

    Raises:
        ObjectNotFoundError: There is no run.
        DamagedOutputError: Some dead letters are damaged or gone.
    """
    return groups_of(read_dead_letters(checkpoint))


def most_frequent(
    checkpoint: Checkpoint, shards: Iterable[Shard], committed: Mapping[int, Sentinel]
) -> ErrorGroup | None:
    """Return the largest group of dead letters in the first few *committed* shards that have any.

    Those that a retry among *shards* has taken over are left out, as in `read_dead_letters`.

    Raises:
        DamagedOutputError: Some dead letters are damaged or gone.
        StorageError: They cannot be read.
    """
    retried = retried_shards(shards, committed)
    failed = (s for shard, s in committed.items() if s.errors and shard not in retried)
    dead_letters = chain.from_iterable(
        dead_letters_of(checkpoint, sentinel) for sentinel in islice(failed, _SHARDS_READ)
    )
    return next(iter(groups_of(dead_letters)), None)


def retried_shards(shards: Iterable[Shard], committed: Container[int]) -> set[int]:
    """Return the ids of the shards whose dead letters a committed retry has taken over.

    The retry read the same rows again: a row that failed again would count twice.
    """
    return {
        shard.retries for shard in shards if shard.retries is not None and shard.id in committed
    }


def groups_of(dead_letters: Iterable[dict[str, Any]]) -> list[ErrorGroup]:
    """Return *dead_letters*, with `shard_failed` set, grouped by how rows failed, the largest first."""
    groups: dict[tuple[Any, ...], ErrorGroup] = {}
    counted: set[tuple[Any, ...]] = set()
    for dead_letter in dead_letters:
        key = (
            dead_letter["stage"],
            dead_letter["error"],
            dead_letter.get("code"),
            dead_letter.get("shard_failed"),
        )
        if key not in groups:
            groups[key] = _group(dead_letter)
        groups[key].rows += 1
        groups[key].shards += (*key, dead_letter["shard"]) not in counted
        counted.add((*key, dead_letter["shard"]))
    return sorted(groups.values(), key=lambda group: -group.rows)


def _group(dead_letter: dict[str, Any]) -> ErrorGroup:
    raw = dead_letter.get("raw") or f"base64: {dead_letter.get('raw_base64', '')}"
    return ErrorGroup(
        stage=dead_letter["stage"],
        error=dead_letter["error"],
        code=dead_letter.get("code", ""),
        shard_failed=dead_letter.get("shard_failed", False),
        rows=0,
        shards=0,
        message=dead_letter["message"],
        source=dead_letter["source"],
        unit=dead_letter["unit"],
        at=dead_letter["at"],
        raw=raw,
        traceback=dead_letter.get("traceback", ""),
    )
