"""Decides what follows a call that failed: another attempt, a wait, or the end of its row's attempts."""

from __future__ import annotations

import math
import random
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

from batchrunner.spec.retrying import BackoffSpec, RetrySpec
from batchrunner.user_code import CallRaisedError, traceback_of
from batchrunner.worker.lost_calls import RemoteCallError

_OVERLOADED = frozenset({429, 529})
"""Statuses by which a service refuses a call because it is asked too much: RFC 6585, and Anthropic's."""
_UNAVAILABLE = 503
_LEAST_WAIT = 0.05
"""A service that says "again in 0 seconds" is not asked in a loop."""
_SPREAD = 0.1
"""By which share a wait is longer at most, so that rows that were refused together do not come back so."""


@dataclass(frozen=True, slots=True)
class Trouble:
    """What an error says about the call that raised it.

    Attributes:
        status: The HTTP status of the answer; None if the error has none.
        retry_after: For how many seconds the service wants no call; None if it does not say.
    """

    status: int | None = None
    retry_after: float | None = None

    @property
    def is_refused(self) -> bool:
        """Whether the service refused the call because it is asked too much at the moment."""
        said = self.retry_after is not None
        return self.status in _OVERLOADED or (said and self.status in {None, _UNAVAILABLE})

    @property
    def pause_of_all(self) -> float:
        """For how many seconds no worker is to call: as a refusal says. Any other error is of its row alone."""
        return self.retry_after or 0.0 if self.is_refused else 0.0


def trouble_of(error: BaseException) -> Trouble:
    """Return what *error* says, in the words of requests, httpx, aiohttp, urllib, botocore and openai."""
    response = getattr(error, "response", None)
    return Trouble(_status(error, response), _retry_after(error, response))


def _status(error: BaseException, response: Any) -> int | None:
    holders = (error, response)
    found = [getattr(o, name, None) for o in holders for name in ("status_code", "status", "code")]
    found.append(_in_metadata(response, "HTTPStatusCode"))
    return next((s for s in found if type(s) is int and 100 <= s < 600), None)


def _in_metadata(response: Any, name: str) -> Any:
    """Return *name* of the metadata of a response of botocore, which is a mapping."""
    metadata = response.get("ResponseMetadata") if isinstance(response, Mapping) else None
    return metadata.get(name) if isinstance(metadata, Mapping) else None


def _retry_after(error: BaseException, response: Any) -> float | None:
    if (seconds := _seconds(getattr(error, "retry_after", None))) is not None:
        return seconds
    holders = (getattr(response, "headers", None), getattr(error, "headers", None))
    headers = [*holders, _in_metadata(response, "HTTPHeaders")]
    for one in headers:
        if (milliseconds := _seconds(_header(one, "retry-after-ms"))) is not None:
            return milliseconds / 1000
        if (value := _header(one, "retry-after")) is not None:
            return _until(value) if _seconds(value) is None else _seconds(value)
    return None


def _header(headers: Any, name: str) -> Any:
    if not hasattr(headers, "get"):
        return None
    return next((v for key in (name, name.title()) if (v := headers.get(key)) is not None), None)


def _seconds(value: Any) -> float | None:
    try:
        seconds = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return seconds if 0 <= seconds < math.inf else None


def _until(date: Any) -> float | None:
    """Return the seconds until an HTTP date (RFC 9110, 10.2.3); None if *date* is none."""
    try:
        when = parsedate_to_datetime(str(date))
    except (TypeError, ValueError):
        return None
    when = when if when.tzinfo else when.replace(tzinfo=UTC)
    return max((when - datetime.now(UTC)).total_seconds(), 0.0)


