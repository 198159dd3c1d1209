"""Says in words how far a run is: for the live view, for plain lines and for a notebook."""

from __future__ import annotations

import math

from batchrunner.driver.progress import Phase, Progress
from batchrunner.driver.report_text import duration, money

PHASES = {
    Phase.SURVEYING: "reading source and checkpoint",
    Phase.STARTING: "starting Ray",
    Phase.LOADING: "loading the capability",
    Phase.RUNNING: "running",
    Phase.FINISHING: "finishing",
}
"""What each phase is called, in front of a reader."""


def line(progress: Progress) -> str:
    """Return *progress* as one line of text."""
    left = progress.seconds_left()
    words = [
        PHASES[progress.phase],
        f"{progress.committed:,}/{progress.shards:,} shards" if progress.shards else "",
        f"{progress.totals.rows_out:,} rows out" if progress.shards else "",
        f"{progress.rows_in_flight:,} in flight" if progress.rows_in_flight else "",
        f"{progress.failed:,} failed" if progress.failed else "",
        cost(progress),
        f"{duration(progress.seconds)} so far",
        f"{duration(left)} left" if left is not None else "",
        slowest(progress) if progress.waits else "",
    ]
    return ", ".join(word for word in words if word)


def heading(progress: Progress, *, seconds: float) -> list[str]:
    """Return the phase with its *seconds*, how long the session runs, and where it began."""
    known = [
        f"{PHASES[progress.phase]} {duration(seconds)}",
        f"{duration(progress.seconds)} so far" if progress.seconds >= seconds + 1 else "",
        f"resumed: {shards(progress.resumed)} from earlier sessions" if progress.resumed else "",
    ]
    return [fact for fact in known if fact]


def shards(number: int) -> str:
    """Return *number* with its noun."""
    return f"{number:,} shard{'' if number == 1 else 's'}"


def facts(progress: Progress) -> list[str]:
    """Return what there is to know beside the bars, the most urgent first."""
    known = [
        f"{shards(progress.failed)} failed" if progress.failed else "",
        dead_letters(progress),
        workers(progress),
        cost(progress),
        slowest(progress),
    ]
    return [fact for fact in known if fact]


def dead_letters(progress: Progress) -> str:
    """Return the number of failed rows against what the budget allows."""
    failed, allowed = progress.totals.rows_failed, progress.rows_allowed
    if allowed is None and not failed:
        return ""
    about = "~" if progress.is_extrapolated else ""
    return f"dead letters {failed:,}" + (
        "" if allowed is None else f" of {about}{allowed:,} allowed"
    )


def cost(progress: Progress) -> str:
    """Return what the run has cost so far; empty if no answer said so."""
    spent = progress.spent.get("cost")
    return f"cost {money(spent)}" if spent else ""


def workers(progress: Progress) -> str:
    """Return the workers, and how many are busy once one is; empty if none was heard of."""
    if not progress.workers_busy:
        return f"workers {progress.workers:,}" if progress.workers else ""
    return f"workers {progress.workers_busy:,}/{progress.workers:,} busy"


def slowest(progress: Progress) -> str:
    """Return the shard that has run longest; empty if none runs."""
    if progress.slowest is None:
        return ""
    shard, seconds = progress.slowest
    return f"{'waiting for' if progress.waits else 'slowest:'} shard {shard:,}, {duration(seconds)}"


def rows_seen(progress: Progress) -> int:
    """Return how many rows have gone through the capability, in all sessions and in flight."""
    return progress.totals.rows_in + progress.rows_in_flight


def share(progress: Progress) -> float:
    """Return the share of the work that is done, from 0 to 1: of a retry, that of its rows."""
    if not progress.is_retry:
        return progress.share
    return min(_retried(progress) / max(progress.rows_to_retry, 1), 1.0)


def per_cent(progress: Progress) -> str:
    """Return that share; 100% only once all is done."""
    return f"{math.floor(100 * share(progress))}%"


def row_counts(progress: Progress) -> str:
    """Return the rows that are done, of those that there are."""
    if progress.is_retry:
        return f"{short(_retried(progress))} of {short(progress.rows_to_retry)} retried"
    likely = likely_rows(progress)
    return short(rows_seen(progress)) + (f" of ~{short(likely)}" if likely else "")


def _retried(progress: Progress) -> int:
    return min(progress.rows_retried + progress.rows_in_flight, progress.rows_to_retry)


def likely_rows(progress: Progress) -> int | None:
    """Return how many rows the run has, extrapolated; None before the first one."""
    return round(rows_seen(progress) / progress.share) if progress.share else None


def short(number: float) -> str:
    """Return *number* in at most five characters: 950, 12.3k, 4.56M."""
    for unit, name in ((10**9, "G"), (10**6, "M"), (10**4, "k")):
        if number >= unit:
            size = 1000 if name == "k" else unit
            return f"{number / size:.3g}{name}"
    return f"{number:,.0f}" if number >= 10 or number == 0 else f"{number:.2g}"
