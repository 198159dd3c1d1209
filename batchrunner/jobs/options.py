"""Options of the job backends: every name, default and bound in one place."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Annotated, Any, Self

from pydantic import BeforeValidator, Field, field_validator

from batchrunner.errors import InvalidSpecError
from batchrunner.spec import AnalyticsStoreConfig
from batchrunner.spec.execution import RaySpec
from batchrunner.spec.fields import Count, Share, Size
from batchrunner.spec.section import Section


def _no_bool(value: object) -> object:
    if isinstance(value, bool):
        raise ValueError("must be a number, not true or false")  # noqa: TRY004 - pydantic collects ValueErrors only
    return value


Whole = Annotated[int, Field(ge=0), BeforeValidator(_no_bool)]
Seconds = Annotated[float, Field(ge=0), BeforeValidator(_no_bool)]
Positive = Annotated[float, Field(gt=0), BeforeValidator(_no_bool)]
NonEmpty = Annotated[str, Field(min_length=1)]


class JobBackendOptions(Section):
    """Options of every backend."""

    analytics_store: AnalyticsStoreConfig = Field(
        description="Where the workers record the runs: `backend`, `uri`, `storage_options`. A "
        "relative path starts at the current directory of this process."
    )

    @classmethod
    def of(cls, fields: Mapping[str, Any]) -> Self:
        """Check the options that a user gave, and return them.

        Raises:
            InvalidSpecError: Options are wrong; the message lists all that are.
        """
        return cls(**fields)


class RaySimpleOptions(JobBackendOptions):
    """Options of both backends on Ray."""

    address: NonEmpty | None = Field(
        default=None,
        description="`local` starts a Ray of this process; `host:port` or `ray://host:port` joins "
        "a cluster; by default RAY_ADDRESS, or else `local`.",
    )
    runtime_env: dict[str, Any] | None = Field(
        default=None, description="Ray's runtime environment of the jobs."
    )
    max_retries: Whole | None = Field(
        default=None,
        description="How often a job whose worker dies is retried. By default, the capability's "
        "`default_max_retries`, or 0. With 0, a job of `ray` fails when its registry dies, too. A "
        "capability that raises is not retried.",
    )
    force_reinit: bool = Field(
        default=False,
        description="Disconnect from Ray and connect anew, so that another address or "
        "runtime_env counts. Refused as long as that would end a running job.",
    )

    @classmethod
    def of(cls, fields: Mapping[str, Any]) -> Self:
        """Check the options, and explain in the error why options of "ray" are refused."""
        of_ray = RayOptions.model_fields.keys() - RaySimpleOptions.model_fields.keys()
        if cls is RaySimpleOptions and (given := sorted(of_ray & fields.keys())):
            raise InvalidSpecError(
                f'the job backend "ray-simple" has no registry and takes no {", ".join(given)}; '
                'use "ray", or leave it out'
            )
        return super().of(fields)

    @property
    def ray(self) -> RaySpec:
        """The Ray to connect to."""
        address = self.address or os.environ.get("RAY_ADDRESS") or "local"
        return RaySpec(address=address, runtime_env=self.runtime_env or {})


class RayOptions(RaySimpleOptions):
    """Options of the backend `ray`, on top of those of `ray-simple`."""

    idempotency_scope: NonEmpty = Field(
        description="Name of a project or a team: within a scope, the same run is one job, and every "
        "process sees all jobs. Required. See below."
    )
    registry_namespace: NonEmpty = Field(
        default="batchrunner_jobs", description="Ray namespace of the registry actor."
    )
    registry_actor_name: NonEmpty | None = Field(
        default=None,
        description="Name of the registry actor; by default, made from the scope. It serves one "
        "scope: a client of another one is refused.",
    )
    registry_max_pending_calls: Count = Field(
        default=1024,
        description="Calls to the registry that may be under way at once, per process and, for "
        "submissions, in all. More raise BackpressureError.",
    )
    max_active_jobs_per_scope: Count = Field(
        default=10_000,
        description="Jobs of the scope that have not ended. More raise BackpressureError.",
    )
    controller_max_pending_calls: Count = Field(
        default=64,
        description="Processes that get a job's end the moment it ends; further ones ask again "
        "twice a second.",
    )
    controller_retention_s: Seconds = Field(
        default=3600.0,
        description="Seconds for which the registry keeps an ended job in memory, and stays alive "
        "without any job. The journal keeps the job in any case.",
    )
    max_retained_terminal_controllers: Whole = Field(
        default=1000, description="How many ended jobs the registry keeps in memory."
    )
    terminal_job_retention_s: Positive | None = Field(
        default=None,
        description="Age in seconds at which ended jobs are removed from the journal; by default, never. A "
        "removed job can be submitted again. Recorded runs stay.",
    )
    max_retained_terminal_jobs_per_scope: Whole | None = Field(
        default=10_000,
        description="How many ended jobs the journal keeps, the latest; and a tenth more, at most "
        "100, until they are removed.",
    )
    registry_startup_timeout_s: Positive = Field(
        default=60.0, description="Seconds to wait for the registry actor to start."
    )
    registry_update_timeout_s: Positive = Field(
        default=30.0, description="Seconds to wait for the registry's answer to a call."
    )
    registry_num_cpus: Share = Field(default=0.0, description="CPUs of the registry actor.")
    registry_memory: Size | None = Field(
        default=None, description="Memory to reserve for the registry actor."
    )
    registry_resources: dict[str, Share] | None = Field(
        default=None,
        description="Custom Ray resources of the registry actor; by default, it is placed on the "
        "head node, whose end is the cluster's.",
    )
    controller_num_cpus: Share = Field(
        default=0.0, description="CPUs of each job, on top of what it asks for."
    )
    controller_memory: Size | None = Field(
        default=None, description="Memory of jobs that ask for none."
    )
    controller_resources: dict[str, Share] | None = Field(
        default=None, description="Custom Ray resources of each job, on top of its own."
    )

    @classmethod
    def of(cls, fields: Mapping[str, Any]) -> Self:
        """Check the options, and explain in the error what a missing scope is for."""
        if not fields.get("idempotency_scope"):
            raise InvalidSpecError(
                'the job backend "ray" requires idempotency_scope: the name of a project or a team, '
                "within which the same run is one job"
            )
        return super().of(fields)

    @field_validator("idempotency_scope", "registry_namespace", "registry_actor_name")
    @classmethod
    def _no_blanks_around(cls, value: str | None) -> str | None:
        if value is not None and value != value.strip():
            raise ValueError("must not begin or end with blanks")
        return value


class InProcessOptions(JobBackendOptions):
    """Options of the backend `in-process`."""

    idempotency_scope: NonEmpty = Field(
        default="in-process",
        description="Within a scope and a store the same run is one job, as with `ray`.",
    )
    num_cpus: Positive = Field(
        default_factory=lambda: float(os.cpu_count() or 1),
        description="How many CPUs the jobs may use together; more jobs wait. By default, those of "
        "this machine. GPUs, memory and custom resources are not counted.",
    )
