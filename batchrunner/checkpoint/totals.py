"""The rows of a run, added up over its sentinels from all sessions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from batchrunner.checkpoint import Sentinel
from batchrunner.shard import Shard

Usage = Mapping[str, float]
"""Amounts by name, such as `prompt_tokens`. Whole numbers stay `int`, so that their sums are exact."""

MOST: Final = 2**63 - 1
"""What a sum says that is more: JSON and tables hold no larger integer, and no infinity."""


@dataclass(frozen=True, slots=True)
class Totals:
    """The rows and bytes of the committed shards, added up.

    Attributes:
        rows_in: Rows read, each counted once however often it was tried.
        rows_out: Rows in the parts.
        rows_failed: Rows that failed, without those that succeeded in a retry.
        bytes_out: Size of the parts.
    """

    rows_in: int = 0
    rows_out: int = 0
    rows_failed: int = 0
    bytes_out: int = 0

    @classmethod
    def of(cls, shards: Iterable[Shard], sentinels: Mapping[int, Sentinel]) -> Totals:
        """Add up the *sentinels* of *shards*; a shard without one is not counted."""
        committed = [(shard, sentinels[shard.id]) for shard in shards if shard.id in sentinels]
        again = sum(s.rows_in for shard, s in committed if shard.retries is not None)
        return cls(
            rows_in=sum(s.rows_in for _, s in committed) - again,
            rows_out=sum(s.rows_out for _, s in committed),
            rows_failed=sum(s.rows_failed for _, s in committed) - again,
            bytes_out=sum(s.bytes for _, s in committed),
        )


def usage_of(shards: Iterable[Shard], sentinels: Mapping[int, Sentinel]) -> Usage:
    """Add up the usage in the *sentinels* of *shards*; a shard without one has none."""
    return added(*(sentinels[shard.id].usage for shard in shards if shard.id in sentinels))


def added(*usages: Usage) -> Usage:
    """Return the sums of *usages*, by name; a sum above MOST is MOST.

    An amount that was infinite when an earlier release stored it is None, and left out.
    """
    total: dict[str, float] = {}
    for usage in usages:
        for name, amount in usage.items():
            if amount is not None:
                total[name] = min(total.get(name, 0) + amount, MOST)
    return total


def more_than(usage: Usage, other: Usage) -> Usage:
    """Return by how much *usage* is more than *other*, for each name for which it is."""
    return {
        name: more for name, amount in usage.items() if (more := amount - other.get(name, 0)) > 0
    }
