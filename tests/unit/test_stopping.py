"""One clock for all that has to happen between a stop and the end of the process."""

from __future__ import annotations

import pytest

from batchrunner.driver.session import Stop, StopReason
from batchrunner.worker.stopping import Grace


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
