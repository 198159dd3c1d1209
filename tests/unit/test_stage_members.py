"""Which worker of a stage gets which call."""

from __future__ import annotations

from batchrunner.execute.stage_members import Call, Kept, Member, Phase, best
from batchrunner.worker.stage_pool import Span


def a_call(*nodes, deaths=0):
    """A call with ten rows of each of *nodes*."""
    return Call([Span(Kept(None, node), 0, 10) for node in nodes], deaths=deaths)


def a_member(*calls, node="here", phase=Phase.READY):
    member = Member(None, 0.0, phase=phase, node=node)
    for call in calls:
        member.begin(call, 0.0)
    return member


def test_the_worker_with_the_fewest_calls_gets_the_next():
    """One runs and one waits: a third would wait while another worker idles."""
    busy, full, idle = a_member(a_call("")), a_member(a_call(""), a_call("")), a_member()

    assert best([full, busy, idle], a_call("there")) is idle
    assert best([full, busy], a_call("there")) is busy
    assert best([full], a_call("there")) is None


def test_of_workers_alike_the_one_where_the_rows_are_gets_them():
    """Most of its rows need not travel."""
    here, there = a_member(node="here"), a_member(node="there")

    assert best([here, there], a_call("here", "there", "there")) is there


def test_a_call_that_a_worker_died_over_has_the_next_one_for_itself():
    """If that dies, too, no other call was there to be suspected."""
    busy, idle = a_member(a_call("")), a_member()
    suspect = a_call("", deaths=1)

    assert best([busy], suspect) is None
    assert best([busy, idle], suspect) is idle
    idle.begin(suspect, 0.0)
    assert best([idle], a_call("")) is None


def test_a_worker_that_loads_or_leaves_gets_no_call():
    """The one cannot, and the other would never leave."""
    loading, leaving = a_member(phase=Phase.LOADING), a_member(phase=Phase.LEAVING)

    assert best([loading, leaving], a_call("")) is None


def test_a_call_is_late_by_the_time_that_it_was_at_work():
    """What it waited behind another call at the same worker does not count."""
    first, second = a_call(""), a_call("")
    member = a_member(first, second)

    assert member.late(before=1.0) is first
    member.end(first, 5.0)
    assert member.late(before=4.0) is None
    assert member.late(before=6.0) is second
