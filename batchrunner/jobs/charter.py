"""What passes between clients and the registry actor of their scope."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from batchrunner.errors import InvalidSpecError
from batchrunner.jobs.entries import Submission
from batchrunner.jobs.job import JobState
from batchrunner.jobs.options import RayOptions
from batchrunner.jobs.request import Resources


@dataclass(frozen=True, slots=True)
class Charter:
    """What a registry is for.

    Attributes:
        options: Of the client that wrote it; the last one's bounds and credentials count.
        name: Of the actor.
    """

    options: RayOptions
    name: str

    def check_scope(self, scope: str) -> None:
        """Check that this is of a client of *scope*.

        Raises:
            InvalidSpecError: It is not; the message names both scopes, and the option.
        """
        other = self.options.idempotency_scope
        if other != scope:
            raise InvalidSpecError(
                f"the registry actor {self.name!r} is of the scope {scope!r} and takes no jobs of "
                f"{other!r}: leave registry_actor_name out, or give each scope a name of its own"
            )


@dataclass(frozen=True, slots=True)
class Order:
    """A job to run, as a client sends it. May be sent twice.

    Attributes:
        key: Names the logical run.
        name: For people.
        capability_id: What is run.
        created_at: When it was ordered.
        created_by: By whom.
        nonce: Tells this order from another one of the same run.
        resources: What it needs.
        max_retries: How often it may be started again.
        options: The client's: where to record, with its credentials.
        runtime_env: The client's, uploaded.
        import_paths: The client's.
        versions: The client's.
        payload: The call, pickled; only a worker unpickles it.
    """

    key: str
    name: str
    capability_id: str
    created_at: str
    created_by: str
    nonce: str
    resources: Resources
    max_retries: int
    options: RayOptions
    runtime_env: Mapping[str, Any]
    import_paths: tuple[str, ...]
    versions: Mapping[str, str]
    payload: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class View:
    """A job as the registry sees it."""

    submission: Submission
    state: JobState


@dataclass(frozen=True, slots=True)
class Busy:
    """The registry did nothing, because there is too much to do."""

    why: str
