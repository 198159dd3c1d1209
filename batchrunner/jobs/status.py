"""The states of a job."""

from __future__ import annotations

from enum import StrEnum


class JobStatus(StrEnum):
    """Where a job stands. It moves downwards in this list; only a retry goes back to PENDING."""

    PENDING = "pending"
    """Submitted; waits for resources."""
    RUNNING = "running"
    """A worker has begun."""
    COMPLETED = "completed"
    """Its records are durable."""
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def is_terminal(self) -> bool:
        """Tell whether it stays so for ever."""
        return self in (JobStatus.COMPLETED, JobStatus.FAILED, JobStatus.CANCELLED)
