"""The progress of a session, from receipts and from heartbeats."""

from dataclasses import replace

import pytest

from batchrunner.checkpoint import Sentinel
from batchrunner.driver.progress import FromStart, Phase, Progress
from batchrunner.driver.tracker import Tracker
from batchrunner.shard import Slicing
from batchrunner.spec import ErrorsSpec
from batchrunner.views.progress_text import line
from batchrunner.worker.heartbeat import Heartbeat, WorkerPhase
from shards import one_slice


def a_shard(number, *, slicing=Slicing.BYTES, rows=None, weight=100):
    return one_slice(number, "/in", slicing, 0, weight, weight, "x", rows=rows, weight=weight)


def a_sentinel(number, *, rows_in=10, rows_failed=0):
    out = rows_in - rows_failed
    return Sentinel("r", number, "p", rows_in, out, rows_failed, 1, "s", "w", "s", 0.1)


def a_tracker(shards, committed=(), *, quarantined=(), **errors):
    before = {number: a_sentinel(number) for number in committed}
    pending = [one for one in shards if one.id not in {*committed, *quarantined}]
    begun = Progress.of(shards, before, pending=pending)
    return Tracker(begun, shards, ErrorsSpec(**errors))


def a_beat(rows, nbytes=None, *, phase=WorkerPhase.RUNNING):
    return Heartbeat("a", phase, rows=rows, bytes=nbytes or dict.fromkeys(rows, 0))


def test_the_phase_goes_from_starting_over_loading_to_running():
    """What takes long before the first row is named."""
    tracker = a_tracker([a_shard(0)])
    phases = [tracker.progress().phase]
    tracker.hear(Heartbeat("", WorkerPhase.LOADING))
    phases.append(tracker.progress().phase)
    tracker.is_ready()
    phases.append(tracker.progress().phase)

    assert phases == [Phase.STARTING, Phase.LOADING, Phase.RUNNING]
    assert tracker.progress().workers == 0
    assert tracker.finishing(failed=0).phase is Phase.FINISHING


def test_each_shard_has_a_state():
    """The map of a live view: done earlier, done now, failed, in flight, pending."""
    shards = [a_shard(number) for number in range(6)]
    tracker = a_tracker(shards, [0], quarantined=[5])
    tracker.commit(1, a_sentinel(1))
    tracker.fail(2)
    tracker.hear(a_beat({3: 1}))

    assert tracker.progress().states == b"=#x~.x"
    assert tracker.finishing(failed=1).states == b"=#x..x"
    assert tracker.progress().resumed == 1


def test_a_shard_that_storage_failed_is_pending_again_in_the_next_round():
    """It is no failure until the session gives it up."""
    shards = [a_shard(0), a_shard(1)]
    tracker = a_tracker(shards)
    tracker.fail(0)
    tracker.begin(shards[:1], failed=0)
    before = tracker.progress().states
    tracker.hear(a_beat({0: 1}))

    assert (before, tracker.progress().states) == (b"..", b"~.")


@pytest.mark.parametrize(
    ("shard", "nbytes", "share"),
    [
        (a_shard(1, slicing=Slicing.ROWS, rows=40), 0, 0.25),
        (a_shard(1), 30, 0.3),
        (a_shard(1, slicing=Slicing.FILE), 5000, 0.5),  # a row of the committed one weighs 5
        (a_shard(1, slicing=Slicing.ROWS, rows=5), 0, 1.0),
    ],
)
def test_the_share_moves_within_a_shard(shard, nbytes, share):
    """By rows where planning counted them, by bytes of a plain file, else as in committed shards."""
    tracker = a_tracker([a_shard(0, weight=50), shard], [0])
    tracker.hear(a_beat({1: 10}, {1: nbytes}))
    progress = tracker.progress()

    assert progress.share == pytest.approx((50 + 100 * share) / 150)
    assert progress.rows_in_flight == 10
    assert progress.totals.rows_in == 10


