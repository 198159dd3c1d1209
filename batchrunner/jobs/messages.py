"""The messages between clients and the registry actor of their scope."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from batchrunner.errors import InvalidSpecError
from batchrunner.jobs.entries import Submission
from batchrunner.jobs.job import Job, JobState, JobTracker
from batchrunner.jobs.journal import Journal
from batchrunner.jobs.options import RayOptions
from batchrunner.jobs.request import JobRequest, PickledCall


@dataclass(frozen=True, slots=True)
class RegistryConfig:
    """The message with which a client starts or joins the registry of its scope.

    Attributes:
        options: The client's options. The registry uses the limits and credentials of the last client.
        actor_name: Name of the registry actor.
    """

    options: RayOptions
    actor_name: str

    def journal(self) -> Journal:
        """Open the journal of the client's scope."""
        return Journal.of(self.options.analytics_store, scope=self.options.idempotency_scope)

    def check_scope(self, scope: str) -> None:
        """Check that the client's scope is *scope*.

        Raises:
            InvalidSpecError: It is not; the message names both scopes and the option to change.
        """
        other = self.options.idempotency_scope
        if other != scope:
            raise InvalidSpecError(
                f"the registry actor {self.actor_name!r} is of the scope {scope!r} and takes no jobs "
                f"of {other!r}: leave registry_actor_name out, or give each scope a name of its own"
            )


@dataclass(frozen=True, slots=True)
class SubmitMessage:
    """The message that submits a job. A client may send it twice.

    Attributes:
        request: The request of the job.
        call: The call that the worker makes.
        options: The client's options, with the analytics store and its credentials.
        runtime_env: The client's runtime environment, with URIs of uploaded packages.
    """

    request: JobRequest
    call: PickledCall
    options: RayOptions
    runtime_env: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class JobView:
    """A job and its state."""

    submission: Submission
    state: JobState

    @property
    def created_at(self) -> datetime:
        """When the job was submitted."""
        return datetime.fromisoformat(self.submission.request.created_at)

    def handle(self, tracker: JobTracker) -> Job[Any]:
        """Return a handle of the job that calls the backend *tracker*."""
        job: Job[Any] = Job(
            self.submission.job_id,
            job_name=self.submission.request.name,
            created_at=self.created_at,
            tracker=tracker,
        )
        job.update(self.state)
        return job


@dataclass(frozen=True, slots=True)
class Busy:
    """The answer of a registry that started nothing, because too much is under way."""

    why: str
