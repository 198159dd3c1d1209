"""The parts of the live view: strip, sparkline, whole lines, and the end of a terminal."""

from __future__ import annotations

import io
import logging
import os
import random
import subprocess
import sys
import threading
from dataclasses import replace

import pytest

from batchrunner.checkpoint.totals import Totals
from batchrunner.driver.progress import NoDisplay, Phase, Progress
from batchrunner.driver.report_text import duration
from batchrunner.errors import InvalidSpecError
from batchrunner.spec.secrets import remember
from batchrunner.views.displays import MODES, display_of
from batchrunner.views.harmless import in_colour
from batchrunner.views.line_display import LINE_SECONDS, LineDisplay
from batchrunner.views.progress_text import short
from batchrunner.views.region import DrawnLine, Region
from batchrunner.views.shard_strip import CELLS, downsampled, strip
from batchrunner.views.throughput import Throughput, sparkline
from batchrunner.views.whole_lines import WholeLines
from patience import PATIENCE
from progress_events import events_of


def _in(phase, **changes):
    return replace(Progress.before_the_survey(), phase=phase, **changes)


def test_each_state_has_its_own_glyph():
    """Without colours, or without the eyes for them, the strip says the same."""
    for way in ("glyph", "ascii"):
        glyphs = [getattr(cell, way) for cell in CELLS.values()]
        assert len(set(glyphs)) == len(glyphs)
        assert all(len(glyph) == 1 for glyph in glyphs)


@pytest.mark.parametrize("shards", [0, 1, 79, 80, 10_000])
def test_a_strip_fits_and_covers_all_shards(shards):
    """The last shard shows as well as the first."""
    states = b"#" * (shards - 1) + b"." if shards else b""

    cells = strip(states, 79)
    assert sum(count for _, count in cells) == min(shards, 79)
    if shards:
        assert cells[-1][0].meaning in ("to do", "partly")


def test_one_failed_shard_among_thousands_shows():
    """It is what the reader looks for."""
    states = bytearray(b"#" * 10_000)
    states[random.Random(7).randrange(10_000)] = ord("x")

    assert downsampled(bytes(states), 40).count(b"x") == 1


def test_the_speed_is_that_of_the_last_ten_seconds():
    """A run that hangs shows 0, not the mean of the hour before."""
    speed = Throughput()
    for second in range(100):
        speed.add(min(second, 50) * 10, at=float(second))

    assert speed.per_second() == 0
    history = speed.history(30)
    assert len(history) == 30
    assert history[-1] == 0
    assert history[0] == pytest.approx(10)


def test_a_first_look_that_saw_no_row_move_yet_says_no_speed():
    """`status --watch` looks more often than a driver stores: 0 rows/s would be a guess."""
    speed = Throughput()
    for second in (0, 1, 5):
        speed.add(700, at=float(second))
    at_first = speed.per_second()
    speed.add(700, at=11.0)

    assert at_first is None
    assert speed.per_second() == 0


def test_rows_that_a_failed_shard_takes_back_are_no_negative_speed():
    """A worker that died lost rows in flight; the sparkline has no room below zero."""
    speed = Throughput()
    for second, rows in enumerate((0, 100, 50)):
        speed.add(rows, at=float(second))

    assert min(speed.history(10)) >= 0
    assert sparkline([0, 0]) == "▁▁"
    assert sparkline([1, 2, 4]) == "▃▅█"


def test_rows_of_earlier_sessions_are_no_speed():
    """A run that resumes at a billion rows has not made them in its first second."""
    speed = Throughput()
    speed.take(Progress.before_the_survey(), at=0.0)
    speed.take(_in(Phase.LOADING, totals=Totals(rows_in=10**9)), at=1.0)
    assert speed.per_second() is None

    for second, rows in ((2, 0), (3, 7)):
        speed.take(_in(Phase.RUNNING, totals=Totals(rows_in=10**9 + rows)), at=float(second))
    assert speed.per_second() == 7


def test_lines_of_threads_are_never_glued_together():
    """`print` writes the line break by itself, and another thread may come between."""
    taken = []
    stream = WholeLines(io.StringIO(), lambda lines: taken.extend(lines.split("\n")))

    def half_a_line():
        stream.write("first")
        begun.set()
        assert go_on.wait(PATIENCE)
        stream.write(" and second half\n")

    begun, go_on = threading.Event(), threading.Event()
    thread = threading.Thread(target=half_a_line)
    thread.start()
    assert begun.wait(PATIENCE)
    stream.write("between\n")
    go_on.set()
    thread.join()

    assert taken == ["between", "first and second half"]


def test_a_log_handler_of_the_user_writes_through_too(monkeypatch):
    """`logging.basicConfig` keeps the stderr that it began with, and would write into the frame."""
    taken, before = [], io.StringIO()
    monkeypatch.setattr(sys, "stderr", before)
    theirs = logging.getLogger("theirs")
    theirs.addHandler(handler := logging.StreamHandler())
    try:
        stream = WholeLines.replacing("stderr", taken.append)
        theirs.error("while it is open")
        stream.give_back("stderr")
        theirs.error("after")
    finally:
        theirs.removeHandler(handler)

    assert taken == ["while it is open"]
    assert before.getvalue() == "after\n"
    assert sys.stderr is before


