"""The benchmarks: they run, and no number in their README was written by hand."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from command import ENVIRONMENT, TESTS
from patience import PATIENCE

CHECKOUT = TESTS.parent


def module(*arguments):
    return subprocess.run(
        [sys.executable, "-m", *map(str, arguments)],
        check=False,
        cwd=CHECKOUT,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )


@pytest.mark.sweep
def test_a_tiny_workload_leaves_every_measurement_and_a_page(tmp_path):
    """A reader who doubts a number finds what it is the median of, and on which machine."""
    results = tmp_path / "results"

    done = module(
        *("benchmarks", "--only", "noop", "--scale", 0.001, "--repeats", 2, "--out", results)
    )

    assert done.returncode == 0, done.stderr
    kept = json.loads((results / "noop.json").read_text())
    assert [len(standing["seconds"]) for standing in kept["standings"]] == [2, 2]
    assert all(one["min"] <= one["median"] <= one["max"] for one in kept["standings"])
    assert {(goal["text"].partition(":")[0], goal["met"]) for goal in kept["goals"]} >= {
        ("how often Ray is imported", True)
    }
    assert kept["machine"]["cpus"] > 0
    assert {"python", "ray", "batchrunner"} <= kept["versions"].keys()
    page = (tmp_path / "README.md").read_text()
    assert f"{kept['standings'][1]['median']:.2f}" in page
    assert "At 0.001 of its size" in page


def test_the_readme_is_what_the_results_say():
    """A number that was improved by hand would be found here."""
    page = module("benchmarks.readme", "benchmarks/results")

    assert page.returncode == 0, page.stderr
    assert page.stdout == (CHECKOUT / "benchmarks/README.md").read_text()


def test_the_facts_of_a_package_are_those_of_its_files(tmp_path):
    """The house is judged by these numbers before and after its rooms are moved."""
    package = tmp_path / "house"
    files = {
        "__init__.py": "from house.hall import greet\n",
        "hall.py": "from house.cellar.wine import fetch\ndef greet(): return fetch(fetch)\n",
        "cellar/wine.py": "# Nobody drinks alone.\nclass _Row: ...\ndef fetch(): _once()\n",
        "cellar/wines.py": "from house.cellar import wine\nclass Row: ...\ndef _once(): ...\n",
    }
    for name, text in files.items():
        (package / name).parent.mkdir(parents=True, exist_ok=True)
        (package / name).write_text(text)

    done = module("benchmarks.house", package)

    assert done.returncode == 0, done.stderr
    lines = [line.strip("|").split("|") for line in done.stdout.splitlines() if "|" in line]
    facts = {name.strip(): figure.strip() for name, figure in lines[2:]}
    assert facts["rooms"] == "3"
    assert facts["imports between rooms"] == "2"
    assert facts["functions with one call site"] == "1"
    assert facts["lines with whoever, somebody, nobody, anybody"] == "1"
    assert facts["class names in more than one module"] == "1"
    assert facts["module names of one room, 2 letters apart"] == "1"
