"""The wheel that `make wheel` builds holds all that a new user needs, without the clone."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from command import batchrunner

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory):
    """A folder with what the wheel holds; the packages that it needs are those of this Python."""
    folder = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "wheel", "--no-deps", "--wheel-dir", folder, ROOT], check=True)
    (wheel,) = folder.glob("batchrunner-*.whl")
    zipfile.ZipFile(wheel).extractall(folder / "unpacked")
    return folder / "unpacked"


@pytest.mark.long
def test_a_first_batch_runs_from_the_wheel_alone(unpacked, tmp_path):
    """What is no Python file (templates, the page of a report) is easily left out of a wheel."""
    (tmp_path / "where.py").write_text(
        "import batchrunner\n\n\ndef where(rows):\n    return [{'file': batchrunner.__file__}]\n"
    )
    lines = (
        ["init", "jsonl", "."],
        ["run", "spec.yaml"],
        ["verify", "spec.yaml"],
        ["report", "spec.yaml"],
    )
    for line in lines:
        done = batchrunner(*line, cwd=tmp_path, PYTHONPATH=str(unpacked))
        assert done.returncode == 0, done.stderr

    (tmp_path / "spec.yaml").write_text(
        "{capability: where:where, source: data, sink: out2, execution: {engine: local}}"
    )
    assert batchrunner("run", "spec.yaml", cwd=tmp_path, PYTHONPATH=str(unpacked)).returncode == 0
    assert str(unpacked) in (tmp_path / "out2/part-00000.jsonl").read_text()
