"""The runs of a worker's shards on their way into the analytics store, before the shards are committed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from batchrunner.errors import InvalidRecordError, SchemaConflictError, StorageError

if TYPE_CHECKING:
    from batchrunner.analytics import CompletedRun
    from batchrunner.worker.work import Work


def record_runs(work: Work, runs: Mapping[int, Sequence[CompletedRun]]) -> dict[int, str]:
    """Record the *runs* of shards, by their ids: durably, each once, in few writes.

    Returns:
        Why the runs of a shard cannot be recorded as they are, by its id.

    Raises:
        StorageError: The store cannot be written; nothing is lost by trying again.
    """
    waiting = {shard: some for shard, some in runs.items() if some}
    if not waiting or work.spec.analytics_store is None:
        return {}
    try:
        _write(work, [run for some in waiting.values() for run in some])
    except (InvalidRecordError, SchemaConflictError) as error:
        return (
            {next(iter(waiting)): str(error)} if len(waiting) == 1 else _one_by_one(work, waiting)
        )
    return {}


def _one_by_one(work: Work, waiting: Mapping[int, Sequence[CompletedRun]]) -> dict[int, str]:
    reasons: dict[int, str] = {}
    for shard, some in waiting.items():
        reasons.update(record_runs(work, {shard: some}))
    return reasons


def _write(work: Work, runs: Iterable[CompletedRun]) -> None:
    from batchrunner.analytics import AnalyticsStore

    config = work.spec.analytics_store
    if config is None:
        raise StorageError("there is no analytics store")
    AnalyticsStore(config).write(runs, provenance={"batch_uid": work.run_uid})
