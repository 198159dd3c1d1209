"""The frame of the live view, for any width and height."""

from __future__ import annotations

import time

import pytest

from batchrunner.checkpoint.totals import Totals
from batchrunner.driver.progress import Phase, Progress
from batchrunner.views.live_frame import WIDEST, Scene, frame
from batchrunner.views.throughput import Throughput
from batchrunner.worker.stage_clock import StageClock, StageKind


def a_progress(**changes):
    fields = {
        "shards": 10_000,
        "committed": 4_200,
        "totals": Totals(rows_in=4_200_000, rows_out=4_199_900, rows_failed=100, bytes_out=10**9),
        "weight": 10**9,
        "weight_done": 42 * 10**7,
        "weight_before": 10**8,
        "failed": 1,
        "began": time.monotonic() - 3_700,
        "phase": Phase.RUNNING,
        "loaded": time.monotonic() - 3_600,
        "resumed": 1_000,
        "workers": 16,
        "workers_busy": 15,
        "rows_in_flight": 1_234,
        "rows_allowed": 5_000,
        "slowest": (7_321, 812.0),
        "states": b"=" * 1_000 + b"#" * 3_199 + b"x" + b"~" * 15 + b"." * 5_785,
        "ids": tuple(range(10_000)),
    }
    return Progress(**{**fields, **changes})


def a_scene(progress=None, **changes):
    speed = Throughput()
    for second in range(60):
        speed.add(second * 1_000, at=float(second))
    return Scene(progress or a_progress(), 3_600.0, speed, **changes)


def texts(scene, *, columns=79, lines=22):
    return [text.plain for text in frame(scene, columns=columns, lines=lines)]


@pytest.mark.parametrize("columns", [20, 39, 79, 139, 400])
@pytest.mark.parametrize("lines", [1, 2, 3, 6, 50])
def test_no_line_is_too_long_and_none_too_many(columns, lines):
    """A line that wraps, or one too many, and the frame walks up the screen."""
    drawn = frame(a_scene(), columns=columns, lines=lines)

    assert 0 < len(drawn) <= lines
    assert max(text.cell_len for text in drawn) <= min(columns, WIDEST)
    assert not any("\n" in text.plain for text in drawn)


def test_a_frame_says_what_a_person_asks_at_three_in_the_morning():
    """Each of these was asked for by name."""
    text = "\n".join(texts(a_scene(), columns=139))

    assert "running 1h00m · 1h01m so far · resumed: 1,000 shards from earlier sessions" in text
    assert "4,200 of 10,000" in text
    assert "4.2M of ~10M · 42% · 1h" in text
    assert "1,000 now" in text
    assert "1 shard failed · dead letters 100 of 5,000 allowed · workers 15/16 busy" in text
    assert "slowest: shard 7,321, 13m32s" in text
    assert "x failed" in text


STAGES = (
    StageClock("read", StageKind.READ, calling=3, waiting_output=97),
    StageClock("準備", calling=196, waiting_input=4, workers=2),
    StageClock("write", StageKind.WRITE),
)


def test_a_line_says_how_busy_the_stages_are_or_what_bounds_the_run():
    """Whether to buy a larger machine is asked while the run goes on."""
    busy = a_progress(stages=STAGES)
    bound = a_progress(stages=STAGES, advice="準備 is busy 98 % of its time: give it more CPUs")

    assert "stages  read 3 % · 準備 98 %" in texts(a_scene(busy))
    assert "stages  準備 is busy 98 % of its time: give it more CPUs" in texts(a_scene(bound))
    narrow = frame(a_scene(bound), columns=14, lines=22)
    assert max(text.cell_len for text in narrow) <= 14
    assert not any("stages" in line for line in texts(a_scene(a_progress())))


def test_of_a_retry_its_own_rows_are_shown():
    """By the weight of the run it stood at 100% before a row was retried."""
    retry = a_progress(
        committed=10_000,
        shards=10_001,
        weight_done=10**9 - 1,
        rows_in_flight=2,
        rows_to_retry=31,
        rows_retried=10,
        is_retry=True,
    )

    assert "12 of 31 retried · 38%" in "\n".join(texts(a_scene(retry), columns=139))


def test_a_hundred_per_cent_stand_there_only_once_all_is_done():
    nearly = a_progress(weight_done=10**9 - 1)

    assert " · 99%" in "\n".join(texts(a_scene(nearly), columns=139))


def test_what_is_unsure_is_not_said_as_if_it_were_known():
    """A budget that is a share of rows not all seen yet, and workers that are still loading."""
    loading = a_progress(workers_busy=0, is_extrapolated=True)

    text = "\n".join(texts(a_scene(loading), columns=139))

    assert "of ~5,000 allowed · workers 16 · slowest" in text


def test_a_pane_of_few_lines_keeps_what_matters():
    """First the legend goes, last the phase."""
    said = texts(a_scene(), lines=3)

    assert said[0].startswith("running")
    assert [line.split()[0] for line in said[1:]] == ["shards", "rows"]


def test_before_the_survey_there_is_only_the_phase():
    """A bar of nothing would look like a run that is empty."""
    begun = Progress.before_the_survey()

    assert texts(a_scene(begun))[0].startswith("reading source and checkpoint")
    assert len(texts(a_scene(begun))) == 1


def test_a_terminal_of_ascii_gets_ascii():
    """LANG=C is the locale of many a container."""
    assert all(line.isascii() for line in texts(a_scene(ascii=True)))


def test_bars_move_within_a_shard():
    """One shard of an hour is not an hour of silence."""
    at_first = a_progress(shards=1, committed=0, weight=100, weight_done=0, weight_before=0)

    def rows_bar(progress):
        return next(line for line in texts(a_scene(progress)) if line.startswith("rows  "))

    before = rows_bar(at_first)
    later = rows_bar(
        a_progress(
            shards=1, committed=0, weight=100, weight_done=0, weight_before=0, weight_in_flight=50.0
        )
    )
    assert before.count("━") == 0 < later.count("━")
