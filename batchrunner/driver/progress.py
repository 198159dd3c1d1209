"""How a run goes, while it goes: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, TextIO, cast

from batchrunner.checkpoint import Sentinel
from batchrunner.shard import Shard, Slicing
from batchrunner.spec import ErrorsSpec

if TYPE_CHECKING:
    from rich.console import Console

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


@dataclass(slots=True)
class Pace:
    """How far a run is, by the size of its shards."""

    shards: int
    committed: int
    rows_in: int
    rows_out: int
    rows_failed: int
    weight: int
    weight_done: int
    weight_before: int = field(init=False)
    began: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        self.weight_before = self.weight_done

    def count(self, sentinel: Sentinel, shard: Shard) -> None:
        """Count a shard that was committed just now."""
        self.committed += 1
        self.rows_in += 0 if shard.slicing is Slicing.DEAD_LETTERS else sentinel.rows_in
        self.rows_out += sentinel.rows_out
        self.rows_failed += sentinel.rows_failed
        self.weight_done += shard.weight

    def loses_too_much(self, policy: ErrorsSpec) -> bool:
        """Tell whether more rows failed than the run may lose, or will by the looks of it."""
        likely = self.rows_in * self.weight / max(self.weight_done, 1)
        return self.rows_failed > policy.allowed(likely)

    def standing(self, *, failed: int) -> Standing:
        """Return where the run stands."""
        whole = max(self.weight, 1)
        return Standing(
            shards=self.shards,
            committed=self.committed,
            failed=failed,
            rows_out=self.rows_out,
            done=self.weight_done / whole,
            done_before=self.weight_before / whole,
            seconds=time.monotonic() - self.began,
        )


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
    """A bar that stays in its place on a terminal; what is written meanwhile stands above it."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn

        self._stderr = sys.stderr
        console = Console(file=self._stderr)
        self._bar = Progress(
            TextColumn("{task.percentage:>3.0f}%"),
            BarColumn(),
            TextColumn("{task.description}"),
            console=console,
            transient=True,
            redirect_stderr=False,
        )
        self._task: Any = self._bar.add_task("starting", total=1.0)
        self._bar.start()
        # Not rich's own redirection: it breaks lines, which people copy, at the terminal's width.
        self._above = _AboveBar(console, self._stderr)
        sys.stderr = cast(TextIO, self._above)

    def show(self, standing: Standing) -> None:
        self._bar.update(self._task, completed=standing.done, description=line(standing))

    def close(self) -> None:
        self._above.close()
        if sys.stderr is self._above:
            sys.stderr = self._stderr
        self._bar.stop()


class _AboveBar:
    """Stands in for stderr while there is a bar: whole lines go to the terminal, above it.

    No subclass of `io.TextIOBase`: that has no encoding, and click writes past such a stream.
    """

    def __init__(self, console: Console, file: TextIO) -> None:
        self._console, self._file, self._line = console, file, ""
        self._lock = threading.RLock()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def write(self, text: str) -> int:
        with self._lock:
            *lines, self._line = (self._line + text).split("\n")
            if lines:
                self._show("\n".join(lines))
        return len(text)

    def flush(self) -> None:
        """Nothing: a line that is not whole yet would stand in the bar's way."""

    def close(self) -> None:
        """Write what is no whole line."""
        if self._line:
            self.write("\n")

    def _show(self, text: str) -> None:
        from rich.text import Text

        self._console.print(Text.from_ansi(text), soft_wrap=True)


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
