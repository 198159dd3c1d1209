"""The stages of a run in its report: a bar for each, of what its workers spent their time on."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from batchrunner.views.report_markup import Html, cut, el
from batchrunner.views.report_page import section
from batchrunner.views.report_words import long_duration
from batchrunner.views.stage_times import in_words
from batchrunner.worker.stage_clock import StageClock

_LONGEST_NAME = 60
_LEGEND = (
    "Of the time of their workers, over all sessions: green is at work, orange waits until what follows "
    "takes rows, and the rest waits for rows. {loading}"
)


def stages_section(stages: Sequence[StageClock], *, advice: str) -> Html:
    """Return the section about *stages*, from the reading to the writing, with the *advice* on top."""
    loading = sum(clock.loading for clock in stages)
    loaded = f"Loading took {long_duration(loading)} before that." if loading >= 1 else ""
    return section(
        "Where the time went",
        *([el("p", advice)] if advice else []),
        el("div", *map(_stage, stages), class_="bars stages"),
        el("p", _LEGEND.format(loading=loaded).strip(), class_="note"),
        id_="stages",
    )


def _stage(clock: StageClock) -> Html:
    parts = [("fill", clock.calling), ("fill second", clock.waiting_output)]
    said = el("span", in_words(clock), class_="number")
    return el("div", el("span", cut(clock.name, _LONGEST_NAME)), bar(parts, clock.running), said)


def bar(parts: Iterable[tuple[str, float]], whole: float) -> Html:
    """Return a bar of *parts* of the *whole*, one after the other, each a class and its amount."""
    drawn, at = [el("rect", width=100, height=8, class_="track")], 0.0
    for class_, amount in parts:
        width = min(100.0 - at, 100 * amount / whole if whole else 0.0)
        drawn.append(el("rect", x=f"{at:.1f}", width=f"{width:.1f}", height=8, class_=class_))
        at += width
    return el("svg", *drawn, viewBox="0 0 100 8", preserveAspectRatio="none", aria_hidden="true")
