"""A token bucket whose sums over any window stay within a limit, also where they are counted by the service."""

from __future__ import annotations

import math

from batchrunner.spec.rates import Rate

_BURST, _BURST_CALLS, _MOST_BURST = 0.02, 3, 0.1
"""How much may be used at once: a share of the limit, and some calls, if they are no more than another share.
Without it, what fills in while no worker asks would be lost."""
_LATE_SHARE, _LATE_SECONDS = 0.1, 1.0
"""By how much one call may be longer on its way to the service than another, at most: a share of the
window, and seconds."""


def lateness(rate: Rate) -> float:
    """Return by how many seconds calls may differ in how long they are on their way, at *rate*."""
    return min(_LATE_SHARE * rate.seconds, _LATE_SECONDS)


class RateBucket:
    """Hands out the amount of a rate, evenly; starts empty. Not safe in several threads.

    Let a call take `unit`, the bucket hold c at most, and fill with r a second. In t seconds it hands
    out c + r t at most, in whole units. The service counts a window of W seconds; what arrives in it
    was handed out within W + D, if no call is on its way D seconds longer than another. So no window
    has more than N if c + r (W + D) is below the first multiple of the unit above N.

    Attributes:
        unit: What a call takes, as far as that is known.
        rate: The rate.
    """

    def __init__(self, rate: Rate, *, unit: float, now: float) -> None:
        self.rate = rate if rate.amount >= 1 else Rate(1.0, rate.seconds / rate.amount)
        self._level, self._at = 0.0, now
        self.unit = unit

    @property
    def most(self) -> float:
        """How much it can hold: a call, at least."""
        wanted = max(_BURST_CALLS * self.unit, _BURST * self.rate.amount)
        return max(min(wanted, _MOST_BURST * self.rate.amount), self.unit)

    @property
    def per_second(self) -> float:
        """How much it fills in a second."""
        seconds = self.rate.seconds + lateness(self.rate)
        calls = math.floor(self.rate.amount / self.unit + 1e-9)
        if calls < 1:  # one call is more than the limit: what remains is the average
            return self.rate.amount / seconds
        return (self.unit * (calls + 1) - self.most) / seconds * (1 - 1e-9)

    def fill(self, now: float, *, share: float) -> None:
        """Let the time until *now* pass, in which it filled with that *share* of its speed."""
        gained = (now - self._at) * self.per_second * share
        self._level, self._at = max(self._level, min(self._level + gained, self.most)), now

    def calls(self) -> int:
        """Return for how many calls there is enough."""
        return max(math.floor(self._level / self.unit + 1e-9), 0)

    def take(self, amount: float) -> None:
        """Take *amount*, which may leave a debt; below 0, what a call was charged too much for."""
        self._level -= amount

    def give_back(self, amount: float) -> None:
        """Give back what a call has not taken in time, as far as there is room."""
        self._level = max(self._level, min(self._level + amount, self.most))

    def seconds_until(self, calls: int, *, share: float) -> float:
        """Return after how many seconds there is enough for so many *calls*, if none is made before."""
        return max(calls * self.unit - self._level, 0.0) / (self.per_second * share)
