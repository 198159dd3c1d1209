"""The process ends in time, with its report and its exit code, whatever its hooks hold up."""

from __future__ import annotations

import json

import pytest

from builders import a_source
from command import a_spec_file, batchrunner


@pytest.mark.parametrize("hook", ["HangsInAPool", "HangsAtExit"])
def test_a_hook_does_not_hold_up_the_exit_of_a_run_that_is_done(tmp_path, hook):
    """The interpreter waits for thread pools and exit functions: a scheduler would wait forever."""
    a_source(tmp_path / "in")
    execution = {"engine": "local", "grace_period": 2}
    a_spec_file(tmp_path, hooks={f"hook_examples:{hook}": None}, execution=execution)

    done = batchrunner("run", "spec.yaml", "-o", "json", "--progress", "json", cwd=tmp_path)

    assert done.returncode == 0
    assert json.loads(done.stdout)["ok"] is True
    last = json.loads(done.stderr.splitlines()[-1])
    assert last["event"] == "log"
    assert last["message"].startswith("the process did not end within 2 s after its report")


def test_the_report_is_printed_although_code_of_the_run_has_closed_the_streams(tmp_path):
    """All is committed: "internal error" would be false."""
    a_source(tmp_path / "in")
    a_spec_file(tmp_path, hooks={"hook_examples:ClosesStreams": None})

    done = batchrunner("run", "spec.yaml", "-o", "json", cwd=tmp_path)

    assert done.returncode == 0
    assert json.loads(done.stdout)["ok"] is True
    assert "done: 3 of 3 shards committed" in done.stderr
