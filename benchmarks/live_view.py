"""The live view alone: `python -m benchmarks.live_view SHARDS SECONDS` on a terminal at stderr.

Prints the CPU seconds of this process: first those without the view, then those with it.
"""

from __future__ import annotations

import sys
import time
from dataclasses import replace

from batchrunner.driver.progress import (
    COMMITTED,
    PENDING,
    Display,
    NoDisplay,
    Phase,
    Progress,
)
from batchrunner.views.displays import display_of

_SHOWN_A_SECOND = 20


def shown_by(display: Display, *, shards: int, seconds: float) -> float:
    """Show a run of *shards* for *seconds*, in which shards are committed; return the CPU used."""
    began = time.process_time()
    for number in range(round(seconds * _SHOWN_A_SECOND)):
        display.show(_progress(shards, committed=number % shards))
        time.sleep(1 / _SHOWN_A_SECOND)
    display.close()
    return time.process_time() - began


def _progress(shards: int, *, committed: int) -> Progress:
    states = bytes([COMMITTED]) * committed + bytes([PENDING]) * (shards - committed)
    return replace(
        Progress.before_the_survey(),
        phase=Phase.RUNNING,
        shards=shards,
        committed=committed,
        weight=shards,
        weight_done=committed,
        workers=8,
        workers_busy=8,
        rows_in_flight=100,
        slowest=(committed, 2.5),
        states=states,
        ids=tuple(range(shards)),
    )


def main() -> None:
    """Measure both, in one process, one after the other."""
    shards, seconds = int(sys.argv[1]), float(sys.argv[2])
    for display in (NoDisplay(), display_of("live")):
        print(shown_by(display, shards=shards, seconds=seconds))


if __name__ == "__main__":
    main()
