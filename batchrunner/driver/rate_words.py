"""Says what a rate limit means for how long a run takes."""

from __future__ import annotations

from collections.abc import Iterable

from batchrunner.driver.report_text import duration
from batchrunner.shard import Shard
from batchrunner.spec import BatchSpec
from batchrunner.spec.rates import rate_of


def least_time(spec: BatchSpec, shards: Iterable[Shard]) -> str:
    """Return how long the calls for *shards* take at least, by the rate limit of *spec*; empty without one.

    Where the source does not say how many rows it has, how many an hour takes.
    """
    limit = spec.execution.rate_limit
    if limit is None or limit.requests is None:
        return ""
    rate = rate_of(limit.requests)
    by_call = 1 if spec.called.mode != "batch" else spec.execution.batch_size
    rows_a_second = by_call * rate.amount / rate.seconds
    rows = [shard.rows for shard in shards]
    known = [count for count in rows if count is not None]
    if len(known) < len(rows):
        return f"at {limit.requests}, an hour takes {rows_a_second * 3600:,.0f} rows at most"
    return f"at {limit.requests}, that takes {duration(sum(known) / rows_a_second)} at least"
