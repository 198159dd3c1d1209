"""Shards in groups: few enough that a call's overhead is nothing, small enough at the end."""

from __future__ import annotations

from collections.abc import Sequence

from batchrunner.shard import Shard


def make_groups(
    shards: Sequence[Shard], *, workers: int, first: int | None = None
) -> list[tuple[Shard, ...]]:
    """Cut *shards* into groups, large ones first, single shards last; shard *first* before all.

    Each round gives every worker an equal share of half of what is left, as in factoring
    (Hummel, Schonberg and Flynn, 1992): workers that are faster, or have lighter shards, find
    smaller and smaller groups to even things out with.
    """
    queue = sorted(shards, key=lambda shard: (shard.id != first, -shard.weight))
    groups: list[tuple[Shard, ...]] = []
    start = 0
    while start < len(queue):
        left = sum(shard.weight for shard in queue[start:])
        share = left / (2 * workers)
        for _ in range(workers):
            stop = start + 1
            weight = queue[start].weight
            while stop < len(queue) and weight + queue[stop].weight <= share:
                weight += queue[stop].weight
                stop += 1
            groups.append(tuple(queue[start:stop]))
            start = stop
            if start >= len(queue):
                break
    return groups
