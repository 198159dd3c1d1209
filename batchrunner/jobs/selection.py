"""Which jobs a listing is about."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, TypeVar

from batchrunner.errors import InvalidSpecError
from batchrunner.jobs.status import JobStatus

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Selection:
    """Which jobs, and how many at most.

    Attributes:
        limit: At most so many; None for all.
        statuses: In these states; None for any.
        before: Submitted earlier than this, in seconds since 1970; None for any time.
    """

    limit: int | None = None
    statuses: frozenset[JobStatus] | None = None
    before: float | None = None

    @classmethod
    def asked(cls, limit: Any, status_filter: Any, submitted_before_ts: Any) -> Selection:
        """Return what a user asked for.

        Raises:
            TypeError: The filter is neither a JobStatus nor some of them.
            InvalidSpecError: The limit is no number of jobs.
        """
        if limit is not None and (isinstance(limit, bool) or not isinstance(limit, int)):
            raise InvalidSpecError(f"limit must be a number of jobs or None, not {limit!r}")
        return cls(
            None if limit is None else max(limit, 0),
            None if status_filter is None else _statuses(status_filter),
            None if submitted_before_ts is None else float(submitted_before_ts),
        )

    def allows(self, created_at: datetime) -> bool:
        """Tell whether a job of that time may be among them."""
        return self.before is None or created_at < datetime.fromtimestamp(self.before, UTC)

    def of(self, newest_first: Iterable[T], *, status: Callable[[T], JobStatus]) -> Iterator[T]:
        """Yield those of *newest_first*, whose items have `created_at`, that are selected."""
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
