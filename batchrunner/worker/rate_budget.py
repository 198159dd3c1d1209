"""The budget of `execution.rate_limit`: how many calls the workers of a run may make now.

There is one for all workers of a run. Each of them reports what its calls came to and asks for more, in
one exchange; the answer is a few calls, or after how many seconds to ask again.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

from batchrunner.spec.rates import RateLimitSpec, rate_of
from batchrunner.worker.rate_bucket import RateBucket
from batchrunner.worker.turns import LONGEST_WAIT, Turns

RENEW_SECONDS = 1.0
"""A worker that holds places reports at least so often."""
LEASE_SECONDS = 5.0
"""After so long without a report, by the clock of the budget alone, the places of a worker are free."""
_SHRINK, _LEAST_SHARE, _SHRINK_SECONDS = 0.7, 0.05, 1.0
"""A refused call shrinks the rate, at most once a second: others that were under way say nothing new."""
_RESTORED_A_SECOND = 0.1
_TYPICAL_SHARE = 0.01
"""What a call is taken to use of the limit of tokens before the first answer has said it."""
_MEAN_OF = 200
"""About how many of the last calls the mean of their tokens is of."""
_MOST_CALLS = 1000
"""How many calls one answer allows at most, where places alone are limited."""
_LEAST_WAIT = 0.001
_PLACE_SECONDS = 0.02
"""After how long to ask again where all places are taken: one is given back at any moment."""


@dataclass(frozen=True, slots=True)
class Report:
    """What one worker reports, and asks for.

    Attributes:
        holder: Names the worker.
        number: Counts its reports; one that comes twice is answered twice, and counts once.
        held: Places that it holds: calls under way, and calls it may make that it has not begun.
        wanted: How many more calls it would make now.
        ended: Calls that have ended since its last report.
        tokens: Tokens that these used, of those that said so.
        unreported: How many of these did not say so.
        unused: Calls that it might have made since, and did not, in time.
        refused: How many the service refused.
        retry_after: The longest time for which the service wants no call, in seconds.
    """

    holder: str = ""
    number: int = 0
    held: int = 0
    wanted: int = 0
    ended: int = 0
    tokens: float = 0.0
    unreported: int = 0
    unused: int = 0
    refused: int = 0
    retry_after: float = 0.0


@dataclass(frozen=True, slots=True)
class Grant:
    """What the budget answers.

    Attributes:
        calls: How many calls may be made, soon.
        wait: After how many seconds to ask for more.
        spacing: About how many seconds there are between two calls of this worker, in the long run.
        pause: For how many seconds the service wants no call at all.
    """

    calls: int = 0
    wait: float = 0.0
    spacing: float = 0.0
    pause: float = 0.0


@dataclass(slots=True)
class _Holder:
    """What the budget knows of a worker.

    Attributes:
        seen: When it last reported.
        number: The number of that report.
        places: Places that it holds.
        charged: Tokens that its calls under way are taken to use.
        waits_until: Until when it is taken to wait for more calls: it asks again before that.
    """

    seen: float
    number: int = -1
    places: int = 0
    charged: float = 0.0
    waits_until: float = 0.0


class RateBudget:
    """Keeps the calls of all workers within a limit. Not safe in several threads.

    It starts empty: so a session that follows another at once uses nothing that the other has used.
    """

    def __init__(
        self,
        limit: RateLimitSpec,
        *,
        clock: Callable[[], float] = time.monotonic,
        quiet: float = 0.0,
    ) -> None:
        """Begin with no calls to hand out, at the time of *clock*, and none at all for *quiet* seconds.

        In that time the workers of a budget that is gone report what they hold.
        """
        self._clock = clock
        now = clock()
        self._requests = limit.requests and RateBucket(rate_of(limit.requests), unit=1.0, now=now)
        self._tokens: RateBucket | None = None
        if limit.tokens:
            rate = rate_of(limit.tokens)
            self._tokens = RateBucket(rate, unit=_TYPICAL_SHARE * rate.amount, now=now)
        self._places = limit.in_flight or math.inf
        self._holders: dict[str, _Holder] = {}
        self._share, self._shrunk, self._restored = 1.0, -math.inf, now
        self._resumes, self._turns, self._known = now + quiet, Turns(), 0

    @property
    def share(self) -> float:
        """The share of the limit that the service takes at present: 1.0 unless it refuses calls."""
        return self._share

    @property
    def holders(self) -> int:
        """The number of workers that have reported lately."""
        return len(self._holders)

    def exchange(self, report: Report) -> Grant:
        """Take *report*, and answer it."""
        now = self._clock()
        for bucket in self._buckets():
            bucket.fill(now, share=self._share)
        holder = self._holders.setdefault(report.holder, _Holder(now))
        is_new = report.number != holder.number
        holder.seen, holder.number, holder.places = now, report.number, report.held
        self._forget(now)
        if is_new:
            self._settle(report, holder, now)
        calls = min(report.wanted, self._free(holder, now))
        is_short = report.wanted > calls
        if report.wanted:
            holder.waits_until = now + 2 * LONGEST_WAIT if is_short else now
        self._charge(holder, calls)
        wait = self._wait(holder, now) if is_short else 0.0
        return Grant(calls, wait, self._spacing(now), max(self._resumes - now, 0.0))

    def _buckets(self) -> list[RateBucket]:
        return [bucket for bucket in (self._requests, self._tokens) if bucket]

    def _forget(self, now: float) -> None:
        """Free the places of workers that have not reported for long. What they took stays taken."""
        late = [name for name, one in self._holders.items() if now - one.seen > LEASE_SECONDS]
        for name in late:
            del self._holders[name]

    def _settle(self, report: Report, holder: _Holder, now: float) -> None:
        if self._requests:
            self._requests.give_back(report.unused)
        if self._tokens:
            self._settle_tokens(report, holder, self._tokens)
        if report.refused:
            self._slow_down(now)
        elif report.ended:
            self._speed_up(now)
        self._resumes = max(self._resumes, now + report.retry_after)

    def _settle_tokens(self, report: Report, holder: _Holder, bucket: RateBucket) -> None:
        """Put what calls used in the place of what they were taken to use."""
        done, known = report.ended + report.unused, report.ended - report.unreported
        # `held` is of after the report: with those that it speaks of, these were charged.
        of = max(holder.places + done, 1)
        charged = holder.charged * done / of
        holder.charged -= charged
        used = report.tokens + charged * report.unreported / max(done, 1)
        bucket.take(used - charged)
        if known > report.refused:
            self._learn(report.tokens, known - report.refused, bucket)

    def _learn(self, tokens: float, calls: int, bucket: RateBucket) -> None:
        self._known = min(self._known + calls, _MEAN_OF)
        weight = min(calls / self._known, 1.0)
        bucket.unit += (tokens / calls - bucket.unit) * weight
        bucket.unit = max(bucket.unit, 1.0)

    def _slow_down(self, now: float) -> None:
        if now - self._shrunk >= _SHRINK_SECONDS:
            self._share = max(self._share * _SHRINK, _LEAST_SHARE)
            self._shrunk = self._restored = now

    def _speed_up(self, now: float) -> None:
        # By time and not by calls, or a fast run would be back at its limit at once. A second at most:
        # nothing is known of the time in which no call was made.
        gained = _RESTORED_A_SECOND * min(now - self._restored, 1.0)
        self._share, self._restored = min(self._share + gained, 1.0), now

    def _free(self, holder: _Holder, now: float) -> int:
        if now < self._resumes:
            return 0
        free = min(
            [self._free_places(holder, now), *(bucket.calls() for bucket in self._buckets())]
        )
        return max(int(min(free, _MOST_CALLS)), 0)

    def _free_places(self, holder: _Holder, now: float) -> float:
        """Return how many more places *holder* may take: its share, if another one waits for some."""
        if self._places == math.inf:
            return math.inf
        free = self._places - sum(one.places for one in self._holders.values())
        others = [one for one in self._holders.values() if one is not holder]
        if all(one.waits_until <= now for one in others):
            return free
        busy = 1 + sum(one.waits_until > now or one.places > 0 for one in others)
        return min(free, math.ceil(self._places / busy) - holder.places)

    def _charge(self, holder: _Holder, calls: int) -> None:
        holder.places += calls
        if self._requests:
            self._requests.take(calls)
        if self._tokens:
            self._tokens.take(calls * self._tokens.unit)
            holder.charged += calls * self._tokens.unit

    def _wait(self, holder: _Holder, now: float) -> float:
        """Return after how long to ask again: each asker has a turn of its own."""
        until = [bucket.seconds_until(1, share=self._share) for bucket in self._buckets()]
        place = _PLACE_SECONDS if self._free_places(holder, now) < 1 else _LEAST_WAIT
        first = max([self._resumes - now, place, *until])
        return self._turns.next(now, first=first, spacing=self._per_call())

    def _per_call(self) -> float:
        """Return how many seconds there are between two calls of all workers together."""
        buckets = self._buckets()
        return max((one.unit / (one.per_second * self._share) for one in buckets), default=0.0)

    def _spacing(self, now: float) -> float:
        waiting = sum(one.waits_until > now for one in self._holders.values())
        return self._per_call() * max(waiting, 1)