def test_json_in_python_ends_with_the_run(monkeypatch):
    """What the script prints later is its own."""
    stdout, stderr = io.StringIO(), io.StringIO()
    monkeypatch.setattr(sys, "stdout", stdout)
    monkeypatch.setattr(sys, "stderr", stderr)
    display = display_of("json")
    sys.stdout.write("while it runs\n")
    display.show(_in(Phase.RUNNING))
    display.close()
    sys.stdout.write("after\n")

    events = events_of(stderr.getvalue())
    assert [event["event"] for event in events] == ["output", "phase", "progress"]
    assert events[0]["text"] == "while it runs"
    assert stdout.getvalue() == "after\n"


def test_what_is_printed_becomes_an_event_without_secrets(monkeypatch):
    """Events go to the log store of a platform, which more people read than the spec."""
    stderr = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stderr)
    remember({"api_key": "hunter2-hunter2"})
    display = display_of("json")
    sys.stderr.write("connecting with hunter2-hunter2\n")
    display.close()

    (event,) = events_of(stderr.getvalue())
    assert event["text"] == "connecting with ***"


def test_a_print_does_not_raise_because_the_display_is_gone():
    """It would fail the row that printed."""

    def gone(lines):
        raise OSError(5, lines)

    stream = WholeLines(io.StringIO(), gone)

    assert stream.write("a line\nand half") == len("a line\nand half")
    stream.close()


def test_a_progress_bar_of_the_user_ends_as_its_last_state():
    """Tqdm overwrites itself with carriage returns, hundreds of times."""
    taken = []
    stream = WholeLines(io.StringIO(), taken.append)
    for share in range(5):
        stream.write(f"\r{share}0%")
    stream.write("\nnext")
    stream.close()

    assert taken == ["40%", "next"]


def test_colours_pass_and_nothing_else_steers():
    """What a capability prints may be coloured; it may not move the cursor out of its line."""
    assert in_colour("\x1b[31mred\x1b[0m \x1b[2Ax") == "\x1b[31mred\x1b[0m \\x1b[2Ax\x1b[0m"


@pytest.mark.parametrize(("columns", "up"), [(81, 2), (41, 4), (1_000, 2)])
def test_a_frame_that_the_terminal_has_broken_is_erased_whole(columns, up, monkeypatch):
    """Made narrower, a terminal breaks each line of 80 cells into two."""
    region = Region(io.StringIO())
    monkeypatch.setenv("COLUMNS", "200")
    region.draw([DrawnLine("x" * 80, 80), DrawnLine("y" * 80, 80)])
    monkeypatch.setenv("COLUMNS", str(columns))

    assert f"\x1b[{up}A" in region.erasing()


def test_plain_lines_come_with_each_phase_and_every_half_minute():
    """A log that is read later has neither a line a second nor an hour of silence."""
    now, stream = [0.0], io.StringIO()
    display = LineDisplay(stream, clock=lambda: now[0])
    for second in range(100):
        now[0] = float(second)
        display.show(Progress.before_the_survey() if second < 5 else _in(Phase.RUNNING))

    lines = stream.getvalue().splitlines()
    assert len(lines) == 1 + int(95 // LINE_SECONDS)
    assert all(line.startswith("running, ") for line in lines)


def test_a_mode_that_cannot_be_is_refused_with_those_that_can():
    """A typo must not be a run without progress."""
    with pytest.raises(InvalidSpecError, match=r"one of auto, live, plain, json, off"):
        display_of("bar")
    with pytest.raises(InvalidSpecError, match="use progress plain or json"):
        display_of("live")


def test_the_command_line_has_the_modes_of_python():
    """One list, in two places, since `--help` must not load what draws."""
    from batchrunner.cli.run import command

    (option,) = (p for p in command.params if p.name == "progress")
    assert tuple(option.type.choices) == MODES


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0, "0"),
        (0.25, "0.25"),
        (950, "950"),
        (9_999, "9,999"),
        (12_345, "12.3k"),
        (4_560_000, "4.56M"),
        (7.2e9, "7.2G"),
    ],
)
def test_numbers_are_short(number, text):
    """A figure that changes ten times a second has no room for digits that say nothing."""
    assert short(number) == text


def test_times_are_short():
    """As people say them."""
    assert [duration(s) for s in (42, 190, 7_500)] == ["42s", "3m10s", "2h05m"]


def test_a_fork_of_the_users_code_writes_to_the_stream_itself():
    """A child that drew the frame would draw it over that of its parent."""
    reads, writes = os.pipe()
    with os.fdopen(writes, "w") as file:
        stream = WholeLines(file, lambda lines: None)
        stream._process = -1  # as in a fork
        stream.write("half")
        stream.flush()
        assert os.read(reads, 10) == b"half"
    os.close(reads)


def test_stderrs_own_stream_lasts_until_the_process_ends_without_a_warning():
    """Python warns at its exit of each file that is still open and is closed only then."""
    code = "from batchrunner.views.own_stderr import own_stderr; print('drawn', file=own_stderr())"

    done = subprocess.run(
        [sys.executable, "-W", "always::ResourceWarning", "-c", code],
        stderr=subprocess.PIPE,
        text=True,
        check=True,
    )

    assert done.stderr == "drawn\n"


def test_no_display_means_none():
    """`progress=None` is what callers wrote before there was a live view."""
    assert isinstance(display_of(None), NoDisplay)
