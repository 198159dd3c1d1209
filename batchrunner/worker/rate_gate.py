"""The gates of a run with a rate limit: of a worker that has the budget, and of one that asks for it."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Protocol

from batchrunner.spec.rates import RateLimitSpec, rate_of
from batchrunner.worker.gate import NO_GATE, CallOutcome, Gate
from batchrunner.worker.rate_bucket import lateness
from batchrunner.worker.rate_budget import RENEW_SECONDS, Grant, RateBudget, Report
from batchrunner.worker.turns import Turns
from batchrunner.worker.usage import tokens_in

_log = logging.getLogger(__name__)

_ASK_AGAIN = 0.5
"""After how long to ask for calls again where the budget cannot be reached, in seconds."""
_LEAST_PAUSE = 0.005
_LEAST_VALID = 0.01
_REPORT_SECONDS = 0.2
"""After how long the end of a call is reported, at the latest, in seconds."""
_LEAVE_SECONDS = 1.0


@dataclass(slots=True)
class _Tally:
    """What calls have come to since the last report."""

    ended: int = 0
    tokens: float = 0.0
    unreported: int = 0
    refused: int = 0
    retry_after: float = 0.0

    def count(self, outcome: CallOutcome) -> None:
        tokens = 0.0 if outcome.is_refused else tokens_in(outcome.usage)
        self.ended += 1
        self.refused += outcome.is_refused
        self.unreported += tokens is None
        self.tokens += tokens or 0.0
        self.retry_after = max(self.retry_after, outcome.retry_after)


class OwnGate:
    """The gate of a process that has the budget to itself."""

    is_open = False

    def __init__(self, budget: RateBudget) -> None:
        self._budget, self._lock = budget, threading.Lock()
        self._held = self._number = 0

    def enter(self) -> float:
        with self._lock:
            grant = self._exchange(_Tally(), wanted=1)
            self._held += grant.calls
            # A caller that knows of a long pause can end at a stop, and does not wait for it bit by bit.
            return 0.0 if grant.calls else max(grant.wait, grant.pause)

    def leave(self, outcome: CallOutcome) -> None:
        tally = _Tally()
        tally.count(outcome)
        with self._lock:
            self._held -= 1
            self._exchange(tally, wanted=0)

    def _exchange(self, tally: _Tally, *, wanted: int) -> Grant:
        self._number += 1
        report = Report("", self._number, held=self._held, wanted=wanted, **asdict(tally))
        return self._budget.exchange(report)

    def close(self) -> None:
        """Do nothing: the budget ends with this process."""


def own_gate(limit: RateLimitSpec | None) -> Gate:
    """Return a gate that keeps to *limit* in this process; one that admits everything without one."""
    return OwnGate(RateBudget(limit)) if limit else NO_GATE


class Exchange(Protocol):
    """Takes a report to the budget, wherever it is, and returns its answer."""

    def __call__(self, report: Report) -> Grant:
        """Return the answer. Raises anything if the budget cannot be reached: then nothing is granted."""


class SharedGate:
    """The gate of one worker of several: its thread asks for a few calls at a time.

    So a request to the budget for each call does not bound the rate. A call that was granted and is not begun in time is given back: made late, it would add to the calls
    that others make then.
    """

    is_open = False

    def __init__(
        self,
        exchange: Exchange,
        limit: RateLimitSpec,
        *,
        holder: str,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Ask by *exchange*, as *holder*, whose name no other worker of the run has."""
        self._exchange, self._holder, self._clock = exchange, holder, clock
        rates = [rate_of(text) for text in (limit.requests, limit.tokens) if text]
        self._valid_seconds = min(map(lateness, rates), default=1.0) / 2  # the rest is for its way
        self._reports_at_once = limit.in_flight is not None
        self._lock, self._news, self._urgent = (
            threading.Lock(),
            threading.Event(),
            threading.Event(),
        )
        self._tally, self._calls, self._expires, self._resumes = _Tally(), 0, 0.0, 0.0
        self._in_flight = self._unused = self._wanted = self._begun = self._number = 0
        self._turns, self._spacing, self._pause = Turns(), _LEAST_PAUSE, _LEAST_PAUSE
        self._is_closed = False
        self._thread = threading.Thread(target=self._run, daemon=True, name="rate limit")
        self._thread.start()

    def enter(self) -> float:
        with self._lock:
            self._drop_late()
            if self._calls:
                self._begin()
                return 0.0
            self._wanted += 1
            wait = self._next_turn()
        self._news.set()
        return wait

    def _begin(self) -> None:
        """Begin a call that was granted; ask for as many ahead as are begun, since others will follow."""
        self._calls -= 1
        self._in_flight += 1
        self._begun += 1
        if (
            not self._calls and not self._reports_at_once
        ):  # a place that waits for its call is another's
            self._news.set()

    def leave(self, outcome: CallOutcome) -> None:
        with self._lock:
            self._in_flight -= 1
            self._tally.count(outcome)
        if outcome.is_refused:  # all other workers are to know now
            self._urgent.set()
        if self._reports_at_once or outcome.is_refused:
            self._news.set()

    def close(self) -> None:
        """End the thread. Calls that are granted and not made are lost to the run."""
        self._is_closed = True
        self._news.set()
        self._urgent.set()
        self._thread.join(_LEAVE_SECONDS)

    def _next_turn(self) -> float:
        """Return when to ask again: one caller after the other, as calls are granted, and none in a pause."""
        now = self._clock()
        turn = self._turns.next(now, first=self._pause, spacing=self._spacing)
        return max(turn, self._resumes - now)

    def _drop_late(self) -> None:
        if self._calls and self._clock() > self._expires:
            self._unused += self._calls
            self._calls = 0

    def _run(self) -> None:
        while not self._is_closed:
            is_idle = not (self._in_flight or self._tally.ended or self._calls)
            self._news.wait(RENEW_SECONDS if is_idle else _REPORT_SECONDS)
            self._news.clear()
            pause = self._ask()
            self._pause = pause + _LEAST_PAUSE
            self._urgent.wait(max(pause, _LEAST_PAUSE))
            self._urgent.clear()

    def _ask(self) -> float:
        """Report, and take the answer; return after how long to ask again."""
        report, tally = self._report()
        sent = self._clock()
        try:
            grant = self._exchange(report)
        except Exception as error:  # noqa: BLE001 - Ray raises many kinds, and the budget may be gone
            _log.debug("the rate limit cannot be asked: %r", error)
            self._take_back(tally)
            return _ASK_AGAIN
        with self._lock:
            self._calls += grant.calls
            self._spacing, self._resumes = grant.spacing, self._clock() + grant.pause
            if grant.calls:
                late = self._clock() + _LEAST_VALID
                self._expires = max(sent + self._valid_seconds, late)
        return grant.wait

    def _report(self) -> tuple[Report, _Tally]:
        with self._lock:
            self._drop_late()
            tally, self._tally = self._tally, _Tally()
            self._number += 1
            report = Report(
                self._holder,
                self._number,
                held=self._in_flight + self._calls,
                wanted=self._wanted if self._reports_at_once else max(self._wanted, self._begun),
                unused=self._unused,
                **asdict(tally),
            )
            self._wanted = self._unused = self._begun = 0
        return report, tally

    def _take_back(self, tally: _Tally) -> None:
        """Report again what the budget may not have heard, with what has come since.

        But not what is given back: counted twice, it would allow more than the limit.
        """
        with self._lock:
            self._tally.ended += tally.ended
            self._tally.tokens += tally.tokens
            self._tally.unreported += tally.unreported
            self._tally.refused += tally.refused
            self._tally.retry_after = max(self._tally.retry_after, tally.retry_after)
