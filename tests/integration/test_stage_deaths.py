"""Workers of stages die on Ray, and that of the shards, and the driver: every row comes out once."""

from __future__ import annotations

import json

import pytest

from batchrunner import BatchRunner
from batchrunner.checkpoint import Checkpoint
from batchrunner.storage import open_storage
from batchrunner.views.dead_letters import read_dead_letters
from builders import a_spec, rows, rows_out, write_jsonl
from stage_deaths import DEADLY, FIRST_DIES, LAST_DIES, MODEL_DIES, OWNER_DIES, made

ROWS = rows(0, 200)


def staged(folder, **execution):
    """Three stages: by rows, by arrays, by tables; batches of the last two span files and shards."""
    for number in range(4):
        write_jsonl(folder / f"in/in-{number}.jsonl", ROWS[number * 50 : (number + 1) * 50])
    kwargs = {"folder": str(folder)}
    stages = [
        {"target": "stage_deaths:widen", "mode": "row", "fn_kwargs": kwargs},
        {
            "target": "stage_deaths:Model",
            "fn_constructor_kwargs": kwargs,
            "batch_format": "numpy",
            "one_to_one": True,
        },
        {"target": "stage_deaths:narrow", "fn_kwargs": kwargs, "batch_format": "pyarrow"},
    ]
    return a_spec(
        folder,
        capability=[{**stage, "batch_size": 16} for stage in stages],
        execution={"engine": "ray", **execution},
        errors={"max_row_errors": 1},
    )


@pytest.mark.usefixtures("local_ray")
def test_of_all_that_dies_only_the_deadly_row_is_missing(tmp_path):
    """A worker of each stage once, that of the shards once, and at one row whoever has it."""
    report = BatchRunner(staged(tmp_path)).run()

    assert (report.exit_code, report.rows_out, report.rows_failed) == (0, 199, 1)
    died = {int(path.name.partition("-")[2]) for path in tmp_path.glob("died-*")}
    assert died == {FIRST_DIES, MODEL_DIES, LAST_DIES, OWNER_DIES}
    assert rows_out(tmp_path / "out") == [made(row) for row in ROWS if row["id"] != DEADLY]
    checkpoint = Checkpoint(open_storage(str(tmp_path / "out/_checkpoint")))
    [dead_letter] = read_dead_letters(checkpoint)
    assert (dead_letter["stage"], dead_letter["error"]) == ("Model", "CapabilityDied")
    assert json.loads(dead_letter["raw"]) == ROWS[DEADLY]
