"""How much history a journal keeps."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from batchrunner.jobs.journal import Journal
from batchrunner.jobs.options import RayOptions

_MOST_BETWEEN = 100


def prune_after(options: RayOptions) -> int:
    """Return how many jobs may end before the journal is pruned again: a tenth of what it keeps."""
    most = options.max_retained_terminal_jobs_per_scope
    return _MOST_BETWEEN if most is None else max(1, min(most // 10, _MOST_BETWEEN))


def prune_journal(journal: Journal, options: RayOptions) -> None:
    """Remove ended jobs that are too many or too old; the oldest first. Idempotent.

    The age is told by two machines' clocks: a retention of minutes is not meant.
    """
    most, age = options.max_retained_terminal_jobs_per_scope, options.terminal_job_retention_s
    ended = [job_id for job_id, has_ended in journal.jobs().items() if has_ended]
    if (most is None or len(ended) <= most) and age is None:
        return
    times = sorted(
        (
            (record.outcome.ended_at, record.submission.job_id)
            for record in journal.read_many(ended)
            if record.outcome
        ),
        reverse=True,
    )
    now = datetime.now(UTC)
    for rank, (ended_at, job_id) in enumerate(times):
        old = age is not None and now - datetime.fromisoformat(ended_at) > timedelta(seconds=age)
        if old or (most is not None and rank >= most):
            journal.forget(job_id)
