"""What the calls of a run have used in its earlier sessions, whatever became of their answers."""

from __future__ import annotations

from collections.abc import Sequence

from batchrunner.checkpoint import Checkpoint
from batchrunner.checkpoint.lease import current_lease, lease_before
from batchrunner.checkpoint.totals import Usage, added, more_than
from batchrunner.views.event_logs import Event, event_log
from batchrunner.worker.usage import amounts_in

_MOST_SESSIONS = 100


def spent_before(checkpoint: Checkpoint, *, run_uid: str, committed: Usage) -> Usage:
    """Return what the sessions of run *run_uid* before the one that holds the lease have used.

    Each session logs the sum over all of them, at the latest when it renews its lease. What one that was
    killed has used since is known only if more is *committed* than it had logged: the usage of all committed shards.

    Raises:
        StorageError: An event log cannot be read.
    """
    lease = current_lease(checkpoint.storage)
    for _ in range(_MOST_SESSIONS):
        lease = lease and lease_before(checkpoint.storage, lease)
        if lease is None:
            break
        logged = logged_in(event_log(checkpoint.storage, lease.owner.session), run_uid)
        if logged is not None:
            return _at_least(committed, logged)
    return committed


def spent_in(events: Sequence[Event], *, run_uid: str, committed: Usage) -> Usage:
    """Return what the run has used by the *events* of its last session, and by what is *committed*."""
    logged = logged_in(events, run_uid)
    return committed if logged is None else _at_least(committed, logged)


def _at_least(committed: Usage, logged: Usage) -> Usage:
    """Return what was *logged*, or what is *committed* where that is more.

    Not their sum: the calls of shards that were in flight are in what was logged, and count again as committed.
    """
    return added(logged, more_than(committed, logged))


def logged_in(events: Sequence[Event], run_uid: str) -> Usage | None:
    """Return what *events* say last that all calls of the run have used; None if they say nothing."""
    if not any(event.get("run_uid") == run_uid for event in events):
        return None
    last = next((event for event in reversed(events) if "spent" in event), None)
    return None if last is None else amounts_in(last["spent"])
