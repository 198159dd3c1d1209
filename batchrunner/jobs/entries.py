"""The entries of the journal, and their format in storage."""

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
"""Increased when older readers would misunderstand entries; new fields alone do not count."""


@dataclass(frozen=True, slots=True)
class Cluster:
    """Where a job runs: a Ray cluster, or a process of the backend "in-process".

    Attributes:
        id: Id of the head node, or of the process: a new one after every start.
        address: host:port of the control store, or of the process. It listens while jobs can run.
        registry: The registry actor of the job, as namespace/name, or "in-process".
    """

    id: str
    address: str
    registry: str


@dataclass(frozen=True, slots=True)
class Submission:
    """A job as it was submitted: a request, under a number. It holds no secrets, as it is stored.

    Attributes:
        job_id: The id of the job.
        number: Counts the jobs of one logical run, from 1.
        request: What the client asked for.
        cluster: Where the job runs.
        store_uri: The analytics store that the run is recorded in.
    """

    job_id: str
    number: int
    request: JobRequest
    cluster: Cluster
    store_uri: str

    def to_bytes(self) -> bytes:
        """Return the stored form: one JSON object that has the fields of `request`, too."""
        fields = dataclasses.asdict(self)
        # The id without the scope, as in older versions, which find the job by it.
        job_id = f"{self.request.key}-{self.number}"
        return to_json({**fields.pop("request"), **fields, "job_id": job_id})

    @classmethod
    def from_bytes(cls, data: bytes, *, name: str, job_id: str) -> Self:
        """Return the submission that `to_bytes` stored as *name*. Ignores fields of later versions.

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
"""Values for fields that old entries lack; a request's defaults would describe this process."""


@dataclass(frozen=True, slots=True)
class JournaledJob:
    """Everything that the journal records about a job.

    Attributes:
        submission: The job as it was submitted.
        attempts: How often the job was started, by the journal; at least 1.
        outcome: How the job ended; None while it has not.
    """

    submission: Submission
    attempts: int = 1
    outcome: Outcome | None = None


def to_json(fields: Mapping[str, Any]) -> bytes:
    """Return *fields* as the bytes of a journal entry."""
    return json_documents.to_json(fields, version=FORMAT_VERSION)


def fields_of(data: bytes, *, name: str) -> dict[str, Any]:
    """Return the fields of an entry, *data*; *name* is its name in error messages.

    Raises:
        NewerFormatError: The entry is of a later format, or no JSON.
    """
    # A torn entry raises the same error: the caller skips the job, and continues with the others.
    return json_documents.from_json(
        data,
        name=f"the journal's {name}",
        newest=FORMAT_VERSION,
        damaged=NewerFormatError,
        way_out="; remove it (below _jobs/ in the analytics store), then submit its job again",
    )


def unreadable(name: str, fields: Mapping[str, Any]) -> NewerFormatError:
    """Return the error for an entry *name* whose *fields* this version cannot read."""
    return NewerFormatError(
        f"the journal's {name} is of format {fields.get('version')!r}; this batchrunner reads "
        f"{FORMAT_VERSION}. Use the version that wrote it"
    )
