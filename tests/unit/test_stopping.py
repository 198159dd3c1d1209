"""One clock for all that has to happen between a stop and the end of the process."""

from __future__ import annotations

import pytest

from batchrunner.driver.session import Stop, StopReason
from batchrunner.testing.memory import MemoryStorage
from batchrunner.worker.stopping import ENDS_SHARDS, Grace, StoredStop, stop_key


@pytest.mark.parametrize("seconds", [0.5, 5.0, 25.0, 600.0])
def test_workers_end_before_the_driver_leaves_and_that_before_it_is_forced(seconds):
    """A worker hears of the stop late, and the lease is given back within the time that is left."""
    grace = Grace(seconds)

    assert 0 < grace.drain + grace.poll < grace.leave < grace.force < grace.seconds


def test_the_default_is_over_before_kubernetes_kills():
    """It does after 30 s."""
    assert Grace().seconds == 25
    assert Grace().leave < 20


def test_a_stop_that_is_hurried_waits_for_nothing():
    """The second Ctrl-C."""
    stop = Stop(max_runtime=None)
    stop.request(StopReason.INTERRUPTED)
    assert stop.is_patient

    stop.hurry()

    assert not stop.is_patient
    assert not stop.is_overdue
    assert stop.reason is StopReason.INTERRUPTED


def test_nothing_is_overdue_without_a_stop():
    """An hour of work is no stop."""
    stop = Stop(max_runtime=None, grace=Grace(1e-9))

    assert not stop.is_overdue
    assert stop.is_patient


@pytest.mark.parametrize(("data", "ends"), [(b"", False), (ENDS_SHARDS, True)])
def test_workers_learn_from_the_stored_stop_whether_to_end_their_shards(data, ends):
    """On another machine, it is all that they see of the driver's reason."""
    storage = MemoryStorage(f"memory://stops-{ends}")
    stop = StoredStop(storage, "s", poll=0.0)
    assert (stop.waited(), stop.ends_shards) == (0.0, False)

    storage.put(stop_key("s"), data)
    assert stop.waited() > 0
    assert stop.ends_shards is ends


def test_only_the_cost_ends_shards():
    """After a signal or a deadline they are finished, if that goes in time."""
    for reason in StopReason:
        stop = Stop(max_runtime=None)
        stop.request(reason)
        assert stop.ends_shards is (reason in {StopReason.MAX_COST, StopReason.NO_COST})
