"""What failed in a run, for its page: rows, shards, and documents that cannot be read."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

from batchrunner.views.dead_letters import ErrorGroup
from batchrunner.views.report_cells import ShardState
from batchrunner.views.report_data import RunReport
from batchrunner.views.report_examples import place_in_code
from batchrunner.views.report_markup import Html, cut, el
from batchrunner.views.report_page import facts, quotation, section, table
from batchrunner.views.report_words import share

_MOST_GROUPS, _MOST_FAILED, _MOST_OPEN = 30, 50, 3
_MESSAGE, _ROW, _TRACEBACK, _NAME, _WORD = 600, 800, 6_000, 300, 100
_TRACEBACKS = 45_000
"""Most characters of all tracebacks: few kinds have them whole."""


def dead_letters(report: RunReport) -> Iterator[Html]:
    """Yield the section on rows that failed: their kinds, with an example of each; nothing if none did."""
    examples = report.dead_letters
    if not examples.groups and not examples.problems:
        return
    rows, shards = f"{examples.rows:,}", f"{examples.shards:,} of {examples.of_shards:,} shards"
    notes = [f"Read from {shards} that have any: {rows} rows."] if examples.is_cut else []
    notes += [f"Not readable: {why}" for why in examples.problems[:3]]
    left = len(examples.groups) - _MOST_GROUPS
    notes += (
        [f"{left:,} rarer kinds are left out; batchrunner errors lists all."] if left > 0 else []
    )
    # Of a run that is complete, what failed is known and kept: its charts come sooner on the page.
    most_open = 0 if report.verdict.state == "complete" else _MOST_OPEN
    shown = examples.groups[:_MOST_GROUPS]
    traceback = min(_TRACEBACK, _TRACEBACKS // max(len(shown), 1))
    groups = [
        _group(group, of=examples.rows, is_open=n < most_open, traceback=traceback)
        for n, group in enumerate(shown)
    ]
    yield section("Rows that failed", *groups, id_="dead-letters", note=" ".join(notes))


def _group(group: ErrorGroup, *, of: int, is_open: bool, traceback: int) -> Html:
    where = [
        ("stage", cut(group.stage, _WORD)),
        ("code", cut(group.code or "-", _WORD)),
        ("shards", f"{group.shards:,}{' that failed as a whole' if group.shard_failed else ''}"),
        ("first seen", f"{cut(group.source, _NAME)}, {cut(group.unit, 40)} {group.at:,}"),
    ]
    head = el(
        "summary",
        el("span", f"{group.rows:,}", class_="count"),
        el("span", share(group.rows, of), class_="note"),
        el("span", el("b", cut(group.error, 200)), " ", el("bdi", cut(group.message, _MESSAGE))),
        el("bdi", cut(place_in_code(group), 200), class_="note"),
    )
    body = [
        facts(where),
        el("p", "The first such row:", class_="label"),
        quotation(group.raw, most=_ROW),
    ]
    if group.traceback:
        body += [
            el("p", "Traceback in your code:", class_="label"),
            quotation(group.traceback, most=traceback),
        ]
    return el("details", head, *body, class_="group", open=is_open)


def failed_shards(report: RunReport) -> Iterator[Html]:
    """Yield the section on shards that failed; nothing if none did."""
    failed = [shard for shard in report.shards if shard.state is ShardState.FAILED]
    if not failed:
        return
    quarantined = report.documents.quarantined
    rows = [
        (
            f"{shard.id:,}",
            "quarantined until retry" if shard.id in quarantined else "tried again by the next run",
            el("bdi", cut(shard.why or "not recorded", _MESSAGE)),
            el("bdi", cut(shard.source, _NAME)),
        )
        for shard in failed[:_MOST_FAILED]
    ]
    left = len(failed) - _MOST_FAILED
    note = f"{left:,} more are in the map." if left > 0 else ""
    heads = ("shard", "what now", "why", "source")
    shown = table(heads, rows, label="Shards that failed", numbers=[0])
    yield section("Shards that failed", shown, id_="failed-shards", note=note)


def problems(report: RunReport) -> Iterator[Html]:
    """Yield the section on documents that cannot be read; nothing if all can."""
    found = report.documents.problems
    if found:
        each = (el("li", cut(why, 750)) for why in islice(found, 20))
        note = f"{len(found):,} documents"
        yield section("What cannot be read", el("ul", *each), id_="problems", note=note)
