"""The charts of a report: places for what the scripts draw, each with its facts in words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from batchrunner.views.report_cells import STATE_WORDS, ShardState, counts_of, group_for
from batchrunner.views.report_data import RunReport
from batchrunner.views.report_histogram import histogram_of
from batchrunner.views.report_lanes import lanes_of
from batchrunner.views.report_markup import Html, cut, el
from batchrunner.views.report_page import chart, section
from batchrunner.views.report_stages import bar, stages_section
from batchrunner.views.report_times import Rates, gaps_of, rates_of, timed
from batchrunner.views.report_words import counted, long_duration, share

_SIGNS: Mapping[ShardState, tuple[Html, ...]] = {
    ShardState.NOW: (),
    ShardState.BEFORE: (el("path", d="M2 10L10 2M6 12L12 6"),),
    ShardState.IN_FLIGHT: (el("path", d="M2 6H10M7 3L10 6L7 9"),),
    ShardState.PENDING: (),
    ShardState.FAILED: (el("path", d="M3 3L9 9M9 3L3 9"),),
    ShardState.DAMAGED: (el("path", d="M6 2V7M6 9V10"),),
}
"""What is drawn in a cell of each state, beside its colour; `shard_map.js` draws the same."""


def charts_of(report: RunReport) -> Iterator[Html]:
    """Return the sections with charts; those for which the run has no data are left out."""
    if report.shards:
        yield _map(report)
    sentinels = timed(report.documents.sentinels.values())
    if sentinels:
        rates = rates_of(report.axis, sentinels)
        drawn = chart("rate", label="Rows a second over time", caption=_rate_caption(report, rates))
        yield section("Rows a second", drawn, id_="rates", note=_untimed(report))
    elif report.documents.sentinels:
        yield section("Rows a second", id_="rates", note=_untimed(report))
    if sentinels:
        lanes = lanes_of(report.axis, sentinels)
        caption = f"{counted(len(lanes.workers) + lanes.left_out, 'worker')}."
        if lanes.left_out:
            caption += f" The {len(lanes.workers):,} busiest are drawn."
        if lanes.failures:
            caption += " A mark below shows where rows failed."
        drawn = chart("lanes", label="What each worker did when", caption=caption)
        yield section("Workers", drawn, id_="workers", note=_skewed(report))
    stages = [clock for clock in report.stages if clock.running]
    if report.documents.sentinels:
        phases = () if stages else _phases(report)
        yield el("div", _seconds(report), *phases, class_="pair")
    if stages:
        yield stages_section(stages, advice=report.advice)


def _skewed(report: RunReport) -> str:
    skewed = report.documents.skewed
    if not skewed:
        return ""
    names = ", ".join(cut(name or "a worker without a name", 60) for name in skewed[:3])
    more = f" and {len(skewed) - 3:,} more" if len(skewed) > 3 else ""
    return (
        f"The clock was wrong at {names}{more}: these attempts are drawn within their session, by the "
        "clock of its driver."
    )


def _untimed(report: RunReport) -> str:
    count = sum(not sentinel.began for sentinel in report.documents.sentinels.values())
    if not count:
        return ""
    return (
        f"{counted(count, 'shard')} missing here, committed by an earlier batchrunner, which did not "
        "record when. The sessions below have their rows."
    )


def _rate_caption(report: RunReport, rates: Rates) -> str:
    most = max((y for y in rates.y if y is not None), default=0.0)
    words = [f"At most {most:,.0f} rows a second, over {long_duration(rates.step)}."]
    gaps = [gap for gap in gaps_of(report.axis) if gap > 0]
    if gaps:
        each = ", ".join(long_duration(gap) for gap in gaps[:5])
        more = f" and {len(gaps) - 5:,} more" if len(gaps) > 5 else ""
        words.append(f"Between sessions: {each}{more}; long gaps are drawn short.")
    return " ".join(words)


def _map(report: RunReport) -> Html:
    group = group_for(len(report.shards))
    counts = counts_of(report.shards)
    signs = (swatch(state, word, counts[state]) for state, word in STATE_WORDS.items())
    label = "Map of the shards; arrow keys move, Home and End jump"
    canvas = el("canvas", id="map", tabindex=0, role="application", aria_label=label, hidden=True)
    details = el("p", "", id="map-details", class_="readout", aria_live="polite")
    note = f"A cell stands for {group:,} shards." if group > 1 else ""
    legend = el("div", *signs, class_="legend")
    return section("Shards", legend, canvas, details, id_="shards", note=note)


def swatch(state: ShardState, word: str, count: int) -> Html:
    """Return a sign of the legend, with what it means and how many shards have it."""
    square = el("rect", x=1, y=1, width=10, height=10, rx=2)
    sign = el("svg", square, *_SIGNS[state], viewBox="0 0 12 12", class_="sign", aria_hidden="true")
    number = el("b", f"{count:,}")
    name = f"cell {state.name.lower().replace('_', '-')}"
    return el(
        "button",
        sign,
        number,
        f" {word}",
        type="button",
        class_=name,
        data_state=state,
        disabled=True,
    )


def _seconds(report: RunReport) -> Html:
    histogram = histogram_of(s.seconds for s in report.documents.sentinels.values())
    if histogram is None:
        return Html()
    caption = (
        f"Half of the shards took at most {long_duration(histogram.median)}, 95 % at most "
        f"{long_duration(histogram.p95)}, the slowest {long_duration(histogram.most)}."
    )
    drawn = chart("histogram", label="How many shards took how long", caption=caption)
    return section("Seconds a shard", drawn, id_="seconds")


def _phases(report: RunReport) -> Iterator[Html]:
    sentinels = timed(report.documents.sentinels.values())
    whole = sum(sentinel.seconds for sentinel in sentinels)
    parts = {
        "reading": sum(sentinel.reading for sentinel in sentinels),
        "in the capability": sum(sentinel.calling for sentinel in sentinels),
        "writing": sum(sentinel.writing for sentinel in sentinels),
    }
    if not any(parts.values()):
        return
    bars = [
        el(
            "div",
            el("span", name),
            bar([("fill", seconds)], whole),
            el("span", f"{long_duration(seconds)}, {share(seconds, whole)}", class_="number"),
        )
        for name, seconds in parts.items()
    ]
    slowest = max(parts, key=lambda name: parts[name])
    caption = f"Of {long_duration(whole)} of attempts, most went by {slowest}; the three overlap."
    body = el("div", *bars, class_="bars")
    yield section("Where the time went", body, el("p", caption, class_="note"), id_="phases")
