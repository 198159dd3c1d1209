"""The frame of the live view: what it shows, line by line, for a width and a height."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from batchrunner.driver.progress import IN_FLIGHT, Progress
from batchrunner.driver.report_text import duration
from batchrunner.views.progress_text import (
    facts,
    heading,
    line,
    per_cent,
    row_counts,
    share,
    short,
)
from batchrunner.views.shard_strip import legend, strip
from batchrunner.views.stage_times import busy
from batchrunner.views.throughput import Throughput, sparkline

if TYPE_CHECKING:
    from rich.text import Text

WIDEST = 120
"""Most columns of a frame: wider bars say no more, and a resized terminal breaks fewer lines."""

_LABEL = 8
_LEAST_BAR, _BAR_STEP = 8, 6
_MOST_SPARKS = 30


@dataclass(frozen=True, slots=True)
class Scene:
    """What a frame is drawn of.

    Attributes:
        progress: How far the run is.
        phase_seconds: How long it has been in its phase.
        throughput: Its rows a second.
        ascii: Whether the terminal shows nothing but ASCII.
    """

    progress: Progress
    phase_seconds: float
    throughput: Throughput
    ascii: bool = False


def frame(scene: Scene, *, columns: int, lines: int) -> list[Text]:
    """Return the lines of the frame: at most *lines*, each of at most *columns* cells.

    Where the height is small, lines are left out: the legend first, the phase last.
    """
    from rich.text import Text

    columns = min(columns, WIDEST)
    if lines <= 1:
        return [Text(line(scene.progress))[:columns]][:lines]
    shown = _kept(scene, columns, lines)
    for text in shown if scene.ascii else ():
        text.plain = text.plain.replace("·", "-")
    return shown


def _kept(scene: Scene, columns: int, lines: int) -> list[Text]:
    ranked = [(rank, text) for rank, text in _ranked(scene, columns) if text]
    kept = sorted(range(len(ranked)), key=lambda at: ranked[at][0])[:lines]
    return [text for at, (_, text) in enumerate(ranked) if at in kept]


def _ranked(scene: Scene, columns: int) -> list[tuple[int, Text]]:
    """Return the lines from top to bottom, each with its rank: the higher, the sooner left out."""
    progress = scene.progress
    top = _folded(heading(progress, seconds=scene.phase_seconds), columns)
    if not progress.shards:
        return [(0, top[0])]
    said = _folded(facts(progress), columns)
    return [
        (0, top[0]),
        *((4, text) for text in top[1:]),
        (1, _shards(scene, columns)),
        (2, _rows(scene, columns)),
        (5, _rate(scene, columns)),
        *((3, text) for text in said),
        (5, _stages(scene, columns)),
        (6, _strip(scene, columns)),
        (7, _legend(scene, columns)),
    ]


def _stages(scene: Scene, columns: int) -> Text:
    """Return what bounds the run, as far as it fits; else how busy each stage is, once they have run a while."""
    from rich.text import Text

    shown = scene.progress.advice or busy(scene.progress.stages)
    line = Text(f"stages  {shown}" if shown else "")
    line.truncate(columns, overflow="ellipsis")
    return _styled_fact(line)


def _folded(said: Sequence[str], columns: int) -> list[Text]:
    """Return what is *said* on as many lines as it needs, broken between facts only."""
    from rich.text import Text

    lines: list[str] = []
    for fact in said:
        joined = f"{lines[-1]} · {fact}" if lines else fact
        if lines and len(joined) <= columns:
            lines[-1] = joined
        else:
            lines.append(fact)
    return [_styled_fact(Text(text[:columns])) for text in lines]


def _styled_fact(text: Text) -> Text:
    text.highlight_regex(r"^[a-zA-Z ]+(?= \d)", "bold")
    text.highlight_regex(r"[\d,]+ shards? failed|dead letters [1-9][\d,]*", "red")
    return text


def _shards(scene: Scene, columns: int) -> Text:
    progress = scene.progress
    flying = progress.states.count(IN_FLIGHT)
    pieces = [(progress.committed / progress.shards, "green"), (flying / progress.shards, "yellow")]
    return _bar_line("shards", pieces, _said_of_shards(progress), scene, columns)


def _rows(scene: Scene, columns: int) -> Text:
    said = _said_of_rows(scene.progress, columns)
    return _bar_line("rows", [(share(scene.progress), "green")], said, scene, columns)


def _said_of_shards(progress: Progress) -> str:
    return f"{progress.committed:,} of {progress.shards:,}"


def _said_of_rows(progress: Progress, columns: int) -> str:
    left = progress.seconds_left()
    times = [per_cent(progress), *([f"{duration(left)} left"] if left is not None else [])]
    whole = " · ".join([row_counts(progress), *times])
    return whole if len(whole) <= columns - _LABEL - _LEAST_BAR - 1 else " · ".join(times)


def _bar_line(
    label: str, pieces: Sequence[tuple[float, str]], said: str, scene: Scene, columns: int
) -> Text:
    """Return a bar whose *pieces* have a share and a style each, between *label* and what is *said*."""
    from rich.text import Text

    text = Text(f"{label:<{_LABEL}}")
    room = _bar_cells(scene.progress, columns)
    full, empty = ("#", "-") if scene.ascii else ("━", "─")
    reached = 0
    for part, style in pieces:
        # A piece that is there shows, however small its share.
        cells = min(max(round(part * room), part > 0), room - reached)
        text.append(("~" if style == "yellow" else full) * cells, style)
        reached += cells
    text.append(empty * (room - reached) + " ", "dim")
    return text.append(said)[:columns]


def _bar_cells(progress: Progress, columns: int) -> int:
    """Return the length of both bars: in steps, since it would flicker with each digit more."""
    said = (_said_of_shards(progress), _said_of_rows(progress, columns))
    room = columns - _LABEL - max(map(len, said)) - 1
    return max(_LEAST_BAR, room // _BAR_STEP * _BAR_STEP)


def _rate(scene: Scene, columns: int) -> Text:
    from rich.text import Text

    rate = scene.throughput.per_second()
    if rate is None:
        return Text()
    said = f" {short(rate)} now"
    room = min(columns - _LABEL - len(said), _MOST_SPARKS)
    text = Text(f"{'rows/s':<{_LABEL}}")
    if room >= 4:
        values = scene.throughput.history(room)
        text.append(sparkline(values, ascii_only=scene.ascii), "cyan")
    return text.append(said)[:columns]


def _strip(scene: Scene, columns: int) -> Text:
    from rich.text import Text

    text = Text()
    for cell, count in strip(scene.progress.states, columns):
        text.append((cell.ascii if scene.ascii else cell.glyph) * count, cell.style)
    return text


def _legend(scene: Scene, columns: int) -> Text:
    from rich.text import Text

    text = Text()
    for cell in legend(scene.progress.states, columns):
        gap = "  " if text else ""
        if len(text) + len(gap) + len(cell.meaning) + 2 <= columns:
            text.append(gap).append(cell.ascii if scene.ascii else cell.glyph, cell.style)
            text.append(f" {cell.meaning}", "dim")
    return text
