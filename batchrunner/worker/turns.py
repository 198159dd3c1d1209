"""Turns: says when each of many callers that wait for one thing asks for it again."""

from __future__ import annotations

from bisect import bisect_right, insort

LONGEST_WAIT = 1.0
"""The longest that a caller waits before it asks again, in seconds: the rate may rise meanwhile."""


class Turns:
    """Spreads the callers that have to wait, so that a thousand of them do not ask at once, nor none in time.

    Nothing is reserved for a turn: whether a caller comes is not known.
    """

    def __init__(self) -> None:
        self._promised: list[float] = []

    def next(self, now: float, *, first: float, spacing: float) -> float:
        """Return after how many seconds the caller asks again: *first* at the earliest.

        Calls are taken to become possible every *spacing* seconds from then on.
        """
        del self._promised[: bisect_right(self._promised, now)]
        if self._is_awaited(now + first, spacing):
            turn = self._promised[-1] + spacing
        else:  # no other caller would be there in time
            turn = now + first
        turn = min(turn, now + LONGEST_WAIT)
        insort(self._promised, turn)
        return turn - now

    def _is_awaited(self, ready: float, spacing: float) -> bool:
        """Return whether a caller comes about when a call becomes possible, at *ready*."""
        index = bisect_right(self._promised, ready - 1e-6)
        return index < len(self._promised) and self._promised[index] <= ready + spacing / 2
