"""A spec varied on the command line: `--set`, `--profile`, `show`, and trials."""

from __future__ import annotations

import json
import shlex

import pytest

from builders import a_source
from command import a_spec_file, batchrunner

pytestmark = pytest.mark.long

CANARY = "hunter2-7f3a"


def a_job(folder, **changes):
    a_source(folder / "in")
    return a_spec_file(folder, **changes)


def pasted(text, start):
    """The words after `batchrunner` of the line that begins with *start*."""
    (line,) = [line for line in text.splitlines() if line.startswith(start)]
    return shlex.split(line.partition("batchrunner ")[2])


def test_the_commands_to_paste_keep_how_the_spec_was_varied(tmp_path):
    """Without them, the next command would be about another run."""
    a_job(
        tmp_path, capability="capabilities:fails_on_5", profiles={"dev": {"source": {"limit": 9}}}
    )
    varied = ("--profile", "dev", "--set", "sink=elsewhere", "--set=execution.batch_size=2")
    failed = batchrunner("run", "spec.yaml", *varied, cwd=tmp_path)
    errors = batchrunner(*pasted(failed.stderr, "see the rows"), cwd=tmp_path)

    assert 1 == failed.returncode
    assert [*["errors", "spec.yaml", "--profile", "dev", "--set", "sink=elsewhere"]] == pasted(
        failed.stderr, "see the rows"
    )[:6]
    assert "rows: 9 in, 8 out, 1 failed" in failed.stderr
    assert 0 == errors.returncode
    assert "five" in errors.stdout or "5" in errors.stdout
    for command in ("status", "logs", "clean", "verify", "plan"):
        done = batchrunner(command, "spec.yaml", *varied, cwd=tmp_path)
        assert 0 == done.returncode, done.stderr
    refused = batchrunner("run", "spec.yaml", *varied, "--set", "source.limit=10", cwd=tmp_path)
    assert 4 == refused.returncode
    assert "source.limit: 9 -> 10" in refused.stderr


def test_a_neutral_override_is_no_change_and_a_decisive_one_is(tmp_path):
    """`--set` is the spec with another value, for resume as for all else."""
    a_job(tmp_path)

    assert 0 == batchrunner("run", "spec.yaml", cwd=tmp_path).returncode
    neutral = batchrunner("run", "spec.yaml", "--set", "execution.batch_size=3", cwd=tmp_path)
    assert 0 == neutral.returncode
    assert "0 new" in neutral.stderr
    decisive = batchrunner(
        "run", "spec.yaml", "--set", "execution.batch_format=pandas", cwd=tmp_path
    )
    assert 4 == decisive.returncode


def test_the_profile_may_be_in_the_environment(tmp_path):
    """A cluster sets it once; the commands of all specs there need no option."""
    a_job(tmp_path, profiles={"dev": {"sink": "elsewhere"}})
    done = batchrunner("run", "spec.yaml", cwd=tmp_path, BATCHRUNNER_PROFILE="dev")
    wrong = batchrunner("run", "spec.yaml", cwd=tmp_path, BATCHRUNNER_PROFILE="dve")

    assert 0 == done.returncode
    assert (tmp_path / "elsewhere/_SUCCESS").exists()
    assert 2 == wrong.returncode
    assert 'did you mean "dev"? (--profile or BATCHRUNNER_PROFILE)' in wrong.stderr


def test_an_option_that_does_not_fit_is_shown_as_it_was_given(tmp_path):
    """No traceback, and no search in the file for what is not there."""
    a_job(tmp_path)
    done = batchrunner("validate", "spec.yaml", "--set", "execution.batchsize=3", cwd=tmp_path)
    folder = batchrunner("status", "out/_checkpoint", "--set", "a=b", cwd=tmp_path)

    assert 2 == done.returncode
    assert 'execution: unknown key "batchsize"; did you mean "batch_size"?' in done.stderr
    assert "  execution.batchsize=3\n  " in done.stderr
    assert 2 == folder.returncode
    assert "--set varies a spec, and out/_checkpoint is none" in folder.stderr


def test_a_secret_on_the_command_line_is_in_no_output_and_no_file(tmp_path):
    """Not in the line to paste, not in the run's record, not in the log."""
    a_job(tmp_path, capability="capabilities:fails_always")
    secret = ("--set", f"source.storage_options={{secret: {CANARY}}}", f"--set=tags.token={CANARY}")
    done = batchrunner("run", "spec.yaml", *secret, "-v", cwd=tmp_path)
    shown = batchrunner("show", "spec.yaml", *secret, cwd=tmp_path)
    resolved = batchrunner(
        "show", "spec.yaml", *secret, "--set", f"name={CANARY}", "--origin", cwd=tmp_path
    )
    files = [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()]

    assert 1 == done.returncode
    assert "--set '--set=tags.token=***'" not in done.stderr
    assert "tags.token=***" in done.stderr
    for text in (done, shown, resolved):
        assert CANARY not in text.stdout + text.stderr
    assert not [data for data in files if CANARY.encode() in data]


