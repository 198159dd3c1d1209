"""Compares the parts in the sink with the plan and the sentinels."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NoReturn

from batchrunner.checkpoint import Sentinel, Sentinels
from batchrunner.driver.stored_plan import StoredPlan
from batchrunner.errors import DamagedOutputError, ForeignOutputError
from batchrunner.storage import Entry

SUCCESS, MANIFEST = "_SUCCESS", "_manifest.json"
SOURCES = "_manifest_sources"
"""Parquet; without that suffix, which would make it one of `*.parquet`."""
OWNER = "_owner.json"
"""Begins with `_`, so that readers of the output skip it."""
RETIRED, DAMAGED = "_retired", "_damaged"
"""Folders for retired parts, and for objects whose content no record describes."""
_PART = re.compile(r"part-\d{5,19}\..+")
_SHOWN = 20


@dataclass(frozen=True, slots=True)
class Output:
    """The state of a run's output in its sink.

    Attributes:
        committed: Sentinels of the committed shards, by id.
        unadopted: Ids of shards that have a part but no sentinel: their worker died in between.
        retired: Names of parts of retired shards, which other parts replace.
        unindexed: Ids of the committed shards that are in no sentinel index yet.
    """

    committed: Mapping[int, Sentinel]
    unadopted: tuple[int, ...] = ()
    retired: tuple[str, ...] = ()
    unindexed: frozenset[int] = frozenset()


def parts_in(entries: Iterable[Entry]) -> dict[str, Entry]:
    """Return the parts among *entries*, by name."""
    return {entry.key: entry for entry in entries if _PART.fullmatch(entry.key)}


def shard_of(part: str) -> int:
    """Return the id of the shard whose part is called *part*."""
    return int(part.partition(".")[0].removeprefix("part-"))


def declaration_in(entries: Iterable[Entry]) -> tuple[Entry, ...]:
    """Return what of `_SUCCESS`, manifest and sources exists, in the order in which to remove it.

    `_SUCCESS` goes first: a reader who sees it must find the manifest that it vouches for, and in a
    manifest the sources that it names.
    """
    there = {entry.key: entry for entry in entries}
    return tuple(there[key] for key in (SUCCESS, MANIFEST, SOURCES) if key in there)


def check_unused(sink: str, entries: Sequence[Entry]) -> None:
    """Refuse to start a run in a sink that holds the output of another run.

    Raises:
        ForeignOutputError: The sink holds parts, a `_SUCCESS` or a manifest.
    """
    names = [*parts_in(entries), *(entry.key for entry in declaration_in(entries))]
    if names:
        refuse_foreign(sink, names)


def refuse_foreign(sink: str, names: Sequence[str]) -> NoReturn:
    """Refuse a sink because the objects *names* in it belong to another run.

    Raises:
        ForeignOutputError: Always.
    """
    raise ForeignOutputError(
        f"the sink {sink} holds the output of another run:{_listed(names)}\n"
        "Nothing was changed. Choose another sink, or move that away. If it is this run's, its "
        "checkpoint is gone: bring it back, or set checkpoint_dir to where it is."
    )


def refuse_unvouched(sink: str, parts: Sequence[str]) -> NoReturn:
    """Refuse *parts* that have the names of shards, but that no record shows to be of this run.

    Raises:
        ForeignOutputError: Always.
    """
    raise ForeignOutputError(
        f"{sink} holds {len(parts)} part(s) that no record vouches for: this run may not have "
        f"written them:{_listed(parts)}\n"
        "None of them was touched. Bring their sentinels back; or `batchrunner verify --repair SPEC` "
        "moves all of them to _damaged/; then run again, which makes those shards anew."
    )


def examine(
    plan: StoredPlan,
    parts: Mapping[str, Entry],
    sentinels: Sentinels,
    *,
    run_uid: str,
    sink: str = "the sink",
) -> Output:
    """Compare *parts*, a listing of *sink*, with *plan* and *sentinels*. Reads no part.

    Raises:
        DamagedOutputError: The part of a sentinel is gone or has another size, or a sentinel is
            damaged.
        ForeignOutputError: A part belongs to no shard.
    """
    active = {shard.id: plan.facts.part(shard.id) for shard in plan.active}
    retired = {plan.facts.part(shard.id) for shard in plan.retired}
    foreign = sorted(parts.keys() - retired - set(active.values()))
    # Readers take every part in the sink for output, so a foreign part would add its rows.
    if foreign:
        raise ForeignOutputError(
            f"{sink} holds {len(foreign)} part(s) that belong to no shard:{_listed(foreign)}\n"
            "Move them away (`batchrunner verify --repair SPEC` does), then run again."
        )
    good = {i: sentinel for i, sentinel in sentinels.good.items() if i in active}
    faults = [*_faults(active, parts, good, run_uid=run_uid)]
    # Only of active shards: the rows of a retired shard are in other parts.
    faults += [reason for i, reason in sentinels.damaged.items() if i in active]
    if faults:
        raise DamagedOutputError(
            f"{len(faults)} committed shard(s) in {sink} are damaged:{_listed(faults)}\n"
            "Nothing was changed. Bring the files back; or move them to _damaged/ with "
            "`batchrunner verify --repair SPEC`, then run again to make those shards anew; or start over with "
            "--fresh."
        )
    return Output(
        committed=good,
        unadopted=tuple(i for i, name in active.items() if name in parts and i not in good),
        retired=tuple(name for name in parts if name in retired),
        unindexed=sentinels.unindexed & good.keys(),
    )


def check_parts(
    entries: Iterable[Entry], committed: Mapping[int, Sentinel], *, run_uid: str, sink: str
) -> None:
    """Check that *entries* has the part of each *committed* shard, with the size in its sentinel.

    Raises:
        DamagedOutputError: Since the survey, a part was removed or its size changed.
    """
    names = {shard: sentinel.part for shard, sentinel in committed.items()}
    if faults := [*_faults(names, {e.key: e for e in entries}, committed, run_uid=run_uid)]:
        raise DamagedOutputError(
            f"{len(faults)} committed part(s) in {sink} were changed while the run went on:"
            f"{_listed(faults)}\nNothing was declared complete. `batchrunner verify --repair SPEC`, then "
            "`batchrunner run SPEC`, make those shards anew."
        )


def _faults(
    active: Mapping[int, str],
    parts: Mapping[str, Entry],
    sentinels: Mapping[int, Sentinel],
    *,
    run_uid: str,
) -> Iterator[str]:
    for shard_id, sentinel in sentinels.items():
        name = active[shard_id]
        part = parts.get(name)
        if (sentinel.run_uid, sentinel.part) != (run_uid, name):
            yield f"{name}: its sentinel is of another run or part"
        elif part is None:
            yield f"{name}: the part is gone; its sentinel says {sentinel.bytes:,} bytes"
        elif part.size != sentinel.bytes:
            yield f"{name}: it has {part.size:,} bytes; its sentinel says {sentinel.bytes:,}"


def _listed(lines: Sequence[str]) -> str:
    more = [f"and {len(lines) - _SHOWN} more"] if len(lines) > _SHOWN else []
    return "".join(f"\n  {line}" for line in [*sorted(lines)[:_SHOWN], *more])
