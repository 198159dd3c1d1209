"""The page that shows recorded runs side by side."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator
from datetime import datetime
from itertools import groupby
from typing import Any

from batchrunner import __version__
from batchrunner.analytics.batch_records import BatchRunRecord, BatchShardRecord
from batchrunner.views.report_markup import Html, cut, el, join
from batchrunner.views.report_page import command, page, section, table
from batchrunner.views.report_runs import DifferentValue, RunsReport
from batchrunner.views.report_words import bytes_of, counted, day_and_time, long_duration

_MOST_VALUES = 1_000
_VALUE = 200

_TOTALS: dict[str, Callable[[float], str]] = {
    "shards": "{:,.0f}".format,
    "sessions": "{:,.0f}".format,
    "rows_in": "{:,.0f}".format,
    "rows_out": "{:,.0f}".format,
    "rows_failed": "{:,.0f}".format,
    "bytes_out": bytes_of,
    "seconds": long_duration,
}
_NAMES = {
    "seconds": "time of workers",
    "bytes_out": "written",
    "source_uri": "source",
    "sink_uri": "sink",
    "capability": "code",
}


def html_of(report: RunsReport) -> str:
    """Return *report* as one HTML page."""
    title = f"{len(report.runs):,} runs side by side"
    body = [
        _header(report),
        _verdict(report),
        _totals(report),
        *_differences(report),
        _commands(report),
        el("footer", f"Made by batchrunner {__version__} from the analytics store alone."),
    ]
    return page(title=title, tone="busy", body=body, data={})


def _header(report: RunsReport) -> Html:
    when = f"{day_and_time(report.made.timestamp())} UTC"
    return el(
        "header", el("strong", cut(report.store, 300)), " ", el("span", "as of ", el("time", when))
    )


def _verdict(report: RunsReport) -> Html:
    several = len(report.runs) > 1
    said = "The others are held against the first." if several else "Name more runs to compare."
    heading = el("h1", f"{_headline(report)}.")
    return el("section", heading, el("p", said, class_="safe"), id="verdict", class_="verdict busy")


def _headline(report: RunsReport) -> str:
    capabilities = list(dict.fromkeys(run.capability_id for run in report.runs))
    of = capabilities[0] if len(capabilities) == 1 else f"{len(capabilities)} capabilities"
    count, found = len(report.runs), len(report.differences)
    if count == 1:
        return f"One run of {cut(of, 200)}"
    parts = [f"{count:,} {'batches' if report.are_batches else 'runs'} of {cut(of, 200)}"]
    if report.are_batches:
        parts.append(_of_totals(report))
    # Of batches that recorded nothing else, "0 values differ" would deny what the totals show.
    if found or not report.are_batches:
        differ = "differ" if found != 1 else "differs"
        parts.append(f"{counted(found, 'value')} of their records {differ}")
    return "; ".join(parts)


def _of_totals(report: RunsReport) -> str:
    *most, last = report.differing_totals or ("",)
    if not last:
        return "as many shards and rows, and the same spec and code"
    return f"they differ in {', '.join(most)} and {last}" if most else f"they differ in {last}"


def _totals(report: RunsReport) -> Html:
    heads = ["", *(_name(run.run_uid) for run in report.runs)]
    rows: list[list[str]] = [
        ["capability", *(el("bdi", cut(run.capability_id, _VALUE)) for run in report.runs)],
        ["recorded, UTC", *(day_and_time(run.created_at.timestamp()) for run in report.runs)],
    ]
    for name in dict.fromkeys(name for run in report.runs for name in run.asked):
        texts = (run.asked.get(name, "-") for run in report.runs)
        shown = _name if name == "fingerprint" else _text
        rows.append([_NAMES.get(name, name), *map(shown, texts)])
    for name, written in _TOTALS.items():
        values = [run.totals.get(name) for run in report.runs]
        if any(value is not None for value in values):
            rows.append(
                [_NAMES.get(name, name.replace("_", " ")), *_against_first(values, written)]
            )
    for number, name in enumerate(("shard seconds, median", "95th percentile", "slowest shard")):
        spread = [run.shard_seconds[number] if run.shard_seconds else None for run in report.runs]
        if any(value is not None for value in spread):
            rows.append([name, *_against_first(spread, long_duration)])
    rows.append(["records", *(f"{sum(run.records.values()):,}" for run in report.runs)])
    whole = table(heads, rows, label="Totals of the runs", numbers=range(1, len(heads)))
    return section("Totals", whole, id_="totals")


def _text(text: str) -> Html:
    return el("bdi", cut(text, _VALUE))


def _name(hash_: str) -> Html:
    """Return a uid or a hash, shortened; the whole of it is shown under the pointer."""
    short = hash_ if len(hash_) <= 18 else f"{hash_[:8]}…{hash_[-8:]}"
    return el("bdi", short, title=hash_)


def _against_first(values: list[Any], shown: Callable[[float], str]) -> Iterator[Html]:
    first = values[0]
    for number, value in enumerate(values):
        text = "-" if value is None else shown(value)
        yield join([text, *(_change(first, value) if number else ())])


def _change(first: Any, value: Any) -> Iterator[Html]:
    """Yield how far *value* is from *first*, if both are numbers."""
    both = [one for one in (first, value) if isinstance(one, int | float) and type(one) is not bool]
    if len(both) == 2 and first != value:
        text = (
            f"{value - first:+,.4g}"
            if not first
            else f"{100 * (value - first) / abs(first):+,.1f} %"
        )
        yield el("br")
        yield el("small", text)


def _differences(report: RunsReport) -> Iterator[Html]:
    heads = ["where", "column", *(_name(run.run_uid) for run in report.runs)]
    shown = report.differences[:_MOST_VALUES]
    left = len(report.differences) - len(shown)
    for name, group in groupby(shown, key=lambda one: one.table):
        rows = [_row(one) for one in group]
        whole = table(heads, rows, label=f"Differences in {name}", numbers=range(2, len(heads)))
        yield section(f"Differences in {name}", whole, id_=f"table-{name}")
    if notes := [*_left_out(report, left)]:
        yield section("Left out", *(el("p", note) for note in notes), id_="left-out")


def _left_out(report: RunsReport, values: int) -> Iterator[str]:
    if values > 0:
        yield f"{values:,} more values differ; batchrunner runs compare lists all."
    shards = BatchShardRecord.table_name
    if many := [table for table in report.summed_up if table != shards]:
        yield f"Too many rows to compare one by one: {', '.join(many)}."
    if any(BatchRunRecord.table_name in run.records for run in report.runs):
        yield "batch_runs: the totals above show it; batchrunner runs compare lists each value."
    if shards in report.summed_up:
        yield (
            "batch_shards: shards are not compared one by one; batchrunner runs compare matches them "
            "by their parts."
        )


def _row(one: DifferentValue) -> list[str]:
    values = (
        join([_shown(value), *(_change(one.values[0], value) if number else ())])
        for number, value in enumerate(one.values)
    )
    return [el("bdi", cut(one.where, _VALUE) or "the run"), el("bdi", one.column), *values]


def _shown(value: Any) -> Html:
    if value is None:
        return el("span", "-")
    if isinstance(value, datetime):
        return el("span", day_and_time(value.timestamp()))
    if isinstance(value, float):
        return el("span", f"{value:,.6g}")
    if isinstance(value, int) and not isinstance(value, bool):
        return el("span", f"{value:,}")
    return el("bdi", cut(str(value), _VALUE))


def _commands(report: RunsReport) -> Html:
    columns = "".join(f" --on {shlex.quote(column)}" for column in report.on)
    store = f"{shlex.quote(report.store)}{columns}"
    uids = [shlex.quote(run.run_uid) for run in report.runs]
    lines = [
        command(
            f"batchrunner runs report --store {store} {' '.join(uids)}",
            label="Make this report again",
        ),
        command(
            f"batchrunner runs list --store {shlex.quote(report.store)}", label="List the runs"
        ),
    ]
    if len(uids) > 1:
        two = f"batchrunner runs compare --store {store} {uids[0]} {uids[1]}"
        lines.insert(0, command(two, label="The first two, as a table"))
    return section("Commands", *lines, id_="commands")
