"""How a run goes, while it goes: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, TextIO

LINE_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Standing:
    """Where a run stands.

    Attributes:
        shards: In all.
        committed: Of these.
        failed: Of these, in this session.
        rows_out: In all committed parts.
        done: Share of the work that is done, from 0 to 1, by the size of the shards.
        done_before: The same, when this session began.
        seconds: Since this session began.
    """

    shards: int
    committed: int
    failed: int
    rows_out: int
    done: float
    done_before: float
    seconds: float

    def seconds_left(self) -> float | None:
        """Estimate the time to the end from this session's pace; None when there is none yet."""
        gained = self.done - self.done_before
        return self.seconds * (1 - self.done) / gained if gained > 0 else None


class Progress(Protocol):
    """Told how a run goes, several times a second."""

    def show(self, standing: Standing) -> None:
        """Show it, or not: whoever shows decides how often."""

    def close(self) -> None:
        """Show nothing more."""


class NoProgress:
    """Shows nothing."""

    def show(self, standing: Standing) -> None:
        pass

    def close(self) -> None:
        pass


class LineProgress:
    """A line at most every `LINE_SECONDS`."""

    def __init__(
        self, stream: TextIO | None = None, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._stream, self._clock = stream or sys.stderr, clock
        self._next = clock() + LINE_SECONDS

    def show(self, standing: Standing) -> None:
        if self._clock() >= self._next:
            self._next = self._clock() + LINE_SECONDS
            print(line(standing), file=self._stream, flush=True)

    def close(self) -> None:
        pass


class BarProgress:
    """A bar that stays in its place on a terminal."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn

        self._bar = Progress(
            TextColumn("{task.percentage:>3.0f}%"),
            BarColumn(),
            TextColumn("{task.description}"),
            console=Console(stderr=True),
            transient=True,
        )
        self._task: Any = self._bar.add_task("starting", total=1.0)
        self._bar.start()

    def show(self, standing: Standing) -> None:
        self._bar.update(self._task, completed=standing.done, description=line(standing))

    def close(self) -> None:
        self._bar.stop()


def line(standing: Standing) -> str:
    """Return the standing in one line."""
    left = standing.seconds_left()
    words = [
        f"{standing.committed:,}/{standing.shards:,} shards",
        f"{standing.rows_out:,} rows out",
        f"{standing.failed:,} failed" if standing.failed else "",
        f"{duration(standing.seconds)} so far",
        f"{duration(left)} left" if left is not None else "",
    ]
    return ", ".join(word for word in words if word)


def duration(seconds: float) -> str:
    """Return *seconds* as people say it: 42s, 3m10s, 2h05m."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02d}s"
    return f"{whole // 3600}h{whole % 3600 // 60:02d}m"
