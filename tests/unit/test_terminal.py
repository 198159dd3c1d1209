"""What reaches a terminal: nothing that steers it, and no table that is wider than it."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from batchrunner.cli.rendering import Column, cells_of, fitted
from batchrunner.cli.terminal import harmless, on_one_line

CLI = Path(__file__).parents[2] / "batchrunner" / "cli"
WIDTHS = (60, 80, 140, 190)


@pytest.mark.parametrize(
    "steering",
    [
        "\x1b]52;c;aGk=\x07",
        "\x1b[2J",
        "done\rfake",
        "\x9b2J",
        "\u202egnp.exe",
        "\u2066x\u2069",
        "\x7f",
        "\u2028",
        "\x85",
        "\x00",
        "\udcff",
        "\u200b",
    ],
)
def test_what_steers_a_terminal_is_shown_as_an_escape(steering):
    """Clipboard, cursor, line ends, the direction of text: the author of a row controls none of them."""
    shown = harmless(f"a {steering} b")

    assert shown.isprintable()
    assert "\\" in shown
    shown.encode()  # also what is no text


@pytest.mark.parametrize("text", ["naïve 漢字\u3000\xa0x", "a\n\tb", "👩\u200d🚀", "ب\u200cپ", ""])
def test_text_of_any_script_stays_as_it_is(text):
    """Who reads Persian or Japanese is no attacker."""
    assert harmless(text) == text


def test_a_cell_is_one_line():
    """A line break in a message would pass for another row."""
    assert on_one_line("a\nb\tc") == "a\\nb\\tc"


def test_every_word_goes_through_the_one_door():
    """A message that is printed elsewhere is not made harmless."""
    for path in {*CLI.glob("*.py")} - {CLI / "terminal.py"}:
        calls = [n.func for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.Call)]
        names = {getattr(called, "attr", getattr(called, "id", None)) for called in calls}
        assert not names & {"echo", "secho", "print"}, path.name


def a_table():
    """Like that of `runs list`: an id, times, names, a path, counts, and wide characters."""
    uid = "4fb1a0c2d3e4f5061728394a5b6c7d8e"
    return [
        Column("run uid", [uid, uid[::-1]], rigid=True),
        Column("capability id", ["evals.accuracy.TopOneAccuracy", "x"]),
        Column("created at", ["2026-11-27T03:01:02.123456+00:00"] * 2),
        Column("datasets", ["漢字" * 30, "cifar"]),
        Column("uri", ["s3://bucket/a/very/long/prefix/part-00001.jsonl", "-"]),
        Column("rows", ["1,234,567", "3"], rigid=True),
    ]


@pytest.mark.parametrize("width", WIDTHS)
def test_each_row_is_one_line_of_the_terminal(width):
    """Rows that wrap cannot be read; an id that is cut cannot be used."""
    lines, left_out = fitted(a_table(), width=width, first_to_go=("uri", "datasets"))

    assert len(lines) == 3
    assert max(map(cells_of, lines)) <= width
    assert "4fb1a0c2d3e4f5061728394a5b6c7d8e" in lines[1]
    assert left_out[:1] in ([], ["uri"])


def test_more_room_shows_more():
    """Columns are left out in the order that was asked for, and come back."""
    gone = [fitted(a_table(), width=w, first_to_go=("uri", "datasets"))[1] for w in WIDTHS]

    assert [len(names) for names in gone] == sorted((len(n) for n in gone), reverse=True)
    assert gone[0][:2] == ["uri", "datasets"]
    assert gone[-1] == []


def test_of_a_path_the_end_is_kept():
    """The name of the file says more than the bucket."""
    lines, _ = fitted(a_table()[4:], width=40)

    assert lines[1].startswith("…")
    assert "/part-00001.jsonl" in lines[1]


@pytest.mark.parametrize("width", [None, 500])
def test_where_there_is_room_nothing_is_cut(width):
    """What goes into a file or a pipe is whole."""
    lines, left_out = fitted(a_table(), width=width)

    assert left_out == []
    assert not any("…" in line for line in lines)


def test_an_id_wider_than_the_terminal_is_whole_and_alone():
    """Half of it would be of no use."""
    lines, left_out = fitted(a_table(), width=10)

    assert lines[1] == "4fb1a0c2d3e4f5061728394a5b6c7d8e"
    assert len(left_out) == 5
