"""How a job ended."""

from __future__ import annotations

import dataclasses
import re
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from batchrunner.analytics import CapabilityRunRef
from batchrunner.spec.secrets import scrubbed
from batchrunner.user_code import CallRaisedError


class JobStatus(StrEnum):
    """The status of a job. It moves downwards in this list; only a retry goes back to PENDING."""

    PENDING = "pending"
    """The job is submitted and waits for resources."""
    RUNNING = "running"
    """A worker has begun the job."""
    COMPLETED = "completed"
    """The records of the job are durable."""
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def is_terminal(self) -> bool:
        """Whether the job has ended: a terminal status never changes."""
        return self in (JobStatus.COMPLETED, JobStatus.FAILED, JobStatus.CANCELLED)


_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_MAX_LETTERS = 20_000


def now_text() -> str:
    """Return the present time in UTC, to the microsecond, as ISO 8601 text."""
    return datetime.now(UTC).isoformat(timespec="microseconds")


@dataclass(frozen=True, slots=True)
class Outcome:
    """The end of a job. There is one per job, and it never changes.

    Attributes:
        status: A terminal status.
        ref: The reference to the recorded run; None if it is not recorded.
        error: Why the job failed: type and message of the exception.
        traceback: The worker's traceback, as plain text.
        ended_at: When the job ended, by the worker's or the registry's clock; retention depends on it.
        warnings: Warnings of the worker, which each handle logs once it has the outcome.
        cause: The exception, pickled, if possible. Never stored: it is only sent through Ray.
    """

    status: JobStatus
    ref: CapabilityRunRef | None = None
    error: str = ""
    traceback: str = ""
    ended_at: str = dataclasses.field(default_factory=now_text)
    warnings: tuple[str, ...] = ()
    cause: bytes | None = dataclasses.field(default=None, repr=False, compare=False)

    @classmethod
    def failed(cls, error: str, **fields: Any) -> Outcome:
        """Return the outcome FAILED with the reason *error*."""
        return cls(JobStatus.FAILED, error=error, **fields)

    @classmethod
    def of_exception(cls, error: BaseException, **fields: Any) -> Outcome:
        """Return the outcome FAILED with *error* and its traceback, without known secrets."""
        text = "".join(traceback.format_exception(raised_as(error)))
        # Hide secrets before the text is cut: half a secret would not be recognised.
        shown = plain(scrubbed(text))[-_MAX_LETTERS:]
        return cls.failed(message_of(error), traceback=shown, **fields)

    def to_dict(self) -> dict[str, Any]:
        """Return the fields to store."""
        fields = dataclasses.asdict(self)
        del fields["cause"]
        return {**fields, "status": self.status.value}

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> Outcome:
        """Return the outcome that `to_dict` stored. Ignores fields of later versions."""
        ref = fields.get("ref")
        stored = {field.name: fields[field.name] for field in _FIELDS if field.name in fields}
        return cls(
            **{
                **stored,
                "status": JobStatus(fields["status"]),
                "ref": _ref(ref) if ref else None,
                "warnings": tuple(fields.get("warnings", ())),
                "cause": None,
            }
        )


_FIELDS = dataclasses.fields(Outcome)


def _ref(fields: Mapping[str, Any]) -> CapabilityRunRef:
    names = (field.name for field in dataclasses.fields(CapabilityRunRef))
    return CapabilityRunRef(**{name: fields.get(name) for name in names})  # type: ignore[arg-type]  # as stored


def raised_as(error: BaseException) -> BaseException:
    """Return the user's exception if *error* is a CallRaisedError that wraps it, else *error*."""
    original = error.__cause__ if isinstance(error, CallRaisedError) else None
    return original or error


def message_of(error: BaseException) -> str:
    """Return type and message of *error*, without colours and known secrets; cut if it is huge."""
    name = getattr(error, "type_name", type(error).__name__)  # a CallRaisedError has the user's
    text = plain(scrubbed(f"{name}: {error}".rstrip(": ")))
    left_out = len(text) - _MAX_LETTERS
    if left_out <= 0:
        return text
    return f"{text[:_MAX_LETTERS]}… ({left_out:,} more letters are left out)"


def plain(text: str) -> str:
    """Return *text* without terminal colours, and with escapes for what UTF-8 cannot encode."""
    return _COLOUR.sub("", text).encode(errors="backslashreplace").decode()
