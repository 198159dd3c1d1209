"""The handle of a job, the same for every backend."""

from __future__ import annotations

import contextlib
import itertools
import logging
import pickle
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Generic, NoReturn, Protocol, TypeVar, cast

from batchrunner.analytics import CapabilityRunRef
from batchrunner.driver.notebook_html import facts_html, records_html
from batchrunner.errors import InvalidSpecError, JobCancelledError, JobFailedError, JobTimeoutError
from batchrunner.jobs.outcome import JobStatus, Outcome

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Selection:
    """Which jobs to list.

    Attributes:
        limit: The most jobs to list; None for all.
        statuses: The statuses of jobs to list; None for any.
        before: Only jobs submitted earlier, in seconds since 1970; None for any time.
    """

    limit: int | None = None
    statuses: frozenset[JobStatus] | None = None
    before: float | None = None

    @classmethod
    def asked(cls, limit: Any, status_filter: Any, submitted_before_ts: Any) -> Selection:
        """Check the arguments of `list_jobs`, and return them as a selection.

        Raises:
            TypeError: The filter is neither a JobStatus nor several.
            InvalidSpecError: The limit is no whole number, or below 0.
        """
        is_number = isinstance(limit, int) and not isinstance(limit, bool) and limit >= 0
        if limit is not None and not is_number:
            raise InvalidSpecError(
                f"limit must be a number of jobs, from 0 on, or None, not {limit!r}"
            )
        return cls(
            limit,
            None if status_filter is None else _statuses(status_filter),
            None if submitted_before_ts is None else float(submitted_before_ts),
        )

    def allows(self, created_at: datetime) -> bool:
        """Whether the selection includes jobs submitted at *created_at*."""
        return self.before is None or created_at < datetime.fromtimestamp(self.before, UTC)

    def of(self, newest_first: Iterable[T], *, status: Callable[[T], JobStatus]) -> Iterator[T]:
        """Yield the selected items of *newest_first*; each item must have `created_at`."""
        chosen = (
            item
            for item in newest_first
            if self.allows(item.created_at)  # type: ignore[attr-defined]  # jobs have it
            and (self.statuses is None or status(item) in self.statuses)
        )
        yield from itertools.islice(chosen, self.limit)


def _statuses(given: Any) -> frozenset[JobStatus]:
    if isinstance(given, JobStatus):
        return frozenset({given})
    items = [given] if isinstance(given, str) or not isinstance(given, Iterable) else list(given)
    if wrong := [item for item in items if not isinstance(item, JobStatus)]:
        raise TypeError(f"status_filter must be a JobStatus, or several, not {wrong[0]!r}")
    return frozenset(item for item in items if isinstance(item, JobStatus))


T_co = TypeVar("T_co", covariant=True)

_SLICE_SECONDS = 10.0
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class JobState:
    """The state of a job.

    Attributes:
        status: Its status.
        outcome: How it ended; None while it has not.
    """

    status: JobStatus
    outcome: Outcome | None = None

    @classmethod
    def ended(cls, outcome: Outcome) -> JobState:
        """Return the state of a job that ended with *outcome*."""
        return cls(outcome.status, outcome)


class JobTracker(Protocol):
    """The methods of a job backend that handles call. Safe in several threads."""

    def look(self, job_id: str, *, seconds: float) -> JobState:
        """Wait up to *seconds* for the end of the job, and return its state.

        A terminal state never changes. COMPLETED is returned only when the records are durable.
        """

    def cancel(self, job_id: str) -> JobState:
        """Stop the job if it has not ended, and return its state. Idempotent.

        CANCELLED is returned only when the job does not run any more. A job that cannot be stopped
        keeps its state.
        """

    def log(self, job_id: str) -> str:
        """Return the job's output and log, except for the last few seconds; "" if it has none."""


