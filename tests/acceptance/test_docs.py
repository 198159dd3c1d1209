r"""What the documentation says is what happens: its blocks are run, its specs are checked.

The words behind a block's language say what is done with it: `file=NAME` writes it, `run` runs it
(`exit=N`: and expects that code; `background`: and leaves it running), `check` reads it as a spec.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from batchrunner import BatchSpec
from builders import read_part
from command import ENVIRONMENT, batchrunner
from job_processes import kill_with_all_below

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
_BLOCK = re.compile(r"^```(\w+)([^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(page):
    return [(lang, words.split(), text) for lang, words, text in _BLOCK.findall(page.read_text())]


PAGES_WITH_CODE = [page for page in PAGES if any(words for _, words, _ in blocks(page))]


@pytest.fixture
def place(tmp_path):
    """A folder with a source in it and the command on the path."""
    (tmp_path / "bin").mkdir()
    command = tmp_path / "bin/batchrunner"
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m batchrunner "$@"\n')
    command.chmod(0o755)
    work = tmp_path / "work"
    work.mkdir()
    (work / "prompts.jsonl").write_text('{"id": 1, "text": "hello"}\n')
    yield work
    for process in [_background.pop() for _ in list(_background)]:
        kill_with_all_below(process)
        process.wait()


_background = []


def run(command, place, *, background=False):
    environment = {**ENVIRONMENT, "PATH": f"{place.parent}/bin{os.pathsep}{os.environ['PATH']}"}
    if background:
        nowhere = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        _background.append(subprocess.Popen(command, cwd=place, env=environment, **nowhere))
        return subprocess.CompletedProcess(command, 0)
    return subprocess.run(
        command, cwd=place, env=environment, capture_output=True, text=True, check=False
    )


def do(language, words, text, place):
    options = dict(word.partition("=")[::2] for word in words)
    if "file" in options:
        (place / options["file"]).write_text(text)
    if "check" in options:
        BatchSpec.from_text(text, origin="docs", environ={"ACCESS_KEY": "a", "SECRET_KEY": "b"})
    if "run" in options:
        shell = ["bash", "-ec", text] if language == "bash" else [sys.executable, "-c", text]
        done = run(shell, place, background="background" in options)
        assert done.returncode == int(options.get("exit", 0)), done.stdout + done.stderr


@pytest.mark.ray
@pytest.mark.parametrize(
    "page", PAGES_WITH_CODE, ids=lambda page: page.relative_to(ROOT).as_posix()
)
def test_the_blocks_of_a_page_do_what_they_say(page, place):
    """Whoever copies them gets what the page promises."""
    for language, words, text in blocks(page):
        do(language, words, text, place)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_between_pages_lead_somewhere(page):
    """A page that was moved leaves no dead ends."""
    links = re.findall(r"\]\((?!https?://|#)([^)#]+)", page.read_text())

    assert [link for link in links if not (page.parent / link).exists()] == []


def test_the_reference_is_what_the_code_says():
    """`make docs` was not forgotten."""
    done = subprocess.run(
        [sys.executable, "docs/generate.py", "--check"],
        cwd=ROOT,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stderr


@pytest.mark.ray
def test_every_spec_of_the_repository_runs(tmp_path):
    """In a copy of what they need, from beginning to end."""
    (tmp_path / ".demo/functions").mkdir(parents=True)
    (tmp_path / "demo").symlink_to(ROOT / "demo")
    row = '{"module": "m", "function": "f", "docstring": "Do it.", "source": "def f(): pass"}\n'
    (tmp_path / ".demo/functions/one.jsonl").write_text(row)
    specs = sorted((ROOT / "specs").glob("*.yaml"))

    for spec in specs:
        done = batchrunner("run", spec, cwd=tmp_path)
        assert done.returncode == 0, f"{spec}: {done.stderr}"

    parts = sorted((tmp_path / ".demo").glob("*/part-*"))
    assert len(parts) == len(specs)
    assert all(read_part(part) for part in parts)


@pytest.mark.ray
def test_the_demo_ends_well():
    """`make demo` is the first thing that anyone tries."""
    done = subprocess.run(
        [sys.executable, "demo/demo.py"],
        cwd=ROOT,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stdout + done.stderr
    assert "the same, byte for byte" in done.stdout
    assert "kill -9" in done.stdout