class RetryPolicy:
    """What `errors.retry` says. Safe in several threads.

    Attributes:
        max_attempts: How many attempts a row has.
        max_wait: For how many seconds a row may wait for the service.
        clock: Returns the time in seconds.
    """

    def __init__(
        self,
        spec: RetrySpec,
        *,
        chance: Callable[[], float] = random.random,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Apply *spec*, with *chance* (from 0.0 to 1.0) as jitter."""
        self.max_attempts, self.clock = spec.max_attempts, clock
        self._backoff, self.max_wait, self._chance = spec.backoff, spec.max_wait, chance
        self._retry_on, self._give_up_on = spec.retry_on, spec.give_up_on

    def wait(self, trouble: Trouble, *, waited: float) -> float | None:
        """Return for how long a refused row has to wait; None if this was an attempt that failed.

        Args:
            trouble: What its error says.
            waited: Seconds since the row was refused for the first time.
        """
        if not trouble.is_refused or trouble.retry_after is None:
            return None
        if self.is_too_long(trouble, waited=waited):
            return None
        return max(trouble.retry_after, _LEAST_WAIT) * (1 + _SPREAD * self._chance())

    def is_too_long(self, trouble: Trouble, *, waited: float) -> bool:
        """Return whether the service wants no call for longer than a row may wait that has *waited* so many seconds."""
        return waited + (trouble.retry_after or 0.0) > self.max_wait

    def may_retry(self, error: BaseException, trouble: Trouble) -> bool:
        """Return whether a row that failed with *error* gets another attempt, if it has one left."""
        if _is_one_of(error, trouble, self._give_up_on):
            return False
        return self._retry_on is None or _is_one_of(error, trouble, self._retry_on)

    def pause(self, attempts: int, trouble: Trouble) -> float:
        """Return the seconds between attempt number *attempts*, which failed, and the next one."""
        pause = self._chance() * _limit(self._backoff, attempts) if self._backoff else 0.0
        return max(pause, trouble.retry_after or 0.0)


def not_waited_for(error: Exception, trouble: Trouble, *, max_wait: float) -> CallRaisedError:
    """Return what stands for *error*, whose row may not wait for as long as its *trouble* says; it says so."""
    name = getattr(error, "type_name", type(error).__name__)
    why = (
        f"not tried again: the service wants no call for {trouble.retry_after:,.0f} s, and a row waits "
        f"{max_wait:,.0f} s in all, see errors.retry.max_wait"
    )
    made = CallRaisedError(name, f"{error} ({why})", traceback_of(error))
    return made.with_traceback(error.__traceback__)


def _limit(backoff: BackoffSpec, attempts: int) -> float:
    try:
        return min(backoff.initial * backoff.factor ** (attempts - 1), backoff.max)
    except OverflowError:  # no float holds it
        return backoff.max


def _is_one_of(error: BaseException, trouble: Trouble, kinds: Sequence[str]) -> bool:
    return any(_is(error, trouble, kind) for kind in kinds)


def _is(error: BaseException, trouble: Trouble, kind: str) -> bool:
    if kind[0].isdecimal():
        status = str(trouble.status or "")
        return status == kind or (
            kind.endswith("xx") and re.fullmatch(f"{kind[0]}..", status) is not None
        )
    package, _, name = kind.rpartition(".")
    kinds = kinds_of(error)
    names = {known.rpartition(".")[2] for module, known in kinds if _is_in(module, package)}
    paths = {f"{module}.{known}" for module, known in kinds}
    return name in names or kind in paths or kind == getattr(error, "type_name", None)


def kinds_of(error: BaseException) -> tuple[tuple[str, str], ...]:
    """Return module and name of the type of *error* and of those above it; of a stand-in, what it says."""
    said: tuple[tuple[str, str], ...] | None = getattr(error, "kinds", None)
    own = tuple((cls.__module__, cls.__qualname__) for cls in type(error).__mro__)
    return said if isinstance(error, RemoteCallError) and said else own


def _is_in(module: str, package: str) -> bool:
    """Return whether *module* is *package* or in it: `httpx.HTTPError` may live deeper."""
    return not package or f"{module}.".startswith(f"{package}.")
