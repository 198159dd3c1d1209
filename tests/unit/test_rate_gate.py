"""A worker's own gate: it asks for few calls at a time, and makes none that was not granted just now."""

import threading
import time

import pytest

from batchrunner.spec.rates import RateLimitSpec
from batchrunner.worker.gate import CallOutcome
from batchrunner.worker.rate_budget import Grant, RateBudget
from batchrunner.worker.rate_gate import SharedGate
from tests.patience import PATIENCE


class Place:
    """Where the budget is: takes reports, and answers what the test says."""

    def __init__(self, *grants):
        self.reports, self.grants = [], list(grants)
        self.is_gone = False

    def __call__(self, report):
        if self.is_gone:
            raise ConnectionError("the budget is gone")
        self.reports.append(report)
        return self.grants.pop(0) if report.wanted and self.grants else Grant(0, 0.01)

    def told(self, name):
        return sum(getattr(report, name) for report in list(self.reports))


@pytest.fixture
def opened():
    gates = []

    def open_(exchange, limit="100/s", **facts):
        gates.append(SharedGate(exchange, RateLimitSpec(requests=limit), holder="w", **facts))
        return gates[-1]

    yield open_
    for gate in gates:
        gate.close()


def until(is_true):
    deadline = time.monotonic() + PATIENCE
    while not is_true():
        assert time.monotonic() < deadline
        time.sleep(0.002)


def admitted(gate):
    until(lambda: gate.enter() == 0.0)


def test_a_call_waits_until_it_is_granted(opened):
    """And is granted once: the second one has to ask again."""
    place = Place(Grant(1, 0.0))
    gate = opened(place, limit="1/h", clock=lambda: 0.0)
    assert gate.enter() > 0.0

    admitted(gate)
    assert gate.enter() > 0.0


def test_who_waits_for_a_pause_knows_how_long_it_is(opened):
    """The gate asks on meanwhile, and a call that waits can end at a stop."""
    place = Place(Grant(0, 0.01, pause=600.0))
    gate = opened(place, clock=lambda: 0.0)

    until(lambda: gate.enter() == 600.0)


def test_what_calls_came_to_is_reported_once(opened):
    """The budget is settled by it, and other workers slow down for it."""
    place = Place(Grant(4, 0.0))
    gate = opened(place, clock=lambda: 0.0)
    for _ in range(4):
        admitted(gate)
    gate.leave(CallOutcome({"total_tokens": 7}))
    gate.leave(CallOutcome({"prompt_tokens": 2, "completion_tokens": 3}))
    gate.leave(CallOutcome())
    gate.leave(CallOutcome(is_refused=True, retry_after=3.0))

    until(lambda: place.told("ended") == 4)
    until(lambda: place.reports[-1].held == 0 and place.reports[-1].ended == 0)
    facts = [place.told(name) for name in ("tokens", "unreported", "refused", "retry_after")]
    assert facts == [12, 1, 1, 3.0]


def test_a_call_that_is_not_begun_in_time_is_given_back(opened):
    """Made late, it would add to the calls that others make then."""
    now = [0.0]
    place = Place(Grant(2, 0.0))
    gate = opened(place, clock=lambda: now[0])
    admitted(gate)
    until(lambda: place.reports[-1].held == 2)
    now[0] = 5.0

    assert gate.enter() > 0.0
    until(lambda: place.told("unused") == 1)


def test_without_the_budget_no_call_is_made(opened):
    """Not even after long; and what has ended meanwhile is reported when it is back."""
    place = Place(Grant(1, 0.0), Grant(5, 0.0))
    gate = opened(place, clock=lambda: 0.0)
    admitted(gate)
    place.is_gone = True
    gate.leave(CallOutcome({"total_tokens": 9}))
    assert all(gate.enter() > 0.0 for _ in range(50))

    place.is_gone = False
    admitted(gate)
    until(lambda: (place.told("ended"), place.told("tokens")) == (1, 9))


def test_many_callers_share_a_budget_without_a_request_each(opened):
    """A request to another process for each call would bound the rate."""
    budget, lock, asked = RateBudget(RateLimitSpec(requests="5000/s")), threading.Lock(), []

    def exchange(report):
        with lock:
            asked.append(report)
            return budget.exchange(report)

    gates = [
        SharedGate(exchange, RateLimitSpec(requests="5000/s"), holder=f"w{n}") for n in range(4)
    ]
    made = []

    def call(gate):
        while len(made) < 4000:
            wait = gate.enter()
            if wait:
                time.sleep(wait)
            else:
                made.append(time.monotonic())
                gate.leave(CallOutcome())

    threads = [threading.Thread(target=call, args=(gate,)) for gate in gates for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    for gate in gates:
        gate.close()
    assert len(made) >= 4000
    assert len(asked) < len(made)
