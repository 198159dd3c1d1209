"""Every test is in exactly one tier, and every tier is run by exactly one command."""

from __future__ import annotations

import itertools
import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

from tiers import LOCAL, SERVERS, SOAK, TIERS, UNIT, marks_of, tier_of

ROOT = Path(__file__).parents[2]
FOLDERS = ("unit", "contracts", "integration", "acceptance", "soak")
MARKS = ("ray", "s3", "browser", "sweep", "smoke", "soak")
SETS_OF_MARKS = [set(c) for n in range(len(MARKS) + 1) for c in itertools.combinations(MARKS, n)]


@pytest.mark.parametrize("folder", FOLDERS)
def test_a_test_with_any_marks_is_in_one_tier_or_refused(folder):
    """No combination of marks falls between the commands."""
    for marks in SETS_OF_MARKS:
        try:
            assert tier_of(folder, marks) in TIERS
        except ValueError:
            assert folder == UNIT
            assert marks - {SOAK}


@pytest.mark.parametrize("mark", ["ray", "s3", "browser", "sweep", "smoke"])
def test_a_unit_test_that_needs_more_than_this_process_is_refused(mark):
    """The folder says the cost: `make check` stays under a minute."""
    with pytest.raises(ValueError, match="without Ray"):
        tier_of(UNIT, {mark})


@pytest.mark.parametrize("server", SERVERS)
def test_a_test_that_takes_a_server_has_its_mark_without_being_asked(server):
    """Otherwise a test that was written in haste would make `make test` slower for everyone."""
    assert tier_of("integration", marks_of(["tmp_path", server])) in ("ray", "s3", "browser")


def test_a_case_on_the_engine_ray_has_its_mark_and_the_local_one_beside_it_has_not():
    """Most tests of both engines are one test with a parameter."""
    assert marks_of(["engine"], engine="ray") == {"ray"}
    assert marks_of(["engine"], engine="local") == set()


def test_a_test_that_needs_ray_and_s3_is_run_once():
    """By the tests on Ray, which run one after another."""
    assert tier_of("acceptance", {"ray", "s3"}) == "ray"


def test_every_tier_is_run_by_exactly_one_target_of_make():
    """A tier that no target runs would rot; one that two run would cost twice."""
    run = re.findall(r"--tier (\w+)", (ROOT / "Makefile").read_text())

    assert sorted(run) == sorted(TIERS)


def test_the_soak_is_not_even_read_when_another_tier_is_run():
    """It needs what only `make soak` installs: each other tier would end with "1 skipped"."""
    command = [sys.executable, "-m", "pytest", "tests/soak", "--collect-only", "--tier", LOCAL]

    done = subprocess.run(command, check=False, cwd=ROOT, capture_output=True, text=True)

    assert "collected 0 items" in done.stdout, done.stdout + done.stderr
    assert tier_of(SOAK, set()) == SOAK


def test_every_folder_of_tests_is_known_here():
    """A new folder needs a decision on what it costs."""
    folders = {path.parent.name for path in (ROOT / "tests").glob("*/test_*.py")}

    assert folders == set(FOLDERS)


def test_what_ci_runs_is_every_tier_but_the_soak():
    """The soak takes over an hour: it is run before a release."""
    ci = re.sub(r"#.*", "", (ROOT / ".ci/run").read_text())
    makefile = (ROOT / "Makefile").read_text()
    needs = dict(re.findall(r"^([\w-]+):(.*)$", makefile, re.MULTILINE))

    named = set(re.findall(r"[\w-]+", ci)) & needs.keys()
    run = named | {name for target in named for name in needs[target].split()}

    assert run >= {"check", "test-local", "test-smoke", "test-browser"}
    assert run >= {"test-ray", "test-s3", "test-sweeps"}
    assert "soak" not in run


@pytest.mark.parametrize("suite", ["analytics", "formats", "jobs", "storage"])
def test_a_failure_in_a_shipped_suite_shows_its_values(suite):
    """Not a bare AssertionError, also in the packages of others, whose conftest does nothing for it."""
    module = import_module(f"batchrunner.testing.{suite}_contract")

    assert type(module.__loader__).__name__ == "AssertionRewritingHook"
