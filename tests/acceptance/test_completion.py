"""Completion, in a real bash: commands, options and specs, without a wait."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from command import ENVIRONMENT, batchrunner

_TYPED = """
eval "$(batchrunner completion bash)"
COMP_WORDS=({words}); COMP_CWORD={last}
_batchrunner_completion batchrunner
printf '%s\\n' "${{COMPREPLY[@]}}"
"""
_HEAVY = ("ray", "pandas", "pyarrow", "s3fs", "fsspec", "pydantic", "yaml", "rich")


def completed(*words, cwd):
    """What bash offers for the last of *words*."""
    text = _TYPED.format(words=" ".join(f"'{word}'" for word in words), last=len(words) - 1)
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    done = subprocess.run(
        ["/bin/bash", "-c", text],
        cwd=cwd,
        env={**ENVIRONMENT, "PATH": path},
        capture_output=True,
        text=True,
        check=True,
    )
    assert not done.stderr, done.stderr
    return done.stdout.split()


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        (["batchrunner", "doc"], ["doctor"]),
        (["batchrunner", "jobs", "sub"], ["submit"]),
        (["batchrunner", "run", "--fre"], ["--fresh"]),
        (["batchrunner", "init", "par"], ["parquet-s3"]),
        (["batchrunner", "run", ""], ["jobs/nightly.yaml", "one.yaml", "two.yml"]),
        (["batchrunner", "validate", "one.yaml", "t"], ["two.yml"]),
        (["batchrunner", "status", "jobs/"], ["jobs/nightly.yaml"]),
    ],
)
def test_bash_offers_what_can_stand_there(words, offered, tmp_path):
    """Commands, options, templates, and the specs here and one folder down."""
    (tmp_path / "jobs").mkdir()
    for name in ("one.yaml", "two.yml", "rows.jsonl", "jobs/nightly.yaml", "evil\x1b.yaml"):
        (tmp_path / name).write_text("")

    assert completed(*words, cwd=tmp_path) == offered


def test_completion_imports_nothing_heavy(tmp_path):
    """A user waits for it between two keys."""
    line = [sys.executable, "-X", "importtime", Path(sys.executable).with_name("batchrunner")]
    done = subprocess.run(
        line,
        cwd=tmp_path,
        env={
            **ENVIRONMENT,
            "COMP_WORDS": "batchrunner run s",
            "COMP_CWORD": "2",
            "_BATCHRUNNER_COMPLETE": "bash_complete",
        },
        capture_output=True,
        text=True,
        check=True,
    )
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}

    assert "click.shell_completion" in imported
    assert not imported & set(_HEAVY)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_each_shell_gets_its_script(shell, tmp_path):
    """To be evaluated in the file that the shell reads when it starts."""
    done = batchrunner("completion", shell, cwd=tmp_path)

    assert done.returncode == 0
    assert f"_BATCHRUNNER_COMPLETE={shell}_complete" in done.stdout
