"""The section of a spec that says when to try again what failed in the user's code."""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, WithJsonSchema, model_validator

from batchrunner.spec.fields import Count, Duration
from batchrunner.spec.section import NEUTRAL, Section

_KIND = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*|[1-5][0-9]{2}|[1-5]xx")


def _kind(value: Any) -> str:
    text = str(value) if isinstance(value, str | int) else ""
    if isinstance(value, bool) or not _KIND.fullmatch(text):
        raise ValueError(
            'must be the name of an exception, such as "TimeoutError" or "httpx.HTTPError", or an HTTP '
            "status, such as 503 or 5xx"
        )
    return text


ErrorKinds = Annotated[
    tuple[
        Annotated[
            str,
            BeforeValidator(_kind),
            WithJsonSchema({"anyOf": [{"type": "integer"}, {"type": "string"}]}),
        ],
        ...,
    ],
    BeforeValidator(lambda value: [value] if isinstance(value, str | int) else value),
]


class BackoffSpec(Section):
    """How long to wait between attempts at a row. Short form: the first wait.

    Each wait is chosen at random between nothing and its limit ("full jitter"), so that rows that failed
    together do not come back together. Before attempt n + 1 the limit is `initial * factor ** (n - 1)`,
    and never more than `max`.
    """

    stands_for = "initial"

    initial: Annotated[Duration, NEUTRAL] = Field(
        default=1.0, description="The longest first wait, in seconds or such as 250ms."
    )
    factor: Annotated[float, Field(ge=1, le=100), NEUTRAL] = Field(
        default=2.0, description="How many times longer each next wait may be."
    )
    max: Annotated[Duration, NEUTRAL] = Field(default=60.0, description="The longest wait of all.")

    @model_validator(mode="before")
    @classmethod
    def _of_seconds(cls, value: Any) -> Any:
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        return {"initial": value} if is_number else value


class RetrySpec(Section):
    """How often to retry what fails in the user's code or data."""

    max_attempts: Annotated[Count, NEUTRAL] = Field(
        default=3,
        description="Attempts at a row before it is a dead letter, or at a shard before it is quarantined.",
    )
    backoff: Annotated[BackoffSpec | None, NEUTRAL] = Field(
        default=None,
        description="How long to wait between attempts at a row, such as 1s; by default, not at all.",
    )
    retry_on: Annotated[ErrorKinds | None, NEUTRAL] = Field(
        default=None,
        description="Errors of which a row is tried again: names of exceptions, which stand for their "
        "subclasses, too, and HTTP statuses, such as [httpx.TransportError, 429, 5xx]; by default, all.",
    )
    give_up_on: Annotated[ErrorKinds, NEUTRAL] = Field(
        default=(),
        description="Errors of which a row is not tried again, whatever `retry_on` says, such as "
        "[ValueError, 400, 404].",
    )
    max_wait: Annotated[Duration, NEUTRAL] = Field(
        default=3600.0,
        description="How long a row may wait for a service that refuses its calls for now and says for how "
        "long (`Retry-After`). Until then refusals are no attempts; a service that wants more ends the row's.",
    )
