"""What workers are at, by heartbeats of which any may be lost, late or doubled."""

from batchrunner.driver.in_flight import SILENT_SECONDS, InFlight
from batchrunner.worker.heartbeat import Heartbeat, WorkerPhase


class Clock:
    """A clock that stands still until it is moved."""

    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


def a_beat(worker="a", *, phase=WorkerPhase.RUNNING, **rows):
    by_id = {int(name[1:]): count for name, count in rows.items()}
    return Heartbeat(worker, phase, rows=by_id, bytes={i: 10 * n for i, n in by_id.items()})


def in_flight(*beats):
    clock = Clock()
    seen = InFlight(clock=clock)
    for beat in beats:
        seen.hear(beat)
    return seen, clock


def test_workers_that_load_or_wait_are_counted_but_are_not_busy():
    """A person sees that the model of one of three is still loading."""
    seen, _ = in_flight(
        a_beat("a", phase=WorkerPhase.LOADING),
        a_beat("b", s1=5),
        a_beat("c", phase=WorkerPhase.IDLE),
    )

    assert (seen.seen().workers, seen.seen().busy, seen.seen().rows) == (3, 1, {1: 5})


def test_a_committed_shard_leaves_for_good_although_a_late_heartbeat_names_it():
    """Its rows are counted as committed: counted twice, the bar would pass its end."""
    seen, _ = in_flight(a_beat(s1=5, s2=6))
    seen.end(1)
    seen.hear(a_beat(s1=5, s2=7))

    assert seen.seen().rows == {2: 7}


def test_a_shard_that_is_handed_out_again_counts_again():
    """Storage failed it, and the next round tries once more."""
    seen, _ = in_flight(a_beat(s1=5))
    seen.end(1)
    seen.begin_again([1])
    seen.hear(a_beat(s1=2))

    assert seen.seen().rows == {1: 2}


def test_the_rows_of_a_dead_worker_leave_the_count():
    """They will be made again."""
    seen, clock = in_flight(a_beat("dead", s1=50))
    clock.now += SILENT_SECONDS + 1
    seen.hear(a_beat("alive", s2=3))

    assert (seen.seen().workers, seen.seen().rows) == (1, {2: 3})


def test_a_death_names_the_shards_that_the_worker_had():
    """Once, to a person; what it had is not in flight any more."""
    seen, _ = in_flight(a_beat("host-17", s1=50, s4=0), a_beat("host-7", s2=3))
    seen.bury("17")

    (death,) = seen.deaths()
    assert (death.worker, death.shards) == ("host-17", (1, 4))
    assert str(death) == (
        "a worker died while it had shards 1, 4 (process host-17); its shards are tried one by one"
    )
    assert (seen.deaths(), seen.seen().workers, seen.seen().rows) == ([], 1, {2: 3})


def test_a_death_of_which_nothing_was_heard_before_is_said_all_the_same():
    """Before its first heartbeat: a row may kill within a second."""
    seen, _ = in_flight()
    seen.bury("17")

    assert str(seen.deaths()[0]) == "a worker died (process 17); its shards are tried one by one"


def test_the_worker_that_takes_over_a_shard_counts_from_its_own_start():
    """Not from where the dead one was."""
    seen, clock = in_flight(a_beat("dead", s1=50))
    clock.now += SILENT_SECONDS + 1
    seen.hear(a_beat("heir", s1=0))
    clock.now += 2

    assert (seen.seen().rows, seen.seen().slowest) == ({1: 0}, (1, 2.0))


def test_two_workers_at_one_shard_count_it_once():
    """Ray repeats a task although the first worker lives: only the connection to it was lost."""
    seen, clock = in_flight(a_beat("first", s1=50))
    for rows in range(3):
        clock.now += 1
        seen.hear(a_beat("second", s1=rows))
        seen.hear(a_beat("first", s1=60))

    assert (seen.seen().rows, seen.seen().slowest) == ({1: 60}, (1, 3.0))


def test_the_slowest_shard_is_the_one_in_flight_longest_and_grows_in_silence():
    """A call that hangs may hold its interpreter, so that its worker falls silent."""
    seen, clock = in_flight(a_beat("hangs", s7=0))
    for _ in range(3):
        clock.now += SILENT_SECONDS
        seen.hear(a_beat("works", s8=1))

    assert seen.seen().slowest == (7, 3 * SILENT_SECONDS)


def test_a_shard_that_its_worker_has_ended_is_not_the_slowest_although_no_receipt_came():
    """Ray drops receipts of a repeated task; the shard is looked up at the end."""
    seen, clock = in_flight(a_beat(s1=5))
    clock.now += 5
    seen.hear(a_beat(s2=1))
    clock.now += 1

    assert seen.seen().slowest == (2, 1.0)
    assert seen.seen().rows == {1: 5, 2: 1}


def test_a_worker_that_is_heard_seldom_is_not_taken_for_dead():
    """With five hundred workers, each sends every few seconds."""
    seen, clock = in_flight(a_beat(s1=1))
    clock.now += SILENT_SECONDS
    seen.hear(a_beat(s1=2))
    clock.now += 2 * SILENT_SECONDS

    assert seen.seen().workers == 1


def test_a_heartbeat_that_comes_twice_changes_nothing():
    """The transport may double it."""
    seen, _ = in_flight(a_beat(s1=5), a_beat(s1=5))

    assert (seen.seen().workers, seen.seen().rows, seen.seen().bytes) == (1, {1: 5}, {1: 50})
