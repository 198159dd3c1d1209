"""`batchrunner verify` and `batchrunner clean`, as a user has them."""

from __future__ import annotations

import csv
import io
import json
import os

import pytest

import damage
from builders import a_source, rows, rows_out
from command import a_spec_file, batchrunner


@pytest.fixture
def job(tmp_path):
    """A finished run."""
    a_source(tmp_path / "in", shards=3)
    a_spec_file(tmp_path)
    assert batchrunner("run", "spec.yaml", cwd=tmp_path).returncode == 0
    return tmp_path


def test_a_whole_output_ends_with_0(job):
    """For a pipeline: the next step may start."""
    done = batchrunner("verify", "spec.yaml", cwd=job)

    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr == "ok: 3 of 3 shards committed; rows: 12 in, 12 out, 0 failed\n"


def test_a_repair_without_anything_to_move_says_so(job):
    """A part that is gone leaves nothing: "0 objects moved" reads like a failure."""
    (job / "out/part-00001.jsonl").unlink()
    repaired = batchrunner("verify", "--repair", "spec.yaml", cwd=job)

    assert repaired.returncode == 5
    assert "nothing to move; 1 shards to compute again\n" in repaired.stderr
    assert batchrunner("run", "spec.yaml", cwd=job).returncode == 0


def test_a_defect_ends_with_5_and_each_line_leads_to_the_next(job):
    """Found, moved aside, computed again, ok: by the commands that each output names."""
    damage.cut(job / "out")

    found = batchrunner("verify", "spec.yaml", "-o", "json", cwd=job)
    refused = batchrunner("run", "spec.yaml", cwd=job)
    repaired = batchrunner("verify", "--repair", "spec.yaml", cwd=job)
    made = batchrunner("run", "spec.yaml", cwd=job)
    whole = batchrunner("verify", "spec.yaml", cwd=job)

    assert found.returncode == 5
    assert [record["shard"] for record in json.loads(found.stdout)] == [1]
    assert "next: batchrunner verify --repair spec.yaml" in found.stderr
    assert (refused.returncode, "batchrunner verify --repair" in refused.stderr) == (4, True)
    assert repaired.returncode == 5
    assert "1 shards to compute again" in repaired.stderr
    assert "next: batchrunner run spec.yaml" in repaired.stderr
    assert "(1 new" in made.stderr
    assert whole.returncode == 0
    assert rows_out(job / "out") == rows(0, 12)


def test_findings_come_as_csv_too(job):
    """For a spreadsheet."""
    damage.delete(job / "out")

    done = batchrunner("verify", "spec.yaml", "-o", "csv", cwd=job)

    (record,) = csv.DictReader(io.StringIO(done.stdout))
    assert record["kind"] == "missing"
    assert record["part"] == "part-00001.jsonl"


def test_without_a_run_there_is_nothing_to_verify(tmp_path):
    """Exit 0 would say that all is well."""
    a_source(tmp_path / "in")
    a_spec_file(tmp_path)

    done = batchrunner("verify", "spec.yaml", cwd=tmp_path)

    assert done.returncode == 3
    assert "there is no run in" in done.stderr
    assert not (tmp_path / "out").exists()


def test_a_place_without_a_run_is_not_called_clean(job):
    """It may be a slip of the pen."""
    done = batchrunner("clean", "out/_chekpoint", cwd=job)

    assert done.returncode == 3
    assert "there is no run in" in done.stderr


@pytest.mark.parametrize("place", ["spec.yaml", "out/_checkpoint"])
def test_clean_lists_and_removes_only_with_force(job, place):
    """A look before the leap, by the spec or by the checkpoint."""
    staged = job / "out/.staging/abc.tmp"
    staged.write_bytes(b"half a part")

    listed = batchrunner("clean", place, "-o", "json", cwd=job)
    assert [record["kind"] for record in json.loads(listed.stdout)] == ["staged"]
    assert f"next: batchrunner clean --force {place}" in listed.stderr
    assert staged.exists()

    removed = batchrunner("clean", "--force", place, cwd=job)
    again = batchrunner("clean", place, cwd=job)

    assert (removed.returncode, "removed: 1 objects, 11 bytes" in removed.stderr) == (0, True)
    assert "nothing is left behind" in again.stderr
    assert not staged.exists()


