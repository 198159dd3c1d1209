"""The command on a terminal, over rows, names and messages of an attacker."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import sys

import pytest

from batchrunner.analytics import open_store
from batchrunner.testing.analytics_contract import a_run
from command import ENVIRONMENT, a_spec_file, batchrunner
from patience import PATIENCE

CLIPBOARD, CLEAR, TURNED = "\x1b]52;c;aGk=\x07", "\x1b[2J", "\u202e"
HARM = f"{CLIPBOARD}{CLEAR}\rdone{TURNED}\x9b2J"
CAPABILITY = """
import logging
def refuse(rows):
    logging.getLogger("theirs").warning("looking at %s", rows[0]["text"])
    raise ValueError(rows[0]["text"])
"""


@pytest.fixture(scope="module")
def harmful(tmp_path_factory):
    """A run whose rows, file name, tags, spec name and messages hold what steers terminals."""
    folder = tmp_path_factory.mktemp("harmful")
    (folder / "refusing.py").write_text(CAPABILITY)
    (folder / "in").mkdir()
    (folder / "in" / f"a{CLIPBOARD}{TURNED}.jsonl").write_text(json.dumps({"text": HARM}) + "\n")
    (folder / "in" / "b.jsonl").write_text('{"text": "' + CLEAR + "\n")
    a_spec_file(folder, capability="refusing:refuse", tags={"why": HARM})
    spec = (folder / "spec.yaml").rename(folder / f"s{CLEAR}{TURNED}.yaml")
    batchrunner("run", spec.name, cwd=folder)
    return folder


LINES = [
    ["run", "--fresh", "-v"],
    ["plan"],
    ["errors"],
    ["errors", "--rows"],
    ["status"],
    ["verify"],
    ["validate"],
]


def test_nothing_that_is_not_ours_steers_the_terminal(harmful):
    """Rows and the names of files come from strangers; the operator's clipboard is none of theirs."""
    (spec,) = (path.name for path in harmful.glob("*.yaml"))
    for line in LINES:
        done = batchrunner(*line, spec, cwd=harmful, COLUMNS="80")
        for said in (done.stdout, done.stderr):
            steering = {char for char in said if not char.isprintable() and char != "\n"}
            assert steering == set(), (line, said)

    shown = batchrunner("errors", "--rows", spec, cwd=harmful).stdout
    assert r"ValueError" in shown
    assert r"\x1b]52;c;aGk=\x07\x1b[2J\rdone\u202e\x9b2J" in shown


def test_json_holds_every_character_as_it_is(harmful):
    """A program gets what was there: JSON has escapes of its own."""
    (spec,) = (path.name for path in harmful.glob("*.yaml"))

    dead_letters = json.loads(
        batchrunner("errors", "--rows", spec, "-o", "json", cwd=harmful).stdout
    )

    assert HARM in {dead_letter["message"] for dead_letter in dead_letters}


def on_a_terminal(*arguments, cwd, columns, code=0, **environment):
    """Stdout and stderr of the command, on a terminal of so many columns."""
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-m", "batchrunner", *arguments],
        cwd=cwd,
        env={**ENVIRONMENT, "COLUMNS": str(columns), **environment},
        stdout=theirs,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        os.close(theirs)
        said = b""
        try:
            while more := os.read(ours, 65536):
                said += more
        except OSError:  # EIO: the other side is closed
            pass
        os.close(ours)
        stderr = process.stderr.read()
        assert process.wait(PATIENCE) == code, stderr
    return said.decode().replace("\r\n", "\n"), stderr


@pytest.mark.parametrize("columns", [60, 80, 140])
def test_the_list_of_runs_fits_the_terminal(tmp_path, columns):
    """At 190 columns it wrapped into mush on every ordinary terminal."""
    uids = [f"run-{number}-4fb1a0c2d3e4f5061728" for number in range(3)]
    open_store(tmp_path / "store").write([a_run(uid) for uid in uids])

    shown, said = on_a_terminal(
        "runs", "list", cwd=tmp_path, columns=columns, BATCHRUNNER_STORE=str(tmp_path / "store")
    )

    lines = shown.splitlines()
    assert len(lines) == 4
    assert max(map(len, lines)) <= columns
    assert {line.split()[0] for line in lines[1:]} == set(uids)
    assert ("no room for: " in said) is (columns < 140)


def test_what_goes_into_a_pipe_is_whole(tmp_path):
    """`| grep` sees every character of every column."""
    open_store(tmp_path / "store").write([a_run("run-" + "x" * 300)])
    store = str(tmp_path / "store")

    done = batchrunner("runs", "list", cwd=tmp_path, COLUMNS="60", BATCHRUNNER_STORE=store)

    assert "run-" + "x" * 300 in done.stdout
    assert "cifar, mnist" in done.stdout
    assert "…" not in done.stdout


def test_csv_on_a_terminal_steers_nothing(harmful):
    """It is for programs, but here a person looks."""
    (spec,) = (path.name for path in harmful.glob("*.yaml"))

    shown, _ = on_a_terminal("errors", "--rows", spec, "-o", "csv", cwd=harmful, columns=80)

    assert "message" in shown
    assert {char for char in shown if not char.isprintable()} == {"\n"}


@pytest.mark.parametrize("what", [[], ["--rows"]])
def test_on_a_narrow_terminal_each_failure_has_what_is_needed_to_mend_it(tmp_path, what):
    """A table has no room for it at 80 columns: the line of the code was cut away."""
    (tmp_path / "refusing.py").write_text(CAPABILITY)
    (tmp_path / "in").mkdir()
    row = json.dumps({"text": "no such colour", "more": "x" * 200})
    (tmp_path / "in" / "rows.jsonl").write_text(row + "\n")
    a_spec_file(tmp_path, capability="refusing:refuse")
    batchrunner("run", "spec.yaml", cwd=tmp_path)

    shown, said = on_a_terminal("errors", *what, "spec.yaml", cwd=tmp_path, columns=80)

    heading, code, where, example = shown.splitlines()
    assert "ValueError: no such colour" in heading
    assert (code.split()[0], code.endswith("/refusing.py:5")) == ("code", True)
    assert where.endswith("in/rows.jsonl, byte 0")
    assert (example.split()[0], example[-1], len(example)) == ("row", "…", 80)
    assert '{"text": "no such colour"' in example
    assert "no room for" not in said


def test_the_checklist_fits_the_terminal_and_ends_with_the_next_line(tmp_path):
    """`packag/e`: at 80 columns the terminal broke the words."""
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "rows.jsonl").write_text('{"id": 1}\n')
    capability = "a_module_that_is_not_there_and_has_a_name_of_many_words:function"
    a_spec_file(tmp_path, capability=capability)

    shown, said = on_a_terminal("doctor", "spec.yaml", cwd=tmp_path, columns=80, code=3)

    lines = re.sub(r"\x1b\[\d*m", "", shown).splitlines()
    assert "1 file, 10 bytes" in " ".join(" ".join(lines).split())
    words = [line[24:] for line in lines]
    assert [text for text in words if len(text) > 80 - 24 and " " in text] == []
    assert said.splitlines()[-1] == (
        "next: mend what fails, as its line says, then batchrunner doctor spec.yaml"
    )
