"""`batchrunner init`: what it makes runs as its README says, pasted by a reader without a network."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from batchrunner.templates import rows
from batchrunner.templates.making import TEMPLATES
from command import ENVIRONMENT, batchrunner
from patience import PATIENCE

pytestmark = pytest.mark.long

ROOT = Path(__file__).parents[2]
_BLOCK = re.compile(r"^```bash\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_ON_RAY = {"demo", "parquet-s3", "images", "gpu"}
_BESIDE_A_SERVER = {"parquet-s3": "s3.py", "openai-batch": "server.py"}
"""Templates whose README is for a shell that a script of theirs starts."""
_PARTLY_BROKEN = {"jsonl": 3, "images": 1, "openai-batch": 1}
"""Templates with rows that fail, and how many."""


def made(name, folder):
    done = batchrunner("init", name, cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder / name


def contents(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def pasted(text, folder, *before):
    """Run *text* by a shell, with the commands of this Python, to its end."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {
        **ENVIRONMENT,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "OPENAI_BASE_URL": f"http://127.0.0.1:{port}/v1",
    }
    output = folder.parent / "output"  # a pipe would be kept open by what goes on in the background
    with output.open("w") as file:
        shell = subprocess.Popen(
            [*before, "bash", "-ec", text],
            cwd=folder,
            env=environment,
            stdout=file,
            stderr=subprocess.STDOUT,
            process_group=0,
        )
        try:
            code = shell.wait(2 * PATIENCE)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(shell.pid, signal.SIGKILL)
    return code, output.read_text()


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[pytest.mark.ray] * (name in _ON_RAY)) for name in TEMPLATES],
)
def test_what_is_made_is_killed_resumed_and_verified_as_its_readme_says(name, tmp_path):
    """A template that does not run costs a new user the first hour."""
    folder = made(name, tmp_path)
    (block,) = _BLOCK.findall((folder / "README.md").read_text())
    # A fast machine may be done before the kill.
    block = block.replace("kill -9 $!", "kill -9 $! || true")
    before = [sys.executable, _BESIDE_A_SERVER[name]] if name in _BESIDE_A_SERVER else []

    code, said = pasted(block, folder, *before)

    assert code == 0, said
    assert re.search(r"done: (\d+) of \1 shards committed", said), said
    assert re.search(r"^ok: ", said, re.MULTILINE), said
    assert (folder / f"{name}-report.html").stat().st_size > 1000
    if name != "parquet-s3":  # whose bucket is gone with its server
        assert (folder / "out/_SUCCESS").exists()
    assert f", {_PARTLY_BROKEN.get(name, 0)} failed" in said


def test_each_spec_is_valid_and_nothing_is_left_to_fill_in(tmp_path):
    """What is made is complete: it has no gap that only its author knows of."""
    for name in TEMPLATES:
        folder = made(name, tmp_path)
        done = batchrunner("validate", "spec.yaml", cwd=folder)
        assert done.returncode == 0, f"{name}: {done.stderr}"
        texts = [path.read_text() for path in folder.glob("*") if path.is_file()]
        assert not any(re.search(r"TODO|FIXME|XXX|lorem", text) for text in texts)
        assert (folder / "data").is_dir()


def test_the_list_names_every_template_that_is_shipped():
    """A template that no list names is found by no user; its spec is in `specs/`, too."""
    shipped = {path.parent.name for path in (ROOT / "batchrunner/templates").glob("*/spec.yaml")}
    linked = {path.stem: path.resolve() for path in (ROOT / "specs").glob("*.yaml")}
    index = (ROOT / "specs/README.md").read_text()

    assert shipped == set(TEMPLATES)
    for name, template in TEMPLATES.items():
        assert linked[name] == ROOT / f"batchrunner/templates/{name}/spec.yaml"
        assert f"| [{name}]({name}.yaml) | {template.summary} |" in index


