"""Who ran it, where, when, and with which versions."""

from __future__ import annotations

import getpass
import platform
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated, Any

from pydantic import AfterValidator, Field

from batchrunner import __version__
from batchrunner.spec.section import Section


def _in_utc(value: datetime | None) -> datetime | None:
    if value is None:
        return None
    if value.utcoffset() is None:
        raise ValueError("must say its time zone: datetime.now(UTC), not datetime.now()")
    return value.astimezone(UTC)


_Moment = Annotated[datetime | None, AfterValidator(_in_utc)]


class Provenance(Section):
    """What the `runs` table tells about a run beside its inputs. All of it is data: none decides."""

    user: str | None = Field(default=None, description="Who ran it.")
    host: str | None = Field(default=None, description="The machine that ran it.")
    backend: str | None = Field(default=None, description="The job backend, if it was a job.")
    job_id: str | None = Field(default=None, description="The job, if it was one.")
    batch_uid: str | None = Field(default=None, description="The batch that it was part of.")
    submitted_at: _Moment = Field(default=None, description="When it was asked for.")
    completed_at: _Moment = Field(default=None, description="When it was done.")
    batchrunner_version: str | None = Field(default=None, description="What recorded it.")
    python_version: str | None = Field(default=None, description="What ran it.")

    @classmethod
    def here(cls, given: Provenance | Mapping[str, Any] | None = None) -> Provenance:
        """Return what is *given*, the rest filled in from this process and its clock.

        Raises:
            InvalidSpecError: A word is not known, or a moment has no time zone.
        """
        told = given if isinstance(given, Provenance) else cls(**(given or {}))
        known = {name: value for name, value in told if value is not None}
        return cls(**{**_this_process(), **known})


def _this_process() -> dict[str, Any]:
    return {
        "user": _user(),
        "host": platform.node(),
        "completed_at": datetime.now(UTC),
        "batchrunner_version": __version__,
        "python_version": platform.python_version(),
    }


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # no such user, as in some containers
        return "unknown"
