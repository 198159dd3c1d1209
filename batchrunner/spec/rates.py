"""Rates, prices and limits in the words of those who set them: `500/min`, `0.15/1M`."""

from __future__ import annotations

import re
from typing import Annotated, Final, NamedTuple

from pydantic import AfterValidator, BeforeValidator, Field, WithJsonSchema, model_validator

from batchrunner.spec.fields import Count
from batchrunner.spec.section import NEUTRAL, Section

UNITS: Final = {"s": 1.0, "min": 60.0, "h": 3600.0, "day": 86400.0}
"""The windows of a rate, in seconds."""

_AMOUNT = r"[0-9][0-9_]{0,14}(?:\.[0-9]{1,9})?"
RATE_PATTERN = rf"^({_AMOUNT})([kM]?)/(s|min|h|day)$"
PRICE_PATTERN = rf"^({_AMOUNT})(?:/1?([kM]))?$"
_POWERS = {"": 1.0, "k": 1e3, "M": 1e6}


class Rate(NamedTuple):
    """At most so much in any window of so many seconds.

    Attributes:
        amount: How much: requests, or tokens.
        seconds: The window.
    """

    amount: float
    seconds: float


def rate_of(text: object) -> Rate:
    """Return the rate that *text* says: `500/min`, `60/s`, `200k/min`, `10000/day`.

    Raises:
        ValueError: It is none, or not above zero.
    """
    match = re.fullmatch(RATE_PATTERN, text, re.ASCII) if isinstance(text, str) else None
    rate = Rate(_number(match[1]) * _POWERS[match[2]], UNITS[match[3]]) if match else None
    if rate is None or rate.amount <= 0:
        raise ValueError(
            'must be a rate above zero such as "500/min"; the units are /s, /min, /h and /day'
        )
    return rate


def price_of(value: object) -> float:
    """Return the price of one unit: of `0.15/1M` (for a million), `2/1k`, or a number.

    Raises:
        ValueError: It is none of these, or below zero.
    """
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 1e9:
        return float(value)
    match = re.fullmatch(PRICE_PATTERN, value, re.ASCII) if isinstance(value, str) else None
    if match is None:
        raise ValueError('must be a price such as "0.15/1M" (for a million), "2/1k" or 0.0000015')
    return _number(match[1]) / _POWERS[match[2] or ""]


def _number(text: str) -> float:
    return float(text.replace("_", ""))


def _checked_rate(value: object) -> object:
    rate_of(value)
    return value


RateText = Annotated[
    str,
    BeforeValidator(_checked_rate),
    WithJsonSchema({"type": "string", "pattern": RATE_PATTERN}),
]
Price = Annotated[
    float,
    BeforeValidator(price_of),
    WithJsonSchema(
        {"anyOf": [{"type": "number", "minimum": 0}, {"type": "string", "pattern": PRICE_PATTERN}]}
    ),
]


def _above_zero(value: float) -> float:
    if value <= 0:
        raise ValueError("must be above zero")
    return value


Money = Annotated[
    float, AfterValidator(_above_zero), Field(json_schema_extra={"exclusiveMinimum": 0})
]


class RateLimitSpec(Section):
    """How fast the calls of a capability may be made, by all workers of the run together."""

    stands_for = "requests"

    requests: Annotated[RateText | None, NEUTRAL] = Field(
        default=None,
        description='Calls in any window, such as "500/min"; the units are /s, /min, /h and /day. They are '
        "spread evenly over it.",
    )
    tokens: Annotated[RateText | None, NEUTRAL] = Field(
        default=None,
        description='Tokens in any window, such as "200k/min", as the answers report them '
        "(`capability.usage`).",
    )
    in_flight: Annotated[Count | None, NEUTRAL] = Field(
        default=None, description="Calls at the same time."
    )

    @model_validator(mode="after")
    def _limits_something(self) -> RateLimitSpec:
        if self.requests is None and self.tokens is None and self.in_flight is None:
            raise ValueError("must limit requests, tokens or in_flight, such as requests: 500/min")
        return self