def test_the_first_template_is_the_demo_and_the_next_lines_can_be_pasted(tmp_path):
    """`batchrunner init` alone is what a new user types."""
    done = batchrunner("init", cwd=tmp_path)

    assert done.returncode == 0
    assert done.stdout.splitlines() == ["cd demo", "cat README.md", "batchrunner run spec.yaml"]
    assert "3,000 functions" in done.stderr
    first = (tmp_path / "demo/data/functions-00.jsonl").read_text().splitlines()[0]
    assert json.loads(first) == next(rows.functions())


@pytest.mark.parametrize("folder", ["my folder", "-x", "it's"])
def test_the_lines_to_paste_survive_a_shell(tmp_path, folder):
    """A blank, a quote or a dash in a name is no word of its own, and no option."""
    done = [batchrunner("init", "jsonl", "--", folder, cwd=tmp_path) for _ in range(2)]
    enter = done[0].stdout.splitlines()[0]
    offered = shlex.split(done[1].stderr.splitlines()[0].partition("as in batchrunner ")[2])

    assert (0, 2) == (done[0].returncode, done[1].returncode)
    assert 0 == subprocess.call(["/bin/sh", "-c", enter], cwd=tmp_path)
    assert 0 == batchrunner(*offered, cwd=tmp_path).returncode
    assert {folder, f"{folder}-2"} == {path.name for path in tmp_path.iterdir()}


@pytest.mark.parametrize("name", [name for name, one in TEMPLATES.items() if one.start])
def test_the_next_lines_start_the_server_that_the_spec_needs(tmp_path, name):
    """Without it, the first run of a new user fails."""
    done = batchrunner("init", name, cwd=tmp_path)
    start = TEMPLATES[name].start

    assert [f"cd {name}", "cat README.md", start, "batchrunner run spec.yaml"] == (
        done.stdout.splitlines()
    )
    assert start in (tmp_path / name / "README.md").read_text()


def test_a_file_that_is_there_is_never_overwritten(tmp_path):
    """It may be a day's work; and the refusal leaves no half of a template either."""
    (tmp_path / "jobs").mkdir()
    (tmp_path / "jobs/caps.py").write_text("mine\n")

    done = batchrunner("init", "jsonl", "jobs", cwd=tmp_path)

    assert done.returncode == 2
    assert "jobs/caps.py exists already, and nothing was written" in done.stderr
    assert "batchrunner init jsonl jobs-2" in done.stderr
    assert contents(tmp_path) == {tmp_path / "jobs/caps.py": b"mine\n"}


def test_a_folder_with_other_files_is_filled(tmp_path):
    """As a repository that was cloned a moment ago."""
    (tmp_path / ".git").mkdir()

    done = batchrunner("init", "jsonl", ".", cwd=tmp_path)

    assert done.returncode == 0, done.stderr
    assert "cd" not in done.stdout
    assert {p.name for p in tmp_path.iterdir()} == {
        ".git",
        "README.md",
        "caps.py",
        "data",
        "spec.yaml",
    }


@pytest.mark.parametrize(
    ("typed", "code", "said"),
    [
        (["demmo"], 2, "did you mean demo?"),
        (["my-folder"], 2, "there are demo, jsonl,"),
        (["demo", "file"], 2, "file exists already"),
        (["demo", "file/below"], 3, "file/below: the template cannot be written"),
        (["demo", "a" * 300], 3, "the template cannot be written (File name too long)"),
    ],
)
def test_what_cannot_be_made_is_refused_with_the_way_out(typed, code, said, tmp_path):
    """Without a traceback, and without a trace."""
    (tmp_path / "file").write_text("mine\n")

    done = batchrunner("init", *typed, cwd=tmp_path)

    assert done.returncode == code, done.stderr
    assert said in done.stderr
    assert "batchrunner init demo" in done.stderr
    assert "Traceback" not in done.stderr
    assert contents(tmp_path) == {tmp_path / "file": b"mine\n"}