def one_lost_one_doubled(job):
    damage.rewritten(job / "out", 1, lambda some: [some[0], some[0], *some[2:]])


def test_keys_are_compared_when_asked_and_the_next_line_repairs_it(job):
    """All counts agree, so that only the keys show it."""
    one_lost_one_doubled(job)

    plain = batchrunner("verify", "spec.yaml", cwd=job)
    found = batchrunner("verify", "spec.yaml", "--key", "id", "-o", "json", cwd=job)
    repaired = batchrunner("verify", "--repair", "--key", "id", "spec.yaml", cwd=job)
    made = batchrunner("run", "spec.yaml", cwd=job)
    whole = batchrunner("verify", "--key", "id", "--key", "text", "spec.yaml", cwd=job)

    assert plain.returncode == 0
    assert found.returncode == 5
    assert [record["kind"] for record in json.loads(found.stdout)] == ["key_missing", "key_doubled"]
    assert "keys (id): 12 in the source, 12 in the output; 1 missing, 1 doubled" in found.stderr
    assert "next: batchrunner verify --repair --key id spec.yaml" in found.stderr
    assert (repaired.returncode, made.returncode, whole.returncode) == (5, 0, 0)
    assert rows_out(job / "out") == rows(0, 12)


def test_a_share_is_replayed_when_the_capability_says_that_it_can(job):
    """And refused with the words to write when it does not."""
    one_lost_one_doubled(job)

    refused = batchrunner("verify", "--replay", "0.5", "spec.yaml", cwd=job)
    a_spec_file(job, capability={"target": "capabilities:echo", "deterministic": True})
    found = batchrunner("verify", "--replay", "1", "spec.yaml", "-o", "csv", cwd=job)
    nothing = batchrunner("verify", "--replay", "0", "spec.yaml", cwd=job)

    assert refused.returncode == 2
    assert "deterministic: true" in refused.stderr
    (record,) = csv.DictReader(io.StringIO(found.stdout))
    assert (found.returncode, record["kind"], record["part"]) == (5, "replay", "part-00001.jsonl")
    assert "replayed 3 of 3 shards: 0, 1, 2" in found.stderr
    assert nothing.returncode == 2


def test_a_key_column_that_is_nowhere_ends_with_2(job):
    """It is a slip of the pen, and no defect."""
    done = batchrunner("verify", "--key", "idd", "spec.yaml", cwd=job)

    assert done.returncode == 2
    assert "no row of the source has a column 'idd'" in done.stderr


def test_keys_after_a_touch_end_with_5_and_of_changed_files_with_4(job):
    """Exit 0 of a check that compared nothing would let the next step start."""
    one_lost_one_doubled(job)
    for path in (job / "in").iterdir():
        os.utime(path)
    touched = batchrunner("verify", "--key", "id", "spec.yaml", cwd=job)
    (job / "in/in-001.jsonl").write_text("{}\n")
    partly = batchrunner("verify", "--key", "id", "spec.yaml", cwd=job)
    for path in (job / "in").iterdir():
        path.write_text("{}\n")
    nothing = batchrunner("verify", "--key", "id", "spec.yaml", cwd=job)

    assert touched.returncode == 5
    assert "12 in the source, 12 in the output; 1 missing, 1 doubled" in touched.stderr
    assert partly.returncode == 5
    assert partly.stderr.startswith(
        "incomplete, 1 of 3 committed shards could not be compared: 3 of 3 shards committed; rows: "
    )
    assert partly.stderr.endswith("next: batchrunner run spec.yaml\n")
    assert nothing.returncode == 4
    assert "batchrunner run" in nothing.stderr
