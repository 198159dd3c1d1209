"""The live view in a real terminal: what a person sees, and how the terminal is left."""

from __future__ import annotations

import re
import signal
import sys

import pytest

from builders import a_source
from command import a_spec_file
from emulator import Terminal

pytestmark = pytest.mark.long

ROWS = 60
FRAME = re.compile(r"rows/s|━|─|shards  |█")


@pytest.fixture
def on_terminal(request):
    """Start commands on terminals that are gone after the test."""

    def start(*arguments, **how):
        terminal = Terminal(*arguments, **how)
        request.addfinalizer(terminal.close)
        return terminal

    return start


def a_job(folder, *, capability="prints_from_threads", engine="local"):
    """Twelve shards, and a capability that waits for the file `go` before its last row."""
    a_source(folder / "in", shards=12, rows_per_shard=ROWS // 12)
    a_spec_file(
        folder,
        capability={
            "target": f"capabilities:{capability}",
            "fn_kwargs": {"path": str(folder / "go")},
        },
        execution={"engine": engine, "batch_size": 1},
    )
    return folder


def has_bars(terminal):
    shards = any(re.match(r"shards  [━─~]+ \d+ of 12$", line) for line in terminal.screen)
    rows = any(re.match(r"rows    [━─]+ .*\d%", line) for line in terminal.screen)
    return shards and rows


@pytest.mark.parametrize("columns", [80, 140])
def test_every_line_is_above_the_frame_and_whole(tmp_path, on_terminal, columns):
    """A log line that is broken by a bar is not read; one that is lost was the one that mattered."""
    terminal = on_terminal("run", "spec.yaml", cwd=a_job(tmp_path), columns=columns, lines=30)

    terminal.until("printed 58 by").until(has_bars)
    (tmp_path / "go").touch()

    assert terminal.end() == 0
    for row in range(ROWS):
        for who in "abc":
            assert f"printed {row} by {who} to its end" in terminal.scrolled
    whole = "".join(f"{line:<{columns}}" for line in terminal.scrolled)
    for row in range(ROWS):
        assert f"logged {row} {'word ' * 40}to its end" in whole


@pytest.mark.ray
@pytest.mark.parametrize("columns", [80, 140])
def test_ray_is_shown_from_its_start_to_the_last_shard(tmp_path, on_terminal, columns):
    """The minute in which a cluster starts and a model loads is the one that people doubt."""
    job = a_job(tmp_path, engine="ray")
    terminal = on_terminal("-v", "run", "spec.yaml", cwd=job, columns=columns, lines=30)

    terminal.until("starting Ray").until("loading the capability").until(has_bars)
    terminal.until(lambda t: any(re.search(r"workers [12]/[12] busy", line) for line in t.screen))
    (tmp_path / "go").touch()

    assert terminal.end() == 0
    shown = terminal.scrolled
    assert not [line for line in shown if FRAME.search(line)]
    for event in ("session_started epoch=1 ", "plan_made shards=12 pending=12", "session_ended "):
        assert any(line.startswith(event) for line in shown)


def test_an_ascii_terminal_keeps_one_frame_and_every_line(tmp_path, on_terminal):
    """In a minimal container `LC_ALL` is C: there, too, a log line goes above the frame."""
    ascii_only = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    terminal = on_terminal("run", "spec.yaml", cwd=a_job(tmp_path), lines=30, **ascii_only)
    bars = r"shards  [#~-]+ \d+ of 12$"
    terminal.until("logged 59").until(lambda t: any(re.match(bars, line) for line in t.screen))

    assert sum(line.startswith("running ") for line in terminal.screen) == 1
    assert "\\x" not in "".join(terminal.screen)
    (tmp_path / "go").touch()
    assert terminal.end() == 0
    assert not [line for line in terminal.scrolled if re.match("running |shards  ", line)]


def test_the_screen_is_clean_at_the_end(tmp_path, on_terminal):
    """The frame is for now: what stays is the report, and the cursor below it."""
    terminal = on_terminal("run", "spec.yaml", cwd=a_job(tmp_path))
    terminal.until("running")
    (tmp_path / "go").touch()

    assert terminal.end() == 0
    shown = terminal.scrolled
    assert not [line for line in shown if FRAME.search(line)]
    assert any(line.startswith("done: 12 of 12 shards committed") for line in shown)
    assert not terminal.emulator.cursor.hidden
    assert terminal.emulator.cursor.x == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_signal_leaves_the_cursor(tmp_path, on_terminal, number):
    """A shell without a cursor is what is remembered of a tool."""
    terminal = on_terminal("run", "spec.yaml", cwd=a_job(tmp_path, capability="waits_for_a_file"))
    terminal.until("running").until(" of 12")
    terminal.signal(number)

    assert terminal.end() in (128 + number, -number)
    assert not terminal.emulator.cursor.hidden
    assert b"\x1b[?25l" not in terminal.raw


def bars_of(terminal):
    return [line for line in terminal.screen if line.startswith("shards  ")]


def test_ctrl_z_leaves_a_clean_screen_and_fg_draws_again(tmp_path, on_terminal):
    """The shell writes its prompt where the cursor is; the frame must not be there, nor eat it later."""
    command = f"{sys.executable} -m batchrunner run spec.yaml"
    script = f"set -m; {command}; echo it is $?; read; fg; echo it was $?"
    job = a_job(tmp_path, capability="waits_for_a_file")
    terminal = on_terminal(cwd=job, script=script)
    terminal.until(has_bars)
    terminal.press(b"\x1a")
    terminal.until("it is 1")
    assert not bars_of(terminal)
    assert not terminal.emulator.cursor.hidden

    terminal.press(b"\n")
    terminal.until(has_bars)
    (tmp_path / "go").touch()

    terminal.end()
    assert not [line for line in terminal.scrolled if FRAME.search(line)]
    assert any("it is 1" in line for line in terminal.scrolled)
    assert any(line.endswith("it was 0") for line in terminal.scrolled)


@pytest.mark.parametrize("columns", [40, 60, 160])
def test_a_terminal_of_another_size_gets_one_whole_frame(tmp_path, on_terminal, columns):
    """Resized in the middle of a run, the view fits again, and no old one stays behind."""
    job = a_job(tmp_path, capability="waits_for_a_file")
    terminal = on_terminal("run", "spec.yaml", cwd=job, columns=100)
    terminal.until(has_bars)
    before = len(bars_of(terminal)[0])
    terminal.resize(columns, 24)
    terminal.until(lambda t: bars_of(t) and len(bars_of(t)[0]) != before and has_bars(t))

    assert len(bars_of(terminal)) == 1
    (tmp_path / "go").touch()
    assert terminal.end() == 0


def test_few_lines_are_enough(tmp_path, on_terminal):
    """A pane of five lines shows the phase and the bars, and never scrolls itself away."""
    job = a_job(tmp_path, capability="waits_for_a_file")
    terminal = on_terminal("run", "spec.yaml", cwd=job, lines=5)
    terminal.until(has_bars)
    assert len(terminal.scrolled) == 5
    (tmp_path / "go").touch()
    assert terminal.end() == 0


def test_no_color_means_no_colour(tmp_path, on_terminal):
    """Glyphs say the same; https://no-color.org."""
    terminal = on_terminal("run", "spec.yaml", cwd=a_job(tmp_path), NO_COLOR="1")
    terminal.until("printed 58 by").until(
        lambda t: any(set(line) <= set("█~·") and "~" in line for line in t.screen)
    )
    (tmp_path / "go").touch()

    assert terminal.end() == 0
    assert not re.search(rb"\x1b\[(\d+;)*(3|4|9|10)\d[;m]", terminal.raw)  # bold may stay


def test_a_terminal_that_cannot_draw_gets_plain_lines(tmp_path, on_terminal):
    """In the shell of an editor, codes would be letters."""
    job = a_job(tmp_path, capability="waits_for_a_file")
    terminal = on_terminal("run", "spec.yaml", cwd=job, TERM="dumb")
    terminal.until("running, 0/12 shards")
    (tmp_path / "go").touch()

    assert terminal.end() == 0
    assert b"\x1b" not in terminal.raw
    assert b"Ray" not in terminal.raw  # the engine is the local one


SCRIPT = """
import logging
logging.basicConfig(format="their log: %(message)s")
from batchrunner import BatchRunner, BatchSpec
report = BatchRunner(BatchSpec.from_yaml("spec.yaml")).run()
print("after:", report.ok)
"""


def test_python_shows_the_same_without_being_asked(tmp_path, on_terminal):
    """The first run of a newcomer is in Python, and a log set up before it stays whole."""
    job = a_job(tmp_path)
    (job / "script.py").write_text(SCRIPT)
    terminal = on_terminal(cwd=job, script=f"{sys.executable} script.py", lines=30)
    terminal.until("their log: logged 58").until(has_bars)
    (tmp_path / "go").touch()

    assert terminal.end() == 0
    shown = terminal.scrolled
    assert not [line for line in shown if FRAME.search(line)]
    assert "after: True" in shown
    whole = "".join(f"{line:<80}" for line in shown)
    for row in range(ROWS):
        assert f"their log: logged {row} {'word ' * 40}to its end" in whole


@pytest.mark.ray
def test_python_leaves_nothing_of_the_start_of_ray(tmp_path, on_terminal):
    """Descriptor 2 is captured meanwhile: frames written to it would come out above the view."""
    job = a_job(tmp_path, capability="waits_for_a_file", engine="ray")
    (job / "script.py").write_text(SCRIPT)
    terminal = on_terminal(cwd=job, script=f"{sys.executable} script.py", lines=30)
    terminal.until("starting Ray").until("loading the capability").until(has_bars)
    (tmp_path / "go").touch()

    assert terminal.end() == 0
    assert not [line for line in terminal.scrolled if FRAME.search(line) or "Ray" in line]
