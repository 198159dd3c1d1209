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
        """Whether the job has ended: a terminal status never changes."""
        return self in (JobStatus.COMPLETED, JobStatus.FAILED, JobStatus.CANCELLED)


_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_MAX_LETTERS = 20_000


def now_text() -> str:
    """Return the time, in UTC, to the microsecond."""
    return datetime.now(UTC).isoformat(timespec="microseconds")


@dataclass(frozen=True, slots=True)
class Outcome:
    """The end of a job. There is one per job, and it never changes.

    Attributes:
        status: A terminal one.
        ref: Where the run is recorded, if it is.
        error: Why it failed: kind and message.
        traceback: The worker's, as plain text.
        ended_at: When, by the worker's or the registry's clock; shown, and what retention goes by.
        warnings: The worker's, logged by the first handle that sees the end.
        cause: The exception, pickled, where it can be. Never stored: it only travels through Ray.
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
        """Return the failure with this *error*: its type and message."""
        return cls(JobStatus.FAILED, error=error, **fields)

    @classmethod
    def of_exception(cls, error: BaseException, **fields: Any) -> Outcome:
        """Return the failure that *error* caused, with its traceback; without known secrets."""
        text = "".join(traceback.format_exception(raised_as(error)))
        # Hidden before it is cut: half a secret is not recognised.
        shown = plain(scrubbed(text))[-_MAX_LETTERS:]
        return cls.failed(message_of(error), traceback=shown, **fields)

    def to_dict(self) -> dict[str, Any]:
        """Return what is stored."""
        fields = dataclasses.asdict(self)
        del fields["cause"]
        return {**fields, "status": self.status.value}

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> Outcome:
        """Return what `to_dict` stored. Fields of later versions are passed over."""
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
    """Return the exception that the user's code raised, which *error* may stand for."""
    original = error.__cause__ if isinstance(error, CallRaisedError) else None
    return original or error


def message_of(error: BaseException) -> str:
    """Return type and message of *error*, without colours and known secrets, cut when it is huge."""
    name = getattr(error, "type_name", type(error).__name__)  # a CallRaisedError names another
    text = plain(scrubbed(f"{name}: {error}".rstrip(": ")))
    left_out = len(text) - _MAX_LETTERS
    if left_out <= 0:
        return text
    return f"{text[:_MAX_LETTERS]}… ({left_out:,} more letters are left out)"


def plain(text: str) -> str:
    """Return *text* without terminal colours; what UTF-8 cannot encode is escaped."""
    return _COLOUR.sub("", text).encode(errors="backslashreplace").decode()
