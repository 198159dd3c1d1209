"""Workers of stages die on Ray, and that of the shards, and the driver: every row comes out once."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from batchrunner import BatchRunner
from batchrunner.checkpoint import Checkpoint
from batchrunner.storage import open_storage
from batchrunner.views.dead_letters import read_dead_letters
from builders import a_spec, rows, rows_out, write_jsonl
from command import ENVIRONMENT, TESTS, a_spec_file, batchrunner
from killing import killed_with_parts
from patience import PATIENCE
from stage_deaths import DEADLY, FIRST_DIES, LAST_DIES, MODEL_DIES, OWNER_DIES, made

ROWS = rows(0, 200)


def staged(folder, content, *, seconds=0.0, **execution):
    """Three stages: by rows, by arrays, by tables; batches of the first two span files and shards."""
    for number in range(0, len(content), 50):
        write_jsonl(folder / f"in/in-{number:04d}.jsonl", content[number : number + 50])
    kwargs = {"folder": str(folder)}
    stages = [
        {"target": "stage_deaths:widen", "mode": "row", "fn_kwargs": kwargs},
        {
            "target": "stage_deaths:Model",
            "fn_constructor_kwargs": {**kwargs, "seconds": seconds},
            "batch_format": "numpy",
            "one_to_one": True,
        },
        {"target": "stage_deaths:narrow", "fn_kwargs": kwargs, "batch_format": "pyarrow"},
    ]
    return {
        "capability": [{**stage, "batch_size": 16} for stage in stages],
        "execution": {"engine": "ray", **execution},
        "errors": {"max_row_errors": 1},
    }


@pytest.mark.usefixtures("local_ray")
def test_of_all_that_dies_only_the_deadly_row_is_missing(tmp_path):
    """A worker of each stage once, one of the two of the shards once, and at one row whoever has it."""
    report = BatchRunner(a_spec(tmp_path, **staged(tmp_path, ROWS, concurrency=2))).run()

    assert (report.exit_code, report.rows_out, report.rows_failed) == (0, 199, 1)
    died = {int(path.name.partition("-")[2]) for path in tmp_path.glob("died-*")}
    assert died == {FIRST_DIES, MODEL_DIES, LAST_DIES, OWNER_DIES}
    assert rows_out(tmp_path / "out") == [made(row) for row in ROWS if row["id"] != DEADLY]
    checkpoint = Checkpoint(open_storage(str(tmp_path / "out/_checkpoint")))
    [dead_letter] = read_dead_letters(checkpoint)
    assert (dead_letter["stage"], dead_letter["error"]) == ("Model", "CapabilityDied")
    assert json.loads(dead_letter["raw"]) == ROWS[DEADLY]
    logs = (tmp_path / "out/_checkpoint/logs").rglob("*.log")
    assert any("narrowed" in log.read_text() for log in logs)


@pytest.mark.ray
def test_a_driver_that_is_killed_costs_no_row(tmp_path):
    """Stage workers end with it; the next driver has the rest made."""
    content = rows(1000, 600)
    a_spec_file(tmp_path, **staged(tmp_path, content, seconds=0.2))

    before = killed_with_parts(tmp_path)
    again = batchrunner("run", "spec.yaml", cwd=tmp_path)

    assert again.returncode == 0, again.stderr
    assert 3 <= before < 12
    assert rows_out(tmp_path / "out") == [made(row) for row in content]


@pytest.mark.ray
def test_a_node_that_is_lost_costs_no_row(tmp_path):
    """The blocks that its workers made are gone with it: their rows begin anew."""
    content = rows(1000, 600)
    staged(tmp_path, content)
    script = [sys.executable, str(TESTS / "stage_nodes.py"), str(tmp_path)]

    done = subprocess.run(
        script, env=ENVIRONMENT, capture_output=True, text=True, timeout=PATIENCE, check=False
    )

    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["0", "600", "0"]
    assert rows_out(tmp_path / "out") == [made(row) for row in content]
