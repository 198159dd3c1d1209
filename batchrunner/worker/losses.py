"""How many rows a run may lose, held against what one shard loses."""

from __future__ import annotations

from collections import Counter

from batchrunner.errors import ShardFailedError
from batchrunner.shard import Shard
from batchrunner.spec import ErrorsSpec

_ENOUGH_TO_JUDGE = 100
"""Rows lost before a share is judged by: a few bad rows at the beginning say little."""


class TooManyLossesError(ShardFailedError):
    """One shard alone loses more rows than the whole run may."""


class Losses:
    """Counts the rows that each shard of a group loses.

    A capability that fails every row must not be asked for every row of the source: each is tried
    again and again before it is set aside.
    """

    def __init__(self, policy: ErrorsSpec, *, whole: int) -> None:
        """Judge by *policy*, for a run of *whole* bytes in all shards."""
        self._policy, self._whole = policy, whole
        self._rows: Counter[int] = Counter()
        self._lost: Counter[int] = Counter()

    def count(self, shard: Shard, *, rows: int, lost: int) -> None:
        """Count *lost* of *rows*.

        Raises:
            TooManyLossesError: The shard has lost more than the run may.
        """
        self._rows[shard.id] += rows
        self._lost[shard.id] += lost
        if lost and self._lost[shard.id] > self._allowed(shard):
            raise TooManyLossesError(
                f"{shard}: {self._lost[shard.id]:,} of its first {self._rows[shard.id]:,} rows "
                f"failed, more than errors.max_row_errors ({self._policy.max_row_errors:g}) allows "
                "the whole run"
            )

    def _allowed(self, shard: Shard) -> float:
        likely = self._rows[shard.id] * self._whole / max(shard.weight, 1)
        allowed = self._policy.allowed(likely)
        by_count = isinstance(self._policy.max_row_errors, int)
        return allowed if by_count else max(allowed, _ENOUGH_TO_JUDGE)
