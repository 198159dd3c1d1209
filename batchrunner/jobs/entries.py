"""What the journal's entries say, and how they are stored."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from batchrunner.errors import NewerFormatError
from batchrunner.jobs.outcome import Outcome
from batchrunner.storage import json_documents

FORMAT_VERSION = 1
"""Raised when an older reader would misunderstand; new fields alone do not raise it."""


@dataclass(frozen=True, slots=True)
class Cluster:
    """A Ray cluster.

    Attributes:
        id: Id of its head node: another one after every start.
        address: host:port of its control store.
        registry: The registry actor that looks after the job: namespace/name.
    """

    id: str
    address: str
    registry: str


@dataclass(frozen=True, slots=True)
class Submission:
    """What was submitted. Without secrets: it is stored.

    Attributes:
        job_id: Names the job.
        key: Names the logical run.
        number: Counts the jobs of that run, from 1.
        name: For people.
        capability_id: What is run.
        created_at: When, by the client's clock. For people, and to list by.
        created_by: user@host.
        cluster: Where it runs.
        store_uri: Where the run is recorded.
        max_retries: How often it may be started again.
        resources: What it asks for.
        versions: The client's.
        nonce: Tells a submission that is sent again from another one.
    """

    job_id: str
    key: str
    number: int
    name: str
    capability_id: str
    created_at: str
    created_by: str
    cluster: Cluster
    store_uri: str
    max_retries: int = 0
    resources: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    nonce: str = ""

    def to_bytes(self) -> bytes:
        # The id as it was before it named the scope: older versions find the job by it.
        return to_json({**dataclasses.asdict(self), "job_id": f"{self.key}-{self.number}"})

    @classmethod
    def from_bytes(cls, data: bytes, *, name: str, job_id: str) -> Self:
        fields = {**fields_of(data, name=name), "job_id": job_id}
        known = {
            one.name: fields[one.name] for one in dataclasses.fields(cls) if one.name in fields
        }
        try:
            return cls(**{**known, "cluster": Cluster(**fields["cluster"])})
        except (KeyError, TypeError) as error:
            raise unreadable(name, fields) from error


@dataclass(frozen=True, slots=True)
class Record:
    """Everything that the journal knows of a job.

    Attributes:
        submission: What was submitted.
        attempts: How often it was started, as far as is known; at least 1.
        outcome: How it ended; None when it has not.
    """

    submission: Submission
    attempts: int = 1
    outcome: Outcome | None = None


def to_json(fields: Mapping[str, Any]) -> bytes:
    """Return *fields* as the journal stores them."""
    return json_documents.to_json(fields, version=FORMAT_VERSION)


def fields_of(data: bytes, *, name: str) -> dict[str, Any]:
    """Return what is stored in *name*.

    Raises:
        NewerFormatError: It is of a later format, or of none.
    """
    # A torn entry raises the same error: the caller passes the job over, and goes on with the others.
    return json_documents.from_json(
        data, name=f"the journal's {name}", newest=FORMAT_VERSION, damaged=NewerFormatError
    )


def unreadable(name: str, fields: Mapping[str, Any]) -> NewerFormatError:
    """Return the error that *name* means, which holds *fields*."""
    return NewerFormatError(
        f"the journal's {name} is of format {fields.get('version')!r}; this batchrunner reads "
        f"{FORMAT_VERSION}. Use the version that wrote it"
    )
