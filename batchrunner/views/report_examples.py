"""The kinds of dead letters of a run, with examples, in bounded time and memory."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from itertools import islice
from typing import Any

from batchrunner.checkpoint import Checkpoint, Sentinel
from batchrunner.checkpoint.dead_letters import (
    dead_letters_of,
    dead_letters_under,
    kept_dead_letters,
    one_line,
)
from batchrunner.checkpoint.sentinel_index import READERS
from batchrunner.errors import DamagedOutputError
from batchrunner.shard import Shard
from batchrunner.views.dead_letters import ErrorGroup, groups_of, retried_shards

_FILES_READ, _ROWS_READ = 500, 10_000
"""Most shards, and most rows of each, to read: 500 reads take a few seconds on S3."""
_SHOWN = 200
"""Most characters of an error in a sentence."""

_Source = tuple[Callable[[], Iterator[dict[str, Any]]], bool]
"""What yields the dead letters of a shard, and whether the shard failed as a whole."""


@dataclass(frozen=True, slots=True)
class Examples:
    """Kinds of dead letters, each with an example.

    Attributes:
        groups: The kinds, the largest first.
        rows: How many dead letters were read for them.
        shards: How many shards these are of.
        of_shards: How many shards have any.
        is_cut: Whether shards, or rows of them, were left out.
        problems: What could not be read.
    """

    groups: tuple[ErrorGroup, ...]
    rows: int = 0
    shards: int = 0
    of_shards: int = 0
    is_cut: bool = False
    problems: tuple[str, ...] = ()

    @property
    def of_failed_shards(self) -> int:
        """How many of the rows are of shards that failed as a whole: no total counts these."""
        return sum(group.rows for group in self.groups if group.shard_failed)

    @property
    def main_error(self) -> str:
        """The most frequent error, with its place in the user's code; empty for none."""
        if not self.groups:
            return ""
        first = self.groups[0]
        error = one_line(f"{first.error}: {first.message}", most=_SHOWN)
        return ", ".join(filter(None, [error, place_in_code(first)]))

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def examples_of(
    checkpoint: Checkpoint, shards: Sequence[Shard], committed: Mapping[int, Sentinel]
) -> Examples:
    """Return the kinds of dead letters of *shards*.

    Of more than `_FILES_READ` shards that have any, it reads so many, spread evenly over the plan; of
    a shard, the first `_ROWS_READ`. A file that is damaged or gone is passed over, and named.

    Raises:
        StorageError: The checkpoint cannot be read.
    """
    sources = list(_sources(checkpoint, shards, committed))
    chosen = sources[:: max(1, -(-len(sources) // _FILES_READ))]
    with ThreadPoolExecutor(READERS) as pool:
        read = list(pool.map(_read, chosen))
    rows = [sum(group.rows for group in groups) for groups, _ in read]
    return Examples(
        groups=tuple(_merged(group for groups, _ in read for group in groups)),
        rows=sum(rows),
        shards=len(chosen),
        of_shards=len(sources),
        is_cut=len(chosen) < len(sources) or max(rows, default=0) >= _ROWS_READ,
        problems=tuple(why for _, why in read if why),
    )


def place_in_code(group: ErrorGroup) -> str:
    """Return the file, without its folder, and the line that raised the error; empty for none."""
    return group.code.rpartition("/")[2]


def _sources(
    checkpoint: Checkpoint, shards: Sequence[Shard], committed: Mapping[int, Sentinel]
) -> Iterator[_Source]:
    retried = retried_shards(shards, committed)
    for shard in shards:
        if shard.id in committed and committed[shard.id].errors and shard.id not in retried:
            yield partial(dead_letters_of, checkpoint, committed[shard.id]), False
    for key in _of_open(shards, committed, kept_dead_letters(checkpoint)):
        yield partial(dead_letters_under, checkpoint, key), True


def _of_open(
    shards: Iterable[Shard], committed: Container[int], kept: Mapping[str, str]
) -> list[str]:
    """Return the keys in *kept*, by the stem of their part, of the shards that are not committed."""
    open_ids = {shard.id for shard in shards if shard.id not in committed}
    return [key for stem, key in kept.items() if int(stem.rpartition("-")[2]) in open_ids]


def _read(source: _Source) -> tuple[list[ErrorGroup], str]:
    """Return the kinds among the first dead letters of *source*, and what is wrong with it."""
    dead_letters, shard_failed = source
    try:
        rows = ({**row, "shard_failed": shard_failed} for row in islice(dead_letters(), _ROWS_READ))
        return groups_of(rows), ""
    except (DamagedOutputError, KeyError, TypeError) as error:
        return [], str(error)


def _merged(groups: Iterable[ErrorGroup]) -> list[ErrorGroup]:
    merged: dict[tuple[Any, ...], ErrorGroup] = {}
    for group in groups:
        first = merged.setdefault((group.stage, group.error, group.code, group.shard_failed), group)
        if first is not group:
            first.rows += group.rows
            first.shards += group.shards
    return sorted(merged.values(), key=lambda group: -group.rows)
