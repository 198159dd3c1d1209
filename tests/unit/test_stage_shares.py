"""How many workers each stage gets: what the slowest needs, and no more than there is room for."""

from batchrunner.execute.stage_shares import StageLoad, shares


def in_all(cpus, *, each=1):
    return lambda counts: sum(counts) * each <= cpus


def test_the_accelerator_gets_what_it_takes_to_feed_it():
    """W6: 2 ms a row on the accelerator need five workers of 10 ms, and a margin for jitter."""
    loads = [
        StageLoad(1, seconds=0.010),
        StageLoad(1, most=1, seconds=0.002),
        StageLoad(1, seconds=0.0002),
    ]

    assert shares(loads, in_all(64)) == [7, 1, 1]


def test_cpus_go_from_the_stage_that_does_not_need_them():
    """The fast stage has four of eight CPUs, and keeps the one that it needs."""
    loads = [StageLoad(4, seconds=0.010), StageLoad(4, seconds=0.001, is_short=False)]

    assert shares(loads, in_all(8)) == [7, 1]


def test_what_there_is_is_shared_out_as_long_as_nothing_is_known():
    """Before the first call has ended, no stage is slower than another."""
    assert shares([StageLoad(1), StageLoad(1), StageLoad(1)], in_all(7)) == [3, 2, 2]


def test_a_stage_behind_a_loading_accelerator_gets_one_worker():
    """A model loads for minutes: what is behind it would only hold CPUs."""
    loads = [StageLoad(1), StageLoad(1, most=1), StageLoad(1, is_behind=True)]

    assert shares(loads, in_all(8)) == [6, 1, 1]


def test_pinned_stages_keep_their_number():
    """`concurrency: 3` is three workers, whatever they do."""
    loads = [StageLoad(3, least=3, most=3, seconds=0.1), StageLoad(1, seconds=0.001)]

    assert shares(loads, in_all(64)) == [3, 1]


def test_a_stage_in_front_of_which_nothing_waits_does_not_grow():
    """At the end of a run, and where the source is slow, more workers would start for nothing."""
    loads = [StageLoad(1, seconds=0.1, is_short=False), StageLoad(1, seconds=0.001)]

    assert shares(loads, in_all(64)) == [1, 1]


def test_when_the_slowest_has_no_room_the_others_get_no_more():
    """Two GPUs: the stage in front of them gets what two of its workers need, not all CPUs."""

    def fits(counts):
        return counts[1] <= 2 and sum(counts) <= 100

    loads = [StageLoad(1, seconds=0.010), StageLoad(1, seconds=0.004)]

    assert shares(loads, fits) == [7, 2]
