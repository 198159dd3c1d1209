"""How much of a workload to run."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Size:
    """How large and how often.

    Attributes:
        scale: 1.0 is the workload as it is defined; less is for a quick look.
        laps: How often each contestant is measured.
    """

    scale: float
    laps: int

    def of(self, count: int, *, at_least: int = 1) -> int:
        """Return *count*, scaled."""
        return max(round(count * self.scale), at_least)
