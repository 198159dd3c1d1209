"""The versions of the packages under a run: kept with each session, compared with the last one's."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping

import orjson

from batchrunner.capability.packages import versions_of
from batchrunner.checkpoint import Checkpoint
from batchrunner.checkpoint.lease import Lease
from batchrunner.checkpoint.record_lines import record_lines
from batchrunner.errors import DamagedOutputError, ObjectNotFoundError
from batchrunner.plan.survey import Run
from batchrunner.session import Session

_log = logging.getLogger(__name__)

_ACTION = "packages_found"
_MOST_SESSIONS = 10


def keep_versions(run: Run, session: Session, *, is_first: bool) -> None:
    """Write down the versions of what the capability imports; warn when the last session had others.

    Another version is not refused: most change nothing, and none can be put back on a machine that
    is new. Nothing is kept where `capability.version` stands in for the code.

    Raises:
        StorageError: The checkpoint cannot be read.
    """
    code = run.asked_for.code
    if not code.is_known:
        return
    versions = versions_of(code.installed)
    before = {} if is_first else _last_versions(run.checkpoint, session)
    session.note(_ACTION, versions=versions)
    changed = [f"{n} {before[n]} -> {v}" for n, v in versions.items() if before.get(n, v) != v]
    if changed:
        _log.warning(
            "the last session had other versions of what the capability imports: %s. What is not "
            "committed yet is made with the new ones",
            ", ".join(changed),
        )


def _last_versions(checkpoint: Checkpoint, session: Session) -> Mapping[str, str]:
    for last in _sessions_before(checkpoint, session):
        try:
            for line in record_lines(checkpoint.storage, f"sessions/{last}.jsonl"):
                event = orjson.loads(line)
                if event["action"] == _ACTION:
                    return dict(event["versions"])
        except (ObjectNotFoundError, ValueError, TypeError, KeyError):
            continue  # it had nothing to do, or died before it could write anything down
    return {}


def _sessions_before(checkpoint: Checkpoint, session: Session) -> Iterator[str]:
    """Yield the latest sessions of the run but *session*, the last one first, as leases name them."""
    keys = [entry.key for entry in checkpoint.storage.list("lease")]
    for key in reversed(keys[-_MOST_SESSIONS:]):
        try:
            owner = Lease.from_bytes(checkpoint.storage.get(key)).owner
        except (DamagedOutputError, ObjectNotFoundError):
            continue
        if owner.session != session.id:
            yield owner.session
