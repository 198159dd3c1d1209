"""The rows of a run, added up over its sentinels from all sessions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from batchrunner.checkpoint import Sentinel
from batchrunner.shard import Shard


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