class Job(Generic[T_co]):
    """The handle of a submitted job. Another process gets its own handle from `get_job`.

    Attributes:
        job_id: The id of the job, the same in every process of the scope.
        job_name: The name of the job in listings and messages.
        created_at: When it was submitted, in UTC.
    """

    def __init__(
        self, job_id: str, *, job_name: str, created_at: datetime, tracker: JobTracker
    ) -> None:
        self.job_id, self.job_name, self.created_at = job_id, job_name, created_at
        self._tracker = tracker
        self._outcome: Outcome | None = None

    def __repr__(self) -> str:
        return f"<Job {self.job_id} {self.job_name!r}>"

    def _repr_html_(self) -> str:
        """Return the job as a table, for a notebook."""
        return facts_html("job", dict(zip(_COLUMNS, _row(self), strict=True)))

    @property
    def status(self) -> JobStatus:
        """The present status of the job."""
        return self._look(0.0).status

    def wait(self, timeout: float | None = None) -> JobStatus:
        """Wait for the end, at most *timeout* seconds, and return the status.

        Does not raise if the job failed or was cancelled.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            # In slices: a backend may limit how many calls wait, and Ctrl-C works between them.
            rest = _SLICE_SECONDS if deadline is None else deadline - time.monotonic()
            state = self._look(max(0.0, min(rest, _SLICE_SECONDS)))
            if state.status.is_terminal or rest <= 0:
                return state.status

    def result(self, timeout: float | None = None) -> T_co:
        """Wait for the end and return the reference to the recorded run.

        Raises:
            JobTimeoutError: The job has not ended after *timeout* seconds. It goes on.
            JobCancelledError: The job was cancelled.
            JobFailedError: The job failed. `traceback` is the worker's; `__cause__` is the exception
                itself, if it could be kept.
        """
        status = self.wait(timeout)
        outcome = self._outcome
        if outcome is None:
            raise JobTimeoutError(
                f"{self} is {status} after {timeout:g} s; it goes on: wait again, or cancel() it",
                job_id=self.job_id,
            )
        if status is JobStatus.CANCELLED:
            raise JobCancelledError(f"{self} was cancelled", job_id=self.job_id)
        if status is JobStatus.FAILED:
            self._raise_failure(outcome)
        return cast(T_co, outcome.ref)

    def exception(self) -> JobFailedError | None:
        """Return the error that `result` raises if the job failed, else None. Does not wait."""
        if self.status is not JobStatus.FAILED:
            return None
        try:
            self.result(0)
        except JobFailedError as error:
            return error
        return None

    def cancel(self) -> bool:
        """Stop the job, and wait until it does not run any more, or cannot be stopped.

        Returns:
            Whether the job is cancelled; False if it had ended before, or cannot be stopped.
        """
        if self._outcome is not None:
            return False
        return self.update(self._tracker.cancel(self.job_id)).status is JobStatus.CANCELLED

    def logs(self) -> str:
        """Return the output and log of the job, except for the last few seconds."""
        return self._tracker.log(self.job_id)

    def _look(self, seconds: float) -> JobState:
        if self._outcome is not None:
            return JobState.ended(self._outcome)
        return self.update(self._tracker.look(self.job_id, seconds=seconds))

    def update(self, state: JobState) -> JobState:
        """Record the *state* from the backend, and return it. Logs the outcome's warnings once."""
        if state.outcome is not None and self._outcome is None:
            self._outcome = state.outcome
            for warning in state.outcome.warnings:
                _log.warning("%s: %s", self, warning)
        return state

    def _raise_failure(self, outcome: Outcome) -> NoReturn:
        cause = None
        if outcome.cause is not None:
            with contextlib.suppress(Exception):  # the worker's exception may be unknown here
                cause = pickle.loads(outcome.cause)  # noqa: S301 - of our worker, through Ray
        raise JobFailedError(
            f"{self} failed: {outcome.error}", job_id=self.job_id, traceback=outcome.traceback
        ) from cause


_COLUMNS = ("job", "name", "status", "submitted", "run or error")


def _row(job: Job[Any]) -> tuple[str, ...]:
    status, outcome = job.status, job._outcome  # noqa: SLF001 - of this module
    end = "" if outcome is None else outcome.error or getattr(outcome.ref, "run_uid", "")
    return job.job_id, job.job_name, status.value, job.created_at.isoformat(" ", "seconds"), end


Jobs = Sequence[Job[CapabilityRunRef]]


class JobList(list[Job[CapabilityRunRef]]):
    """A list of jobs that a notebook shows as a table."""

    def _repr_html_(self) -> str:
        jobs = f"{len(self):,} job{'' if len(self) == 1 else 's'}"
        return records_html(jobs, _COLUMNS, map(_row, self))
