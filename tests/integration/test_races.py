"""Several drivers at once, past the lease; and zombies: committed output is exactly once anyway."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from batchrunner import BatchRunner
from builders import a_source, a_spec, rows, rows_out
from command import ENVIRONMENT
from driver_job import CAPABILITY
from patience import PATIENCE

DRIVERS, ROUNDS, SHARDS = 3, 8, 12


def race(folder, *, mutant=""):
    """Let several drivers loose on one job that is being started."""
    a_source(folder / "in", shards=SHARDS)
    command = [
        sys.executable,
        str(Path(__file__).parents[1] / "driver_job.py"),
        str(folder),
        mutant,
    ]
    drivers = [
        subprocess.Popen(command, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        for _ in range(DRIVERS)
    ]
    return [(d.communicate(timeout=PATIENCE), d.returncode) for d in drivers]


def contradictions(folder):
    """Sentinels that do not describe their part, and rows that are there twice or not at all."""
    out = folder / "out"
    found = []
    for path in out.glob("_checkpoint/sentinels/*.json"):
        sentinel = json.loads(path.read_text())
        part = (out / sentinel["part"]).read_bytes()
        if hashlib.sha256(part).hexdigest() != sentinel["sha256"]:
            found.append(f"{path.name} does not describe its part")
        makers = {json.loads(line)["by"].split("-")[0] for line in part.splitlines()}
        if len(makers) > 1:
            found.append(f"{sentinel['part']} has rows of {len(makers)} attempts")
    ids = [row["id"] for row in rows_out(out)]
    if sorted(ids) != list(range(4 * SHARDS)):
        found.append(f"{len(ids)} rows, {len(set(ids))} of them different")
    return found


def contents(out):
    """All objects but those on their way."""
    files = (path for path in out.rglob("*") if path.is_file() and ".staging" not in path.parts)
    return {path: path.read_bytes() for path in files}


def finish(folder):
    """A last, lawful session, for what the others may have left."""
    assert BatchRunner(a_spec(folder, capability=CAPABILITY)).run().ok


@pytest.mark.parametrize(
    "number", [0, 1, *(pytest.param(n, marks=pytest.mark.sweep) for n in range(2, ROUNDS))]
)
def test_three_drivers_past_the_lease_commit_each_shard_once(tmp_path, number):
    """No two attempts of this capability give the same bytes, so a mixture would show."""
    ends = race(tmp_path)

    assert {code for _, code in ends} <= {0, 1, 3, 4}, ends
    assert all(b"Traceback" not in stderr for (_, stderr), _ in ends), ends
    finish(tmp_path)
    assert [] == contradictions(tmp_path)


def test_the_race_sees_a_publish_that_overwrites(tmp_path):
    """With rename instead of put-if-absent the race must go wrong, or it proves nothing."""
    found = []
    deadline = time.monotonic() + PATIENCE
    while not found and time.monotonic() < deadline:
        folder = tmp_path / str(time.monotonic_ns())
        race(folder, mutant="publish_overwrites")
        found = contradictions(folder)
        shutil.rmtree(folder)

    assert found


def test_a_zombie_that_publishes_late_changes_nothing(tmp_path):
    """Its driver was killed, its shards were done by the next one; then it wakes up."""
    from batchrunner.checkpoint import Checkpoint, Sentinel
    from batchrunner.checkpoint.commit import Finished, commit
    from batchrunner.storage import open_storage

    a_source(tmp_path / "in", shards=2)
    sink = open_storage(str(tmp_path / "out"))
    checkpoint = Checkpoint(open_storage(str(tmp_path / "out/_checkpoint")))
    staged = sink.stage()
    staged.file.write(b'{"id": "of the zombie"}\n')
    staged.file.close()
    BatchRunner(a_spec(tmp_path, capability="capabilities:echo")).run()
    kept = checkpoint.sentinel("part-00001", run_uid=checkpoint.run().run_uid)
    before = contents(tmp_path / "out")
    late = Sentinel(
        run_uid=kept.run_uid,
        shard=1,
        part=kept.part,
        rows_in=4,
        rows_out=1,
        rows_failed=0,
        bytes=24,
        sha256="0" * 64,
        write_id="zombie",
        session="dead",
        seconds=1.0,
    )

    try:
        counting = commit([Finished("part-00001", staged, late)], sink=sink, checkpoint=checkpoint)
    except OSError:  # what it had staged was swept
        counting = {"part-00001": kept}

    assert counting == {"part-00001": kept}
    assert before == contents(tmp_path / "out")
    assert rows_out(tmp_path / "out") == rows(0, 8)
