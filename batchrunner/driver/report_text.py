"""A report in words: its first lines, wherever a person reads them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from batchrunner.driver.report import BatchReport


def state(report: BatchReport) -> str:
    """Return how the session left the run, in a word: done, failed or stopped, with the reason."""
    if report.ok:
        return "done"
    # With every shard committed nothing was left to stop: the rows that failed are what is wrong.
    is_stopped = report.stopped and report.shards_committed < report.shards
    return f"stopped ({report.stopped})" if is_stopped else "failed"


def heading(report: BatchReport) -> str:
    """Return how the session left the run and its shards, as one line."""
    whole = report.shards_committed == report.shards
    but = ", but too many rows failed" if whole and not report.ok else ""
    adopted = f", {report.shards_adopted:,} adopted" if report.shards_adopted else ""
    return (
        f"{state(report)}: {report.shards_committed:,} of {report.shards:,} shards committed{but} "
        f"({report.shards_new:,} new{adopted}, {duration(report.seconds)})"
    )


def rows(report: BatchReport) -> str:
    """Return the totals, and whose rows they leave out."""
    text = f"{report.rows_in:,} in, {report.rows_out:,} out, {report.rows_failed:,} failed"
    failed = len({*report.failures, *report.quarantined})
    if not failed:
        return text
    return f"{text}; not counted: those of {failed:,} failed shard{'' if failed == 1 else 's'}"


def usage(spent: Mapping[str, float], committed: Mapping[str, float]) -> str:
    """Return what all calls have used, and their cost, as text; empty if no answer said so.

    Args:
        spent: What all calls have used.
        committed: What those have used that the committed rows came of.
    """
    words = [f"{amount:,.0f} {name}" for name, amount in spent.items() if name != "cost"]
    cost, known = spent.get("cost", 0.0), committed.get("cost", 0.0)
    lost = cost - known
    if cost:
        is_some = lost > 1e-9 * cost
        of_it = f", {money(lost)} of it for rows that are not committed" if is_some else ""
        words.append(f"cost {money(cost)}{of_it}")
    return ", ".join(words)


def money(amount: float) -> str:
    """Return an *amount* of money, in whatever currency the prices are: 1,234.50, or 0.00123."""
    return f"{amount:,.2f}" if amount >= 1 or not amount else f"{amount:.3g}"


def over_cost(report: BatchReport) -> str:
    """Return what to do about a run that stopped because of `max_cost`; empty for others."""
    if report.stopped == "no cost reported":
        return no_cost(report.spent)
    if report.stopped != "max_cost" or report.max_cost is None:
        return ""
    limit = f"raise execution.max_cost, which is {money(report.max_cost)}"
    if report.cost_left is None:
        return limit
    whole = report.spent.get("cost", 0.0) + report.cost_left
    return f"{limit}: the rest would cost about {money(report.cost_left)}, the whole run {money(whole)}"


def no_cost(spent: Mapping[str, float]) -> str:
    """Return what to do about a limit on the cost where no answer says what it costs, by what all have *spent*."""
    return (
        f"execution.max_cost cannot stop a run whose answers do not say what they cost. They report "
        f"{', '.join(spent) or 'nothing'}: give execution.prices for that, say by `usage` of the capability or stage "
        "where they have it, or leave max_cost out"
    )


def reasons(report: BatchReport) -> list[str]:
    """Return why shards failed, in this session and before; then the error of rows, if too many."""
    by_shard = {**report.quarantined, **{i: f.reason for i, f in report.failures.items()}}
    return [*by_shard.values(), *([report.row_error] if report.row_error else [])]


def next_line(report: BatchReport) -> str:
    """Return what to do next: the command that shows what failed, if anything did."""
    if report.rows_failed or report.failures or report.quarantined:
        return f"batchrunner errors {report.checkpoint}"
    if report.ok:
        return ""
    return over_cost(report) or "run it again: what is committed stays"


def text(report: BatchReport) -> str:
    """Return *report* as a few lines, with no character that steers a terminal."""
    first, error = next_line(report), next(iter(reasons(report)), "")
    lines = [
        heading(report),
        f"rows: {rows(report)}",
        f"usage: {usage(report.spent, report.usage)}" if report.spent else "",
        f"output: {report.sink}",
        f"speed: {report.advice}" if report.advice else "",
        f"failed: {error}" if error else "",
        f"next: {first}" if first else "",
    ]
    return "\n".join(_printable(line) for line in lines if line)


def _printable(line: str) -> str:
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in line)


def duration(seconds: float) -> str:
    """Return *seconds* as short text: 42s, 3m10s, 2h05m."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02d}s"
    return f"{whole // 3600}h{whole % 3600 // 60:02d}m"