def test_show_says_what_is_read_and_where_from(tmp_path):
    """For the question why a run does what it does."""
    a_job(tmp_path)
    (tmp_path / "more.yaml").write_text("extends: spec.yaml\nexecution: {batch_size: 7}\n")
    text = batchrunner("show", "more.yaml", "--set", "name=x", "--origin", cwd=tmp_path).stdout
    printed = batchrunner("show", "more.yaml", "--origin", "-o", "json", cwd=tmp_path).stdout
    records = {record["key"]: record for record in json.loads(printed)}
    again = batchrunner("show", "more.yaml", cwd=tmp_path).stdout
    (tmp_path / "again.yaml").write_text(again)

    assert "  batch_size: 7  # more.yaml:2\n" in text
    assert "name: x  # --set\n" in text
    assert (7, "more.yaml:2") == (
        records["execution.batch_size"]["value"],
        records["execution.batch_size"]["origin"],
    )
    assert "default" == records["execution.num_gpus"]["origin"]
    assert again.startswith("# made of more.yaml, spec.yaml\n")
    assert 0 == batchrunner("run", "again.yaml", cwd=tmp_path).returncode


@pytest.mark.parametrize("how", [("--limit", "9"), ("--sample", "12")])
def test_a_trial_ends_with_the_command_of_the_run(tmp_path, how):
    """And its dead letters are found by the line it prints."""
    a_job(tmp_path, capability="capabilities:fails_on_5", checkpoint_dir="elsewhere")
    done = batchrunner("run", "spec.yaml", *how, "--set", "name=x", cwd=tmp_path)
    errors = batchrunner(*pasted(done.stderr, "see the rows"), "-o", "json", cwd=tmp_path)
    planned = batchrunner("plan", "spec.yaml", *how, cwd=tmp_path)

    assert 1 == done.returncode
    assert f"output: {tmp_path}/_trial-out\n" in done.stderr
    assert ["run", "spec.yaml", *how, "--set", "name=x"] == pasted(done.stderr, "next: ")
    assert ["run", "spec.yaml", "--set", "name=x"] == pasted(done.stderr, "the run: ")
    assert 1 == json.loads(errors.stdout)[0]["rows"]
    assert not (tmp_path / "out").exists()
    assert not (tmp_path / "elsewhere").exists()
    assert "0 committed" in planned.stderr


def test_two_amounts_or_none_are_refused(tmp_path):
    """One line, no traceback."""
    a_job(tmp_path)
    two = batchrunner("run", "spec.yaml", "--limit", "3", "--sample", "3", cwd=tmp_path)
    wrong = batchrunner("run", "spec.yaml", "--sample", "lots", cwd=tmp_path)

    assert (2, 2) == (two.returncode, wrong.returncode)
    assert "--limit and --sample are two trials: give one of them" in two.stderr
    assert 'or a share, such as 0.01 or "1%"; not lots' in wrong.stderr


def test_a_trial_is_checked_by_the_line_that_status_prints_and_is_no_run_to_go_on_with(tmp_path):
    """It holds a part of the rows, and `done` would be taken for all of them."""
    a_job(tmp_path)
    batchrunner("run", "spec.yaml", "--sample", "5", cwd=tmp_path)
    there = ("spec.yaml", "--set", "sink.uri=_trial-out")
    status = json.loads(batchrunner("status", *there, "-o", "json", cwd=tmp_path).stdout)
    checked = batchrunner(*shlex.split(status["next"])[1:], cwd=tmp_path)
    as_run = batchrunner("run", *there, cwd=tmp_path)

    assert 0 == checked.returncode
    assert "a trial (--sample 5)" in checked.stderr
    assert 4 == as_run.returncode
    assert "is the checkpoint of a trial (--sample 5)" in as_run.stderr


@pytest.mark.parametrize("name", ["noext", "-d.yaml"])
def test_the_next_lines_find_a_spec_whatever_its_name(tmp_path, name):
    """A name without an ending is no folder, and one with a dash is no option."""
    a_job(tmp_path, capability="capabilities:fails_on_5").rename(tmp_path / name)
    done = batchrunner("run", "--set", "name=x", "--", name, cwd=tmp_path)
    errors = batchrunner(*pasted(done.stderr, "see the rows"), "-o", "json", cwd=tmp_path)

    assert 1 == json.loads(errors.stdout)[0]["rows"]
