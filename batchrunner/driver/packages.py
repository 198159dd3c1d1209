"""Logs the versions of the packages that a capability imports; compares with the session before."""

from __future__ import annotations

import logging
import platform
from collections.abc import Iterable, Iterator, Mapping
from importlib.metadata import PackageNotFoundError, packages_distributions, version

import orjson

from batchrunner.checkpoint import Checkpoint
from batchrunner.checkpoint.documents import lines_of
from batchrunner.checkpoint.lease import Lease
from batchrunner.driver.run import Run
from batchrunner.driver.session import Session
from batchrunner.errors import DamagedOutputError, ObjectNotFoundError

_log = logging.getLogger(__name__)

_ACTION = "packages_found"
_MOST_SESSIONS = 10


def keep_versions(run: Run, session: Session, *, is_first: bool) -> None:
    """Log the versions of the imported packages; warn if the last session had other ones.

    Another version is not refused: most change nothing, and a new machine may not offer the old
    one. Does nothing if `capability.version` stands in for the code.

    Raises:
        StorageError: The checkpoint cannot be read.
    """
    code = run.definition.code
    if code.is_empty:
        return
    versions = versions_of(code.installed)
    before = {} if is_first else _last_versions(run.checkpoint, session)
    session.log_event(_ACTION, versions=versions)
    changed = [f"{n} {before[n]} -> {v}" for n, v in versions.items() if before.get(n, v) != v]
    if changed:
        _log.warning(
            "the last session had other versions of what the capability imports: %s. What is not "
            "committed yet is made with the new ones; install the old ones to keep one version, or "
            "start over with --fresh",
            ", ".join(changed),
        )


def _last_versions(checkpoint: Checkpoint, session: Session) -> Mapping[str, str]:
    for last in _sessions_before(checkpoint, session):
        try:
            for line in lines_of(checkpoint.storage, f"sessions/{last}.jsonl"):
                event = orjson.loads(line)
                if event["action"] == _ACTION:
                    return dict(event["versions"])
        except (ObjectNotFoundError, ValueError, TypeError, KeyError):
            continue  # that session had nothing to do, or died before it saved an event
    return {}


def _sessions_before(checkpoint: Checkpoint, session: Session) -> Iterator[str]:
    """Yield the ids of the latest sessions, without *session*, the latest first.

    Reads them from the leases, which are few and numbered; event logs are many, and their names
    show no order.
    """
    keys = [entry.key for entry in checkpoint.storage.list("lease")]
    for key in reversed(keys[-_MOST_SESSIONS:]):
        try:
            owner = Lease.from_bytes(checkpoint.storage.get(key)).owner
        except (DamagedOutputError, ObjectNotFoundError):
            continue
        if owner.session != session.id:
            yield owner.session


def versions_of(modules: Iterable[str]) -> dict[str, str]:
    """Return the versions of Python and of the packages to which *modules* belong, by name.

    Leaves out modules that belong to no installed package, such as files in a folder.
    """
    versions = {"python": platform.python_version()}
    other_names = set()
    for module in modules:
        name = module.replace(".", "-")
        installed = _version(name)
        if installed is None:
            other_names.add(module.partition(".")[0])
        else:
            versions[name] = installed
    if other_names:  # only if needed: this reads the metadata of every installed package
        packages = packages_distributions()
        names = {name for module in other_names for name in packages.get(module, ())}
        versions |= {name: found for name in names if (found := _version(name)) is not None}
    return dict(sorted(versions.items()))


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
