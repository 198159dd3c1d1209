"""A session goes on with what its slow shards have left, in shards that its plan gets meanwhile."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from batchrunner import BatchRunner
from batchrunner.checkpoint import Checkpoint
from batchrunner.driver import packing
from batchrunner.storage import open_storage
from batchrunner.verify import Checks, verify
from builders import a_source, a_spec, rows_out
from command import ENVIRONMENT
from patience import PATIENCE

ROWS = 96


def a_slow_spec(folder, **changes):
    """A file whose only shard takes ten times as long as it may."""
    kwargs = {"seconds": 0.005}
    fields = {
        "capability": {"target": "capabilities:dawdles", "fn_kwargs": kwargs},
        "source": {"uri": str(folder / "in"), "shard": {"seconds": 0.05}},
        "execution": {"engine": "local", "batch_size": 8},
        "errors": {"max_row_errors": 1.0, "retry": {"max_attempts": 1}},
    }
    return a_spec(folder, **{**fields, **changes})


def checkpoint(folder):
    return Checkpoint.current(open_storage(str(folder / "out/_checkpoint")))


REFUSED = {13, 63}


def ends_well(folder, spec, *, refused=REFUSED):
    ids = [row["id"] for row in rows_out(folder / "out")]
    assert sorted(ids) == sorted(set(range(ROWS)) - refused)
    result = verify(spec, checks=Checks(keys=("id",)))
    assert result.ok, result.findings
    assert BatchRunner(spec).run(progress=None).shards_new == 0


@pytest.mark.parametrize("engine", ["local", "ray"])
def test_one_session_does_all_of_a_slow_file(tmp_path, engine, request):
    """It said that rows had no shard yet, and left it to the user to start it again."""
    if engine == "ray":
        request.getfixturevalue("local_ray")
    a_source(tmp_path / "in", shards=1, rows_per_shard=ROWS)
    spec = a_slow_spec(tmp_path, execution={"engine": engine, "batch_size": 8})

    report = BatchRunner(spec).run(progress=None)

    assert report.ok
    assert report.shards == report.shards_committed == report.shards_new > 1
    assert report.rows_in == ROWS
    ends_well(tmp_path, spec)


def test_the_progress_of_a_slow_shard_goes_neither_back_nor_too_far(tmp_path):
    """What is left of it counts as pending, also until it has shards."""
    a_source(tmp_path / "in", shards=1, rows_per_shard=ROWS)
    seen = []

    class Display:
        def show(self, progress):
            seen.append(progress)

        def close(self):
            pass

    spec = a_slow_spec(tmp_path)
    BatchRunner(spec).run(progress=Display())

    known = [one for one in seen if one.shards]
    committed = [one.weight_done / one.weight for one in known]
    early = next(one for one in known if one.committed)
    assert committed == sorted(committed)
    assert early.weight_done < early.weight / 2
    assert max(one.weight for one in known) - min(one.weight for one in known) <= known[-1].shards
    assert known[-1].committed == known[-1].shards == len(known[-1].ids) > 1
    ends_well(tmp_path, spec)


def test_a_shard_without_columns_that_ended_early_leaves_its_rest_to_this_session(tmp_path):
    """It is committed after all others, since its part waits for their columns."""
    a_source(tmp_path / "in", shards=1, rows_per_shard=ROWS)
    spec = a_slow_spec(tmp_path, sink={"uri": str(tmp_path / "out"), "format": "parquet"})

    def drops(rows, seconds):
        time.sleep(seconds * len(rows))
        return []

    report = BatchRunner(spec, capability=drops).run(progress=None)

    assert report.ok
    assert report.shards > 1
    assert (report.rows_in, report.rows_out, report.rows_failed) == (ROWS, 0, 0)
    assert sum(pq.read_table(p).num_rows for p in (tmp_path / "out").glob("part-*")) == 0


def test_damaged_files_and_slow_shards_of_a_round_are_one_generation(tmp_path, monkeypatch):
    """Between two of them the driver might die, and needed another write for each."""
    a_source(tmp_path / "in", shards=24, rows_per_shard=4)
    (tmp_path / "in/in-001.jsonl").rename(tmp_path / "in/in-001.jsonl.gz")
    source = {"uri": str(tmp_path / "in"), "shard": {"seconds": 0.05}}
    spec = a_slow_spec(tmp_path, source=source)
    monkeypatch.setattr(packing, "FEW_FILES", 2)
    report = BatchRunner(spec).run(progress=None)

    generations = checkpoint(tmp_path).generations()
    assert report.exit_code == 1
    assert [bool(one.retired) and bool(one.ended) for one in generations[:2]] == [False, True]
    (reason,) = report.quarantined.values()
    assert "in-001.jsonl.gz" in reason
    (tmp_path / "in/in-001.jsonl.gz").rename(tmp_path / "in/in-001.jsonl")
    assert BatchRunner(spec).retry(accept_changes=True, progress=None).ok
    ends_well(tmp_path, spec)


RUNS = """
import os, sys
from pathlib import Path
from batchrunner import BatchRunner
from batchrunner.checkpoint import Checkpoint
from test_growing_sessions import a_slow_spec
if sys.argv[2] == "dies":
    Checkpoint.publish = lambda _, sentinels: sentinels and os.kill(os.getpid(), 9) or {}
BatchRunner(a_slow_spec(Path(sys.argv[1]))).run(progress=None)
"""
PATHS = {"PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), ENVIRONMENT["PYTHONPATH"]])}


def started(folder, how="lives"):
    command = [sys.executable, "-c", RUNS, str(folder), how]
    return subprocess.Popen(command, env={**ENVIRONMENT, **PATHS})


@pytest.mark.parametrize("parts", [1, 2, 3])
def test_a_driver_that_is_killed_with_its_parts_there_goes_on_where_it_was(tmp_path, parts):
    """Before the generation, after it, and while its shards run."""
    a_source(tmp_path / "in", shards=1, rows_per_shard=ROWS)
    with started(tmp_path) as driver:
        deadline = time.monotonic() + PATIENCE
        while len(list((tmp_path / "out").glob("part-*"))) < parts:
            assert time.monotonic() < deadline
            if driver.poll() is not None:
                break
            time.sleep(0.001)
        driver.send_signal(signal.SIGKILL)
    before = {p.name: p.read_bytes() for p in (tmp_path / "out").glob("part-*")}

    spec = a_slow_spec(tmp_path)
    assert BatchRunner(spec).run(progress=None).ok

    after = {p.name: p.read_bytes() for p in (tmp_path / "out").glob("part-*")}
    assert before.items() <= after.items()
    ends_well(tmp_path, spec)


def test_a_part_that_was_adopted_with_an_early_end_leaves_its_rest_to_the_same_session(tmp_path):
    """Its worker died before the sentinel: the survey cannot know yet where it ended."""
    a_source(tmp_path / "in", shards=1, rows_per_shard=ROWS)
    with started(tmp_path, "dies") as driver:
        assert driver.wait(PATIENCE) == -signal.SIGKILL
    assert not list((tmp_path / "out").glob("_checkpoint/sentinels/*"))
    assert len(list((tmp_path / "out").glob("part-*"))) == 1

    spec = a_slow_spec(tmp_path)
    report = BatchRunner(spec).run(progress=None)

    assert (report.ok, report.shards_adopted) == (True, 1)
    assert report.shards > 1
    events = [
        json.loads(line)["action"]
        for log in (tmp_path / "out/_checkpoint/sessions").glob("*.jsonl")
        for line in log.read_text().splitlines()
    ]
    assert "plan_grew" in events
    ends_well(tmp_path, spec)
