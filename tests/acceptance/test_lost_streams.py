"""Stdout and stderr that are closed, full or gone: a lost display costs the display only."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from builders import a_source
from command import ENVIRONMENT, a_spec_file, batchrunner
from emulator import Terminal
from patience import PATIENCE

COMMAND = f"{sys.executable} -m batchrunner"


def a_job(folder):
    """Two shards of ten rows; each row prints more than a pipe of its size may hold."""
    a_source(folder / "in", shards=2, rows_per_shard=10)
    target = {"target": "capabilities:prints_a_lot", "fn_kwargs": {"path": str(folder / "go")}}
    execution = {"engine": "local", "batch_size": 1}
    a_spec_file(folder, capability=target, execution=execution)
    return folder


def in_a_shell(script, *, cwd):
    return subprocess.run(
        ["/bin/bash", "-c", f"set -o pipefail; {script}"],
        cwd=cwd,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )


def is_whole(folder):
    status = json.loads(batchrunner("status", "spec.yaml", "-o", "json", cwd=folder).stdout)
    return (status["state"], status["rows_out"], status["rows_failed"]) == ("complete", 20, 0)


@pytest.mark.parametrize("mode", ["plain", "json", "off"])
@pytest.mark.parametrize("lost", ["2>&1 | head -1", ">/dev/full 2>&1", ">&- 2>&- <&-"])
def test_a_run_is_complete_though_its_output_goes_nowhere(tmp_path, mode, lost):
    """`| head` to see how it begins is no reason to fail rows, nor to page the one on call."""
    (a_job(tmp_path) / "go").touch()

    done = in_a_shell(f"{COMMAND} run spec.yaml --progress {mode} {lost}", cwd=tmp_path)

    assert done.returncode == 0, done
    assert is_whole(tmp_path)


def test_a_terminal_that_is_closed_costs_no_row(tmp_path):
    """A run that was left alone with `nohup`, in a window that is closed at night."""
    job = a_job(tmp_path)
    script = f"trap '' HUP; exec {COMMAND} run spec.yaml"
    terminal = Terminal(cwd=job, script=script).until(lambda t: b"printed 2 " in t.raw)
    os.close(terminal.fd)
    (job / "go").touch()

    assert os.waitstatus_to_exitcode(os.waitpid(terminal.pid, 0)[1]) == 0
    assert is_whole(job)


def test_a_report_that_cannot_be_written_is_an_error_of_one_line(tmp_path):
    """A program that reads half a JSON document from a full disk must know."""
    (a_job(tmp_path) / "go").touch()
    whole = "stdout cannot be written: No space left on device"
    commands = ("run spec.yaml -o json --progress off", "status spec.yaml", "report spec.yaml -O -")
    for command in commands:
        done = in_a_shell(f"{COMMAND} {command} >/dev/full", cwd=tmp_path)

        assert done.returncode == 1, command
        assert done.stderr.splitlines()[-1].startswith(f"error: {whole}")


def test_the_exit_code_is_that_of_the_run_though_nothing_reads_its_report(tmp_path):
    """`run -o json | head` of a run that failed has failed; a reader that ends is no failure itself."""
    a_source(tmp_path / "in", shards=1, rows_per_shard=2)
    for capability, code in (("capabilities:raises_on_id_0", 1), ("capabilities:echo", 0)):
        a_spec_file(
            tmp_path, capability=capability, errors={"max_row_errors": 0}, sink=f"out{code}"
        )
        done = in_a_shell(f"{COMMAND} run spec.yaml -o json | true", cwd=tmp_path)

        assert done.returncode == code, done
    assert in_a_shell(f"{COMMAND} status spec.yaml | true", cwd=tmp_path).returncode == 0
