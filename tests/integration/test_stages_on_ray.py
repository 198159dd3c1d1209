"""Stages on Ray: how many workers they have, what they do at the same time, and what cannot begin."""

from __future__ import annotations

import pytest

from batchrunner import BatchRunner
from batchrunner.errors import CapabilityImportError, RayUnavailableError
from builders import a_spec, rows, rows_out, write_jsonl

pytestmark = pytest.mark.usefixtures("local_ray")


def a_run(folder, *stages, count=64):
    write_jsonl(folder / "in/a.jsonl", rows(0, count))
    stages = [{"batch_size": 4, "one_to_one": True, **stage} for stage in stages]
    return BatchRunner(a_spec(folder, capability=stages, execution={"engine": "ray"}))


def test_calls_of_a_coroutine_overlap_and_a_stage_has_the_workers_that_it_asks_for(tmp_path):
    """An engine that batches by itself gets many calls at once; a pinned stage is not scaled."""
    signs = {"target": "stage_deaths:signs", "concurrency": 2}

    report = a_run(tmp_path, {"target": "stage_deaths:Flies", "concurrency": 1}, signs).run()

    assert report.ok
    found = rows_out(tmp_path / "out")
    assert [{k: row[k] for k in ("id", "text")} for row in found] == rows(0, 64)
    assert len({row["by"] for row in found}) <= 2
    assert max(row["flying"] for row in found) > 1


def test_what_has_no_room_is_refused_with_what_each_stage_needs(tmp_path):
    """Before anything starts: a GPU will not come to this machine."""
    model = {"target": "stage_deaths:Model", "num_gpus": 1}
    needs = r"no room for all stages at once: 'signs' \(CPU 1\); 'Model' \(CPU 1, GPU 1\)"

    with pytest.raises(RayUnavailableError, match=needs):
        a_run(tmp_path, {"target": "stage_deaths:signs"}, model).run()


@pytest.mark.parametrize(
    ("target", "reason"),
    [
        ("CannotBeBuilt", "weights.bin is not there"),
        ("DiesBuilding", "3 workers died, one after the other, while they built its capability"),
    ],
)
def test_a_stage_that_cannot_be_built_ends_the_run_with_the_reason(tmp_path, target, reason):
    """Every shard would fail, and each worker would load for as long again."""
    run = a_run(tmp_path, {"target": "stage_deaths:signs"}, {"target": f"stage_deaths:{target}"})

    with pytest.raises(CapabilityImportError, match=reason):
        run.run()