def test_the_time_left_counts_from_when_a_worker_was_ready_and_moves_within_a_shard():
    """Loading a model takes as long for a small run as for a large one."""
    tracker = a_tracker([a_shard(0), a_shard(1)])
    tracker.is_ready()
    tracker.hear(a_beat({0: 5}, {0: 50}))
    progress = tracker.progress()
    assert progress.seconds_left() is None  # no figure before there is a rate

    later = replace(progress, began=progress.began - 1000, loaded=progress.loaded - 100)

    left = later.seconds_left()
    assert left is not None
    assert 300 <= left <= 330


def test_the_budget_is_extrapolated_once_there_is_a_committed_shard():
    """Before that, a share of an unknown number of rows is unknown."""
    shards = [a_shard(0), a_shard(1)]
    by_share, by_count = a_tracker(shards, max_row_errors=0.1), a_tracker(shards, max_row_errors=7)
    before = by_share.progress().rows_allowed, by_count.progress().rows_allowed
    by_share.commit(0, a_sentinel(0, rows_in=50))

    assert before == (None, 7)
    assert by_share.progress().rows_allowed == 10


def test_a_budget_that_is_a_share_moves_until_all_is_committed():
    """What moves is marked: the same budget was 50 rows, then 49."""
    shards = [a_shard(0), a_shard(1)]
    by_share, by_count = a_tracker(shards, max_row_errors=0.1), a_tracker(shards, max_row_errors=7)
    by_share.commit(0, a_sentinel(0, rows_in=50))
    moves = by_share.progress().is_extrapolated, by_count.progress().is_extrapolated
    by_share.commit(1, a_sentinel(1, rows_in=50))

    assert moves == (True, False)
    assert not by_share.progress().is_extrapolated


def test_no_time_left_is_estimated_while_one_shard_takes_far_longer_than_usual():
    """`2s left` stood beside a row that hung."""
    tracker = a_tracker([a_shard(0), a_shard(1), a_shard(2, weight=400)])
    tracker.is_ready()
    tracker.commit(0, a_sentinel(0))  # in 0.1 s
    tracker.hear(a_beat({2: 1}))
    progress = tracker.progress()
    running = replace(progress, loaded=progress.loaded - 100)

    assert progress.usual_seconds == pytest.approx(0.4)  # it is four times as large
    assert not replace(running, slowest=(2, 4.0)).waits
    assert replace(running, slowest=(2, 4.0)).seconds_left() is not None
    assert replace(running, slowest=(2, 22.0)).seconds_left() is None
    assert "waiting for shard 2, 22s" in line(replace(running, slowest=(2, 22.0)))
    assert not replace(running, slowest=(2, 22.0), usual_seconds=9.0).waits


def test_what_is_stored_has_no_states():
    """A hundred thousand shards would be a hundred kilobytes at each renewal of the lease."""
    tracker = a_tracker([a_shard(number) for number in range(1000)])
    tracker.hear(a_beat({3: 1}))
    facts = tracker.progress().to_dict()

    assert facts["phase"] == "loading"
    assert (facts["slowest_shard"], facts["shards"], facts["workers_busy"]) == (3, 1000, 1)
    assert len(str(facts)) < 1000


def test_a_display_that_raises_is_shown_nothing_more(caplog):
    """A terminal may be gone, or a user's display wrong: a run of days must not end for it."""
    shown = []

    class Breaks:
        def show(self, progress):
            shown.append(progress.phase)
            raise ValueError("no room")

        def close(self):
            shown.append("closed")

    display = FromStart(Breaks())
    for _ in range(2):
        display.show(Progress.before_the_survey())
    display.close()

    assert shown == [Phase.SURVEYING, "closed"]
    assert "the display raised ValueError('no room')" in caplog.text


def test_all_progress_of_a_session_began_when_it_did():
    """The survey is part of it, although it knows no shards yet."""
    shown = []

    class Shown:
        def show(self, progress):
            shown.append(progress.began)

        def close(self):
            shown.append("closed")

    display = FromStart(Shown())
    display.show(Progress.before_the_survey())
    display.show(a_tracker([a_shard(0)]).progress())
    display.close()

    assert shown == [display.began, display.began, "closed"]
