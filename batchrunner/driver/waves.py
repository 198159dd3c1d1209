"""Waves: the shards of a session in the order in which they may run."""

from __future__ import annotations

from collections.abc import Iterable

from batchrunner.shard import Shard


def waves(shards: Iterable[Shard]) -> list[list[Shard]]:
    """Split *shards* into waves to run in order: a shard of dead letters runs after its origin.

    Both are pending only after `verify --repair` moved damaged parts away. Committing the origin
    again stores its dead letters again, which the other shard retries.
    """
    ordered: list[list[Shard]] = [[]]
    wave_of: dict[int, int] = {}
    # By id: a shard of dead letters has a higher id than its origin, whose wave must be set first.
    for shard in sorted(shards, key=lambda shard: shard.id):
        wave = 0 if shard.retries is None else wave_of.get(shard.retries, -1) + 1
        wave_of[shard.id] = wave
        if wave == len(ordered):
            ordered.append([])
        ordered[wave].append(shard)
    return ordered
