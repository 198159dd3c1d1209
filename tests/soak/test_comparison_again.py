"""The comparison with others is made again, small, and ends as the kept results say."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from benchmarks.comparison.tables import RESULTS
from command import ENVIRONMENT, TESTS

NAMES = ["batchrunner", "datatrove", "Daft, overwrite"]


def ends(results):
    """Whether it failed, and which flaws the output has, by contestant and scenario."""
    return {
        (one["name"], key): (
            bool(outcome["exit_code"]),  # of an error, Daft ends with 1 or aborts
            bool(outcome["found"]["lost"]),
            bool(outcome["found"]["doubled"]),
            bool(outcome["found"]["old"] and outcome["found"]["new"]),
        )
        for one in results["contestants"]
        if one["name"] in NAMES
        for key, outcome in one["outcomes"].items()
    }


@pytest.mark.soak
def test_the_comparison_can_be_made_again(tmp_path):
    """A claim about others that cannot be made again is hearsay."""
    out = tmp_path / "comparison.json"
    line = ["benchmarks.comparison", "--only", "; ".join(NAMES), "--scale", "0.25", "--out", out]

    done = subprocess.run(
        [sys.executable, "-m", *map(str, line)],
        check=False,
        cwd=TESTS.parent,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
    )

    assert done.returncode == 0, done.stderr
    assert ends(json.loads(out.read_text())) == ends(json.loads(RESULTS.read_text()))
