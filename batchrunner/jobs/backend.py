"""The contract of a job backend, and the registry of backends by name.

`batchrunner.testing.jobs_contract` tests the contract; the tests of every backend inherit from it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any, ClassVar, Protocol

from batchrunner.errors import CannotStartError, InvalidSpecError, describe
from batchrunner.jobs.job import Job, Jobs, JobTracker, Selection
from batchrunner.jobs.options import JobBackendOptions
from batchrunner.jobs.request import JobRequest, PickledCall


class JobBackend(JobTracker, Protocol):
    """Runs jobs, and finds them again. Every method is safe in several threads.

    Every backend promises: a job has one of the statuses of `JobStatus`, and a terminal one never
    changes. A job is COMPLETED only when its run is durably recorded in the analytics store. A job
    that waits for resources is PENDING. An exception of the user's code fails its own job, and
    nothing else. No secret of the options is written to a log, a message or a journal.

    Attributes:
        options_type: The class of the backend's options, which are checked before a backend is made.
        deduplicates: Whether the same run (`request.key`) is one job, as long as that is pending,
            running or completed. Then capabilities and their arguments must have an identity.
    """

    options_type: ClassVar[type[JobBackendOptions]]
    deduplicates: ClassVar[bool]

    def __init__(self, options: Any) -> None:
        """Make a backend with *options*, of `options_type`. Touches nothing outside this object."""

    def open(self, before: Sequence[JobBackend]) -> None:
        """Connect, and start what the backend needs. Called once, before all other methods.

        Args:
            before: The backends that this process used earlier, whose jobs may still run. `open` must
                not interrupt these jobs.

        Raises:
            InvalidSpecError: The options contradict what already runs, such as the scope's registry.
            RunRefusedError: It would end a job of the backends *before*.
            CannotStartError: The service that runs the jobs cannot be reached or started.
        """

    def submit(self, request: JobRequest, call: PickledCall) -> Job[Any]:
        """Start a job, or find the job of the same run; return its handle without waiting.

        Idempotent if the backend deduplicates: two requests with the same `nonce` are one job.

        Raises:
            BackpressureError: Too many calls or jobs are under way. Nothing was started.
        """

    def get(self, job_id: str) -> Job[Any]:
        """Return the handle of a job.

        Raises:
            UnknownJobError: There is no such job; the message names the scope or process searched.
        """

    def select(self, selection: Selection) -> Jobs:
        """Return the selected jobs, newest first."""

    @property
    def has_jobs(self) -> bool:
        """Whether this process submitted jobs that may still run: a shutdown waits for them."""

    def unfinished(self) -> list[Job[Any]]:
        """Return the jobs that this process submitted and that have not ended."""

    def wait_all(self, deadline: float | None) -> list[Job[Any]]:
        """Wait for the jobs that this process submitted; return those that have not ended.

        Args:
            deadline: When to return at the latest, by `time.monotonic()`; None for no limit.
        """

    def close(self) -> None:
        """Release what `open` acquired. Handles stay usable as far as possible. Idempotent."""


_ENTRY_POINTS = "batchrunner.job_backends"
_targets = {
    "ray": "batchrunner.jobs.ray_backend:RayBackend",
    "ray-simple": "batchrunner.jobs.simple_backend:SimpleBackend",
    "in-process": "batchrunner.jobs.in_process:InProcessBackend",
}


def register_job_backend(name: str, target: str | type[JobBackend]) -> None:
    """Make `configure_job_backend(name, ...)` use *target*, in this process. Idempotent.

    An installed package needs no call: its entry points in the group `batchrunner.job_backends` are
    found automatically.

    Args:
        name: The kind that `configure_job_backend` takes.
        target: A class that keeps the promises of `JobBackend`, or "module:Class", which is imported
            when the backend is configured.

    Raises:
        InvalidSpecError: Another backend has the name, or *target* is no class and no "module:Class".
    """
    text = target if isinstance(target, str) else f"{target.__module__}:{target.__qualname__}"
    if not name.strip() or not all(text.partition(":")):
        raise InvalidSpecError(
            f"a job backend is registered as a name and 'module:Class', not {name!r} and {target!r}"
        )
    if _targets.get(name, text) != text:
        raise InvalidSpecError(
            f"the job backend {name!r} is {_targets[name]} already: give {text} another name"
        )
    if not isinstance(target, str):
        _classes[name] = target
    _targets[name] = text


_classes: dict[str, type[JobBackend]] = {}
"""Backends registered as classes: a class defined inside a function cannot be imported by name."""


def backend_class(kind: str) -> type[JobBackend]:
    """Return the backend class of a *kind*, imported if necessary.

    Raises:
        InvalidSpecError: There is no such kind; the message lists the kinds.
        CannotStartError: Its class cannot be imported.
    """
    if kind in _classes:
        return _classes[kind]
    target = _targets.get(kind) or _installed_target(kind)
    module, _, name = target.partition(":")
    try:
        backend: type[JobBackend] = getattr(import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise CannotStartError(
            f"the job backend {kind!r} is {target}, which cannot be imported: {describe(error)}. "
            "Install what it needs, or correct its registration"
        ) from error
    return backend


def options_of(kind: str, fields: Mapping[str, Any]) -> JobBackendOptions:
    """Return the options of a *kind* of backend, checked.

    Raises:
        InvalidSpecError: There is no such kind, or options are wrong; the message lists all that are.
        CannotStartError: The class of the backend cannot be imported.
    """
    return backend_class(kind).options_type.of(fields)


def _installed_target(kind: str) -> str:
    # Not at import: reading the entry points of all packages takes milliseconds.
    points = {point.name: point.value for point in entry_points(group=_ENTRY_POINTS)}
    if kind not in points:
        kinds = ", ".join([*_targets, *sorted(points.keys() - _targets.keys())])
        raise InvalidSpecError(f"there is no job backend {kind!r}; the kinds are: {kinds}")
    return points[kind]
