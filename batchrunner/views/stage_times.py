"""What the stages of a run spent their time on: read from event logs, and said in words."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from batchrunner.views.event_logs import Event
from batchrunner.views.report_words import bytes_of, counted, share
from batchrunner.worker.stage_clock import StageClock, StageKind, summed


def stages_in(events: Sequence[Event]) -> tuple[StageClock, ...]:
    """Return the clocks of a session, as its event log has them last; empty if it has none."""
    # Between two saves, and after the end, an event of its own has them; else the stored progress.
    latest: Any = next((e["stages"] for e in reversed(events) if e.get("stages")), ())
    return tuple(_sound(latest)) if isinstance(latest, list) else ()


def _sound(stored: Iterable[Any]) -> Iterator[StageClock]:
    for one in stored:
        with contextlib.suppress(KeyError, TypeError, ValueError):  # damaged, or of a later version
            yield StageClock.from_dict(one)


def advice_in(events: Sequence[Event]) -> str:
    """Return the advice that the session had last; empty if it had none."""
    return next((str(e["advice"] or "") for e in reversed(events) if "advice" in e), "")


def stages_of_run(logs: Iterable[Sequence[Event]]) -> tuple[StageClock, ...]:
    """Return the sums over the sessions with these event logs; they have no workers now."""
    clocks = (clock for events in logs for clock in stages_in(events))
    return summed(replace(clock, workers=0) for clock in clocks)


def busy(clocks: Iterable[StageClock]) -> str:
    """Return for how much of its time each stage was busy, as one line; empty without any."""
    return " · ".join(
        f"{clock.name} {share(clock.calling, clock.running)}" for clock in clocks if clock.running
    )


def in_words(clock: StageClock) -> str:
    """Return what one stage spent its time on, as one line without its name."""
    parts = [
        f"{share(seconds, clock.running)} {what}"
        for what, seconds in shares(clock).items()
        if seconds >= 0.005 * clock.running > 0
    ]
    # What reads and writes is in the processes of the workers, too.
    is_own = clock.kind is StageKind.STAGE
    with_workers = [counted(clock.workers, "worker")] if clock.workers and is_own else []
    memory = (
        [f"up to {bytes_of(clock.peak_memory)} in each"] if clock.peak_memory and is_own else []
    )
    return "; ".join(part for part in (", ".join(parts), ", ".join(with_workers + memory)) if part)


def shares(clock: StageClock) -> Mapping[str, float]:
    """Return the seconds of the workers of a stage since they were ready, by what they did, in words."""
    inside = "busy" if clock.kind is StageKind.STAGE else "at work"
    limited = min(clock.limited, clock.calling)
    return {
        inside: clock.calling - limited,
        "waiting for the rate limit": limited,
        "waiting for rows": clock.waiting_input,
        "waiting for room": clock.waiting_output,
    }
