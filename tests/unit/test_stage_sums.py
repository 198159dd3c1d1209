"""Sums of what workers send: late, doubled, lost, and after their death."""

from batchrunner.driver.stage_sums import StageSums
from batchrunner.worker.heartbeat import WorkerClocks
from batchrunner.worker.stage_clock import StageClock, StageKind


def sent(worker, calling, *, since=1.0, rows=0):
    read = StageClock("read", StageKind.READ, calling=calling / 10)
    return WorkerClocks(worker, since, (read, StageClock("f", calling=calling, rows=rows)))


def calling(sums):
    [_, stage] = sums.stages()
    return stage.workers, stage.calling, stage.rows


def test_the_latest_of_each_worker_counts_once():
    """Each includes what was sent before; a heartbeat that was collected late is no step back."""
    sums = StageSums()
    for clocks in [None, sent("a-1", 5, rows=2), sent("b-2", 1), sent("a-1", 8, rows=3)]:
        sums.take(clocks)
    sums.take(sent("a-1", 8, rows=3))  # doubled
    sums.take(sent("a-1", 5, rows=2))  # late

    assert calling(sums) == (2, 9, 3)


def test_a_later_process_with_the_name_of_a_dead_one_adds_to_it():
    """Process ids are used again: the time of the first one was spent."""
    sums = StageSums()
    sums.take(sent("a-1", 5))
    sums.bury("1")
    sums.take(sent("a-1", 2, since=9.0))

    assert calling(sums) == (1, 7, 0)


def test_the_time_of_a_dead_worker_counts_and_the_worker_does_not():
    """The advice names how many workers there are, not how many there were; `11` is not `1`."""
    sums = StageSums()
    for worker in ("a-1", "a-11", "b-2"):
        sums.take(sent(worker, 3))
    sums.bury("1")
    sums.take(sent("a-1", 4))  # its last heartbeat, found after its death

    assert calling(sums) == (2, 10, 0)
    assert StageSums().stages() == ()
