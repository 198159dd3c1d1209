"""The entries of the journal, and how they are stored."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from batchrunner.errors import NewerFormatError
from batchrunner.jobs.outcome import Outcome
from batchrunner.jobs.request import JobRequest
from batchrunner.storage import json_documents

FORMAT_VERSION = 1
"""Raised when an older reader would misunderstand; new fields alone do not raise it."""


@dataclass(frozen=True, slots=True)
class Cluster:
    """What runs a job: a Ray cluster, or a process of the backend "in-process".

    Attributes:
        id: Id of the head node, or of the process: another one after every start.
        address: host:port of the control store, or of the process. It listens while jobs can run.
        registry: What looks after the job there: namespace/name of an actor, or "in-process".
    """

    id: str
    address: str
    registry: str


@dataclass(frozen=True, slots=True)
class Submission:
    """A job as it was submitted: a request, under a number. Without secrets: it is stored.

    Attributes:
        job_id: Names the job.
        number: Counts the jobs of one logical run, from 1.
        request: What was asked for.
        cluster: Where the job runs.
        store_uri: Where the run is recorded.
    """

    job_id: str
    number: int
    request: JobRequest
    cluster: Cluster
    store_uri: str

    def to_bytes(self) -> bytes:
        """Return what is stored: one flat object, as it was before requests were values."""
        fields = dataclasses.asdict(self)
        # The id as it was before it named the scope: older versions find the job by it.
        job_id = f"{self.request.key}-{self.number}"
        return to_json({**fields.pop("request"), **fields, "job_id": job_id})

    @classmethod
    def from_bytes(cls, data: bytes, *, name: str, job_id: str) -> Self:
        """Return what `to_bytes` stored under *name*. Fields of later versions are passed over.

        Raises:
            NewerFormatError: A field is missing, or the entry is of a later format.
        """
        fields = fields_of(data, name=name)
        request = {name: fields[name] for name in _REQUEST_FIELDS if name in fields}
        try:
            return cls(
                job_id=job_id,
                number=fields["number"],
                request=JobRequest(
                    **{**_MAY_BE_MISSING, **request, "created_at": fields["created_at"]}
                ),
                cluster=Cluster(**fields["cluster"]),
                store_uri=fields["store_uri"],
            )
        except (KeyError, TypeError) as error:
            raise unreadable(name, fields) from error


_REQUEST_FIELDS = tuple(field.name for field in dataclasses.fields(JobRequest))
_MAY_BE_MISSING: Mapping[str, Any] = {"created_by": "", "versions": {}, "nonce": ""}
"""In place of the defaults of a request, which are this process's."""


@dataclass(frozen=True, slots=True)
class JournaledJob:
    """Everything that the journal holds of a job.

    Attributes:
        submission: What was submitted.
        attempts: How often it was started, as far as the journal says; at least 1.
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
        NewerFormatError: It is of a later format, or no JSON.
    """
    # A torn entry raises the same error: the caller passes the job over, and goes on with the others.
    return json_documents.from_json(
        data,
        name=f"the journal's {name}",
        newest=FORMAT_VERSION,
        damaged=NewerFormatError,
        way_out="; remove it (below _jobs/ in the analytics store), then submit its job again",
    )


def unreadable(name: str, fields: Mapping[str, Any]) -> NewerFormatError:
    """Return the error of an entry *name* whose *fields* this version cannot read."""
    return NewerFormatError(
        f"the journal's {name} is of format {fields.get('version')!r}; this batchrunner reads "
        f"{FORMAT_VERSION}. Use the version that wrote it"
    )
