"""A sink of files in a bucket: the same promises as on a disk."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from batchrunner import BatchRunner, BatchSpec
from batchrunner.checkpoint import bundles as bundling
from batchrunner.verify import repair, verify
from buckets import Bucket
from builders import rows
from command import ENVIRONMENT
from file_sinks import files_in_bucket, misfits_in, path_of

SWEEP = Path(__file__).parents[1] / "s3_sweep.py"


@pytest.fixture(params=[pytest.param(name, marks=pytest.mark.s3) for name in ("moto", "seaweedfs")])
def bucket(request, prefix):
    """Three files of four rows, on a server in-process and on a real one."""
    bucket = Bucket(request.getfixturevalue(request.param), prefix)
    for number in range(3):
        bucket.put_rows(f"in/{number}.jsonl", rows(number * 4, 4))
    yield bucket
    bucket.close()


def a_spec(bucket, target="draws", **changes):
    options = {"storage_options": bucket.storage_options}
    fields = {
        "capability": {"target": f"file_sinks:{target}", "version": "1"},
        "source": {"uri": f"{bucket.uri}/in", "shard": {"files": 1}, **options},
        "sink": {"uri": f"{bucket.uri}/out", "format": "files", **options},
        "execution": {"engine": "local"},
        "errors": {"max_row_errors": 4},
    }
    return BatchSpec(**{**fields, **changes})


def run(spec, **kwargs):
    return BatchRunner(spec).run(progress=None, **kwargs)


def misfits(bucket):
    """What parts list and is not there, and what is there and not listed."""
    listed = {row["path"] for row in bucket.rows_out()}
    wrong = misfits_in(bucket, parts=bucket.listed("out/part-"))
    return [*wrong, *sorted(files_in_bucket(bucket).keys() - listed)]


def test_files_go_into_the_bucket_once(bucket):
    """The second run finds all done by listings alone; nothing of the way is left."""
    assert run(a_spec(bucket)).rows_out == 12
    before = bucket.listed()

    assert run(a_spec(bucket)).shards_new == 0
    assert (bucket.listed(), misfits(bucket)) == (before, [])
    assert len(files_in_bucket(bucket)) == 12
    assert not bucket.listed("out/_checkpoint/files/")
    assert verify(a_spec(bucket)).ok


def test_what_a_dead_attempt_listed_is_published_from_its_bundle(bucket, monkeypatch):
    """The next attempt would make other bytes."""

    def die(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(bundling, "_put", die)
    with pytest.raises(KeyboardInterrupt):
        run(a_spec(bucket))
    lines = bucket.rows_out()
    monkeypatch.undo()

    assert lines
    assert run(a_spec(bucket)).ok
    assert [line for line in bucket.rows_out() if line in lines] == lines
    assert misfits(bucket) == []


def test_a_taken_path_costs_its_row_and_no_other_one(bucket):
    """The object that was there stays."""
    bucket.put(f"out/{path_of(5)}", b"mine")
    report = run(a_spec(bucket))

    assert (report.rows_out, report.rows_failed) == (11, 1)
    assert bucket.get(f"out/{path_of(5)}") == b"mine"


def test_a_change_damage_and_a_fresh_start_leave_what_parts_list(bucket):
    """Files are moved and removed with their part, and made again with it."""
    spec = a_spec(bucket)
    run(spec)
    before = files_in_bucket(bucket)
    bucket.put_rows("in/1.jsonl", [{"id": 5}, {"id": 6}])
    assert run(spec).ok
    kept = {f"out/_retired/part-00001/{path_of(n)}" for n in range(4, 8)}
    assert kept < bucket.listed("out/_retired/").keys()
    assert misfits(bucket) == []

    bucket.put(f"out/{path_of(0)}", bytes(24))
    assert [finding.kind for finding in verify(spec).findings] == ["checksum"]
    assert repair(spec).to_recompute == [0]
    assert run(spec).ok
    assert (misfits(bucket), verify(spec).findings) == ([], ())
    assert files_in_bucket(bucket)[path_of(0)] not in (before[path_of(0)], bytes(24))

    bucket.put("out/mine", b"")
    assert run(spec, fresh=True).ok
    assert misfits(bucket) == ["mine"]
    assert not bucket.listed("out/_retired/")


@pytest.mark.parametrize("moment", [pytest.param("before", marks=pytest.mark.soak), "after"])
def test_dying_at_any_request_leaves_the_files_of_the_part_that_won(seaweedfs, prefix, moment):
    """The crash sweep, in a bucket, with other bytes in each attempt."""
    arguments = [seaweedfs.endpoint, seaweedfs.bucket, prefix, moment, "files"]
    done = subprocess.run(
        [sys.executable, str(SWEEP), *arguments],
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    deaths, *findings = done.stdout.splitlines()
    assert int(deaths) >= 25
    assert findings == []
