"""The page of a run's report: the verdict first, then what it rests on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from batchrunner import __version__
from batchrunner.driver.report_text import money
from batchrunner.views.report_cells import ShardState, counts_of
from batchrunner.views.report_charts import charts_of
from batchrunner.views.report_commands import UNKNOWN
from batchrunner.views.report_data import RunReport
from batchrunner.views.report_drawing import drawing_of
from batchrunner.views.report_failed import dead_letters, failed_shards, problems
from batchrunner.views.report_markup import Html, cut, el, join
from batchrunner.views.report_page import command, facts, page, quotation, section, table
from batchrunner.views.report_sessions import SessionFacts
from batchrunner.views.report_words import bytes_of, day_and_time, long_duration

_MOST_SESSIONS, _SPEC = 200, 15_000
_MOST_BYTES, _MOST_DRAWN, _LEAST_DRAWN = 400_000, 300_000, 60_000
"""Bytes of a page beside its scripts, and of what these draw: a report is sent by mail."""
_GLYPHS = {"good": "✓", "busy": "▶", "warn": "!", "bad": "✗"}


def html_of(report: RunReport) -> str:
    """Return *report* as one HTML page."""
    body = [
        _header(report),
        _verdict(report),
        _totals(report),
        *problems(report),
        *failed_shards(report),
        *dead_letters(report),
        *charts_of(report),
        _sessions(report),
        _commands(report),
        _run(report),
        _footer(),
    ]
    title = f"{cut(report.name or 'batch', 200)}: {report.verdict.state}"
    left = _MOST_BYTES - sum(len(part.encode()) for part in body)
    data = drawing_of(report, most=min(max(left, _LEAST_DRAWN), _MOST_DRAWN))
    return page(title=title, tone=report.verdict.tone, body=body, data=data)


def _header(report: RunReport) -> Html:
    when = el("span", "as of ", el("time", f"{day_and_time(report.made.timestamp())} UTC"))
    return el("header", el("strong", cut(report.name or "batch", 200)), " ", when)


def _verdict(report: RunReport) -> Html:
    verdict = report.verdict
    badge = el("span", _GLYPHS[verdict.tone], class_="glyph", aria_hidden="true")
    return el(
        "section",
        el("h1", badge, cut(verdict.happened, 1_000)),
        el("p", verdict.safe, class_="safe"),
        *(command(step.command, label=step.label) for step in verdict.steps),
        id="verdict",
        class_=f"verdict {verdict.tone}",
        aria_label="What happened",
    )


def _totals(report: RunReport) -> Html:
    totals, counts = report.totals, counts_of(report.shards)
    committed = counts[ShardState.NOW] + counts[ShardState.BEFORE]
    worked = sum(session.seconds or 0.0 for session in report.sessions if session.kind == "run")
    rate = f"{totals.rows_in / worked:,.0f}" if worked > 0 else "-"
    figures = [
        ("shards committed", f"{committed:,} / {len(report.shards):,}"),
        ("rows in", f"{totals.rows_in:,}"),
        ("rows out", f"{totals.rows_out:,}"),
        ("rows failed", _failed(report)),
        ("written", bytes_of(totals.bytes_out)),
        ("at work", long_duration(worked)),
        ("rows a second", rate),
        ("sessions", f"{sum(session.kind == 'run' for session in report.sessions):,}"),
        *_cost(report),
    ]
    return el("section", facts(figures, class_="totals"), id="totals", aria_label="Totals")


def _cost(report: RunReport) -> list[tuple[str, Html]]:
    """Return the cost as a figure, and what of it was for rows that are not committed; none if none is known."""
    spent, committed = report.spent.get("cost", 0.0), report.usage.get("cost", 0.0)
    if not spent:
        return []
    lost = spent - committed
    more = [" ", el("small", f"{money(lost)} not committed")] if lost > 1e-9 * spent else []
    return [("cost", join([money(spent), *more]))]


def _failed(report: RunReport) -> Html:
    allowed = report.documents.progress.get("rows_allowed")
    failed = f"{report.totals.rows_failed:,}"
    kept = report.dead_letters.of_failed_shards
    return join(
        [
            failed if allowed is None else f"{failed} of {allowed:,} allowed",
            *([" ", el("small", f"+ {kept:,} in shards that failed")] if kept else []),
        ]
    )


def _sessions(report: RunReport) -> Html:
    heads = (
        "",
        "began, UTC",
        "ran",
        "driver",
        "shards",
        "rows in",
        "out",
        "failed",
        "rows/s",
        "end",
    )
    shown = report.sessions[-_MOST_SESSIONS:]
    rows = [_session(one, last) for one, last in zip(shown, (None, *shown), strict=False)]
    totals = report.totals
    rows.append(
        (
            el("b", "all"),
            "",
            "",
            "",
            f"{len(report.documents.sentinels):,}",
            f"{totals.rows_in:,}",
            f"{totals.rows_out:,}",
            f"{totals.rows_failed:,}",
            "",
            "",
        )
    )
    note = _note_on_retries(report) + _note_on_left_out(report)
    whole = table(heads, rows, label="Sessions", numbers=[4, 5, 6, 7, 8])
    return section("Sessions", whole, *_changes(shown), id_="sessions", note=note)


def _session(one: SessionFacts, last: SessionFacts | None) -> tuple[str, ...]:
    gap = None
    if last and last.ended is not None and one.began is not None:
        gap = one.began - last.ended
    began = day_and_time(one.began) if one.began is not None else "unknown"
    later = [el("br"), el("small", f"{long_duration(gap)} later")] if gap and gap >= 0.05 else []
    rate = f"{one.rows_in / one.seconds:,.0f}" if one.seconds and one.rows_in else ""
    return (
        str(one.number),
        join([began, *later]),
        "-" if one.seconds is None else long_duration(one.seconds),
        el("bdi", one.driver or "unknown"),
        f"{one.committed:,}",
        f"{one.rows_in:,}",
        f"{one.rows_out:,}",
        f"{one.rows_failed:,}",
        rate,
        f"{one.kind}: {one.end}" if one.kind != "run" else one.end,
    )


def _note_on_retries(report: RunReport) -> str:
    tried = sum(session.rows_in for session in report.sessions)
    if tried == report.totals.rows_in:
        return ""
    return "Rows that were retried count in each session, and once in the total. "


def _note_on_left_out(report: RunReport) -> str:
    left = len(report.sessions) - _MOST_SESSIONS
    return f"The first {left:,} sessions are left out." if left > 0 else ""


def _changes(sessions: Sequence[SessionFacts]) -> Iterator[Html]:
    changed = [one for one in sessions if one.changes]
    if not changed:
        if len(sessions) > 1:
            yield el("p", "Spec, code and packages were the same in all sessions.", class_="note")
        return
    for one in changed:
        lines = [el("li", el("bdi", cut(line, 300))) for line in one.changes[:40]]
        yield el("p", f"Changed before session {one.number}:", class_="label")
        yield el("ul", *lines, class_="changes")


def _commands(report: RunReport) -> Html:
    each = [command(step.command, label=step.label) for step in report.again]
    note = ""
    if report.place.spec == UNKNOWN:
        note = f"{UNKNOWN} is the file of this run's spec; its text is below."
    return section("Commands", *each, id_="commands", note=note)


def _run(report: RunReport) -> Html:
    documents, asked = report.documents, report.documents.asked
    pairs = [
        ("run", report.run_uid or "unknown"),
        ("checkpoint", documents.uri),
        ("sink", documents.sink or "unknown"),
    ]
    spec_words, folder = documents.started_with
    pairs += [("started with", f"{spec_words}, in {folder}")] if spec_words else []
    if asked:
        began = asked[0].created_at.replace("T", " ")[: len("2026-01-01 00:00:00")]
        pairs += [("begun", f"{began} UTC by {asked[0].created_by}")]
        pairs += [("fingerprint", asked[-1].fingerprint)]
    spec = asked[-1].spec if asked else ""
    text = [
        el("details", el("summary", "The spec, as it was asked last"), quotation(spec, most=_SPEC))
    ]
    return section("The run", facts(pairs), *(text if spec.strip() else []), id_="run")


def _footer() -> Html:
    return el("footer", f"Made by batchrunner {__version__} from the checkpoint alone.")
