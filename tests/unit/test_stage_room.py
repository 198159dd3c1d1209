"""What the workers of stages reserve: a CPU each, less where there are fewer, and what waits for machines."""

import pytest

from batchrunner.errors import RayUnavailableError
from batchrunner.execute.stage_room import Room, needs_of
from batchrunner.spec import ExecutionSpec, StageSpec


def cpus(*nodes, may_grow, **of_the_last):
    stages = [{"target": "m:a"}, {"target": "m:b"}, {"target": "m:c", **of_the_last}]
    wanted = [StageSpec(**one).within(ExecutionSpec(), batch_size=8) for one in stages]
    room = Room(tuple({"CPU": cpus} for cpus in nodes))
    return [need.each.get("CPU") for need in needs_of(wanted, room, may_grow=may_grow)]


@pytest.mark.parametrize("may_grow", [False, True])
def test_stages_share_the_cpus_of_a_cluster_that_has_fewer(may_grow):
    """Nobody knows of a cluster that it will grow: what it has now is enough to run."""
    assert cpus(8, may_grow=may_grow) == [1, 1, 1]
    assert cpus(2, may_grow=may_grow) == [0.66, 0.66, 0.66]
    assert cpus(2, may_grow=may_grow, num_cpus=1) == [0.5, 0.5, 1]


def test_what_does_not_fit_waits_for_machines_if_there_may_be_more():
    """A head without CPUs is how a cluster that grows begins: its workers are of full size."""
    assert cpus(0, may_grow=True) == [1, 1, 1]
    assert cpus(2, may_grow=True, num_cpus=8) == [1, 1, 8]
    with pytest.raises(RayUnavailableError, match="no room for all stages at once"):
        cpus(2, may_grow=False, num_cpus=8)
