"""The budget of calls: never more than the limit in any window, whatever the workers do; and no less than they need."""

import heapq
import itertools
import math
import pickle

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from batchrunner.spec.rates import RateLimitSpec, rate_of
from batchrunner.worker.gate import NO_GATE, CallOutcome
from batchrunner.worker.rate_bucket import lateness
from batchrunner.worker.rate_budget import LEASE_SECONDS, RateBudget, Report
from batchrunner.worker.rate_gate import OwnGate
from batchrunner.worker.turns import LONGEST_WAIT


class Clock:
    """A clock that the test turns."""

    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


def most_in_a_window(times, seconds, amounts=None):
    """The most that any window has, as a service counts: it looks back from each arrival."""
    times = sorted(zip(times, amounts or itertools.repeat(1), strict=False))
    first = total = most = 0
    for at, amount in times:
        total += amount
        while times[first][0] <= at - seconds:
            total -= times[first][1]
            first += 1
        most = max(most, total)
    return most


class Service:
    """Calls of several workers against a budget and a clock; each arrives a little later than it is made."""

    def __init__(self, limit, *, workers=1, late=lambda: 0.0, takes=lambda: 0.1, tokens=lambda: 0):
        self.clock = Clock()
        self.budget = RateBudget(limit, clock=self.clock)
        self.workers, self.late, self.takes, self.tokens = workers, late, takes, tokens
        self.arrived, self.used, self.most_in_flight = [], [], 0
        self._held, self._numbers = [0] * workers, itertools.count()
        self._under_way = []

    def report(self, worker, **facts):
        held = self._held[worker]
        return self.budget.exchange(Report(str(worker), next(self._numbers), held=held, **facts))

    def run(self, seconds, *, wanted=lambda: 1):
        """Let each worker make calls whenever it may, for so many *seconds*."""
        asks = [(self.clock.now, worker) for worker in range(self.workers)]
        until = self.clock.now + seconds
        while asks[0][0] < until:
            self.clock.now, worker = heapq.heappop(asks)
            self._end_calls()
            grant = self.report(worker, wanted=wanted())
            for _ in range(grant.calls):
                self._call(worker)
            self.most_in_flight = max(self.most_in_flight, sum(self._held))
            heapq.heappush(asks, (self.clock.now + max(grant.wait, 0.001), worker))

    def _call(self, worker):
        self._held[worker] += 1
        self.arrived.append(self.clock.now + self.late())
        self.used.append(self.tokens())
        ends = self.clock.now + self.takes()
        heapq.heappush(self._under_way, (ends, worker, self.used[-1]))

    def _end_calls(self):
        while self._under_way and self._under_way[0][0] <= self.clock.now:
            _, worker, tokens = heapq.heappop(self._under_way)
            self._held[worker] -= 1
            self.report(worker, ended=1, tokens=tokens)


def drawn(data, strategy):
    return lambda: data.draw(strategy)


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 200),
    st.sampled_from(["s", "min"]),
    st.integers(1, 8),
    st.integers(0, 2**32),
    st.integers(1, 50),
)
@example(1, "s", 8, 0, 1)
@example(60, "s", 8, 1, 50)
def test_no_window_of_the_service_has_more_than_the_limit(amount, unit, workers, seed, wanted):
    """Any number of workers, greedy or not, and calls that overtake each other on their way."""
    import random

    chance = random.Random(seed)
    limit = RateLimitSpec(requests=f"{amount}/{unit}")
    rate = rate_of(limit.requests)
    late = lambda: chance.random() * lateness(rate)  # noqa: E731
    service = Service(limit, workers=workers, late=late, takes=lambda: chance.expovariate(5))

    service.run(3 * rate.seconds, wanted=lambda: chance.randint(0, wanted))

    assert most_in_a_window(service.arrived, rate.seconds) <= amount


@pytest.mark.parametrize(
    ("limit", "share"),
    [("500/min", 0.95), ("60/s", 0.86), ("5000/s", 0.86), ("1/s", 0.85), ("0.5/s", 0.85)],
)
def test_the_limit_is_used(limit, share):
    """A budget that is never passed because it is never reached costs days."""
    service = Service(RateLimitSpec(requests=limit), workers=4)
    seconds = 4 * rate_of(limit).seconds

    service.run(seconds, wanted=lambda: 20)

    assert (
        len(service.arrived) >= share * rate_of(limit).amount / rate_of(limit).seconds * seconds - 1
    )


@pytest.mark.parametrize("tokens", [100, 3500, 40_000])
def test_tokens_keep_to_their_limit(tokens):
    """Also where a call takes a large share of it; the first answer says how many it takes."""
    service = Service(RateLimitSpec(tokens="100k/min"), workers=3, tokens=lambda: tokens)

    service.run(300, wanted=lambda: 5)

    # What was taken for granted before the first answer came is not held against the limit.
    later = [(at, n) for at, n in zip(service.arrived, service.used, strict=True) if at > 1060]
    most = most_in_a_window([at for at, _ in later], 60, [n for _, n in later])
    assert most <= 100_000
    assert sum(n for _, n in later) >= 0.75 * 100_000 * 240 / 60


def test_tokens_that_vary_are_settled():
    """What a call used more than the mean is missing for the next ones: the average holds."""
    sizes = itertools.cycle([100, 5000, 300, 200, 900])
    service = Service(RateLimitSpec(tokens="60k/min"), tokens=lambda: next(sizes))

    service.run(1200, wanted=lambda: 3)

    assert 0.9 * 1_200_000 <= sum(service.used) <= 1_200_000


def test_answers_without_usage_are_charged_the_average():
    """An API that reports tokens only now and then is not called without a limit."""
    clock = Clock()
    budget = RateBudget(RateLimitSpec(tokens="60k/min"), clock=clock)
    numbers, made, ended = itertools.count(), 0, {}
    for _ in range(6000):
        clock.now += 0.1
        grant = budget.exchange(Report("a", next(numbers), wanted=5, held=0, **ended))
        told = sum(number % 5 == 0 for number in range(made, made + grant.calls))
        ended = {"ended": grant.calls, "tokens": 1000.0 * told, "unreported": grant.calls - told}
        made += grant.calls

    assert made <= 600
    assert made >= 500


def test_places_are_never_more_than_those_in_flight():
    """`in_flight` is of all workers together."""
    service = Service(RateLimitSpec(in_flight=10), workers=6, takes=lambda: 0.5)

    service.run(60, wanted=lambda: 4)

    assert service.most_in_flight == 10
    assert len(service.arrived) >= 0.8 * 10 / 0.5 * 60


def test_every_worker_gets_places():
    """The first one to come would keep them all, and the shards of the others would wait."""
    service = Service(RateLimitSpec(in_flight=8), workers=4, takes=lambda: 1.0)

    service.run(5, wanted=lambda: 8)

    assert min(service._held) >= 1


def test_a_worker_that_died_gives_its_places_back():
    """Its process cannot: the budget waits until it has not heard of it for long, by its own clock."""
    clock = Clock()
    budget = RateBudget(RateLimitSpec(in_flight=4), clock=clock)
    assert budget.exchange(Report("dead", 0, wanted=4)).calls == 4

    assert budget.exchange(Report("alive", 0, wanted=4)).calls == 0
    clock.now += LEASE_SECONDS - 0.1
    assert budget.exchange(Report("alive", 1, wanted=4)).calls == 0
    clock.now += 0.2
    assert budget.exchange(Report("alive", 2, wanted=4)).calls == 4


def test_a_budget_that_is_made_again_hears_of_calls_under_way_first():
    """It cannot know what its predecessor has granted, so it grants nothing until it has asked."""
    clock = Clock()
    budget = RateBudget(RateLimitSpec(in_flight=4), clock=clock, quiet=2.0)

    assert budget.exchange(Report("a", 7, held=3, wanted=4)).calls == 0
    clock.now += 2.0
    assert budget.exchange(Report("b", 1, wanted=4)).calls == 1


def test_a_session_uses_nothing_of_the_one_before():
    """A run that is killed and started again at once has both in one window of the service."""
    arrived = []
    start = 0.0
    for seconds in (20, 7, 33):
        service = Service(RateLimitSpec(requests="120/min"))
        service.run(seconds, wanted=lambda: 50)
        arrived += [at - 1000.0 + start for at in service.arrived]
        start += seconds

    assert most_in_a_window(arrived, 60) <= 120
    assert len(arrived) >= 100


def test_refused_calls_shrink_the_rate_and_success_restores_it():
    """The limit in the spec may be more than the service allows just now."""
    clock = Clock()
    budget = RateBudget(RateLimitSpec(requests="100/s"), clock=clock)
    numbers = itertools.count()

    def pass_time(seconds, **facts):
        for _ in range(int(seconds * 10)):
            clock.now += 0.1
            budget.exchange(Report("a", next(numbers), wanted=0, **facts))

    pass_time(3, refused=1, ended=1)
    assert budget.share == pytest.approx(0.7**3)
    pass_time(60, refused=1, ended=1)
    assert 0 < budget.share <= 0.06  # it goes on trying
    pass_time(12, ended=1)
    assert budget.share == 1.0


def test_the_time_that_the_service_asks_for_is_kept_by_all():
    """`Retry-After` comes to one worker, and each would ask in vain."""
    clock = Clock()
    budget = RateBudget(RateLimitSpec(requests="100/s"), clock=clock)
    clock.now += 1.0
    budget.exchange(Report("a", 0, ended=1, refused=1, retry_after=30.0))

    for _ in range(29):
        clock.now += 1.0
        grant = budget.exchange(Report("b", int(clock.now), wanted=5))
        assert (grant.calls, grant.wait <= LONGEST_WAIT) == (0, True)
        assert grant.pause == pytest.approx(1031.0 - clock.now)
    clock.now += 1.5
    assert budget.exchange(Report("b", 0, wanted=1)).calls == 1


def test_what_was_not_used_is_granted_again():
    """A worker that asked ahead and stopped must not cost the others their calls."""
    clock = Clock()
    budget = RateBudget(RateLimitSpec(requests="1/h"), clock=clock)
    clock.now += 3700
    assert budget.exchange(Report("a", 0, wanted=1)).calls == 1
    assert budget.exchange(Report("b", 0, wanted=1)).calls == 0

    budget.exchange(Report("a", 1, unused=1))
    assert budget.exchange(Report("b", 1, wanted=1)).calls == 1


def test_a_report_that_comes_twice_counts_once():
    """Ray may deliver a call again."""
    clock = Clock()
    budget = RateBudget(RateLimitSpec(requests="1/h"), clock=clock)
    again = Report("a", 1, unused=1)
    clock.now += 3700
    budget.exchange(Report("a", 0, wanted=1))
    budget.exchange(again)
    budget.exchange(again)

    assert sum(budget.exchange(Report("b", n, wanted=1)).calls for n in range(3)) == 1


def test_askers_are_not_told_the_same_time():
    """A thousand callers that wake together ask together."""
    budget = RateBudget(RateLimitSpec(requests="100/s"), clock=Clock())
    waits = [budget.exchange(Report("a", n, wanted=1)).wait for n in range(50)]

    assert len({round(wait, 4) for wait in waits}) == 50
    assert max(waits) <= LONGEST_WAIT


def test_who_waits_for_a_pause_knows_how_long_it_is():
    """So a stop ends the wait; bit by bit, it would last as long as the grace period."""
    clock = Clock()
    gate = OwnGate(RateBudget(RateLimitSpec(requests="100/s"), clock=clock))
    clock.now += 1.0
    assert gate.enter() == 0.0
    gate.leave(CallOutcome(is_refused=True, retry_after=600.0))

    assert gate.enter() == 600.0
    clock.now += 599.5
    assert gate.enter() <= LONGEST_WAIT


def test_a_gate_of_its_own_process_is_the_budget():
    """The local engine needs no thread: what `enter` promised holds for each call."""
    clock = Clock()
    gate = OwnGate(RateBudget(RateLimitSpec(requests="60/min", in_flight=1), clock=clock))
    assert 0 < gate.enter() <= LONGEST_WAIT

    clock.now += 1.1
    assert gate.enter() == 0.0
    clock.now += 10.0
    assert gate.enter() > 0.0  # one is in flight
    gate.leave(CallOutcome())
    assert gate.enter() == 0.0


def test_no_limit_admits_everything():
    """Most runs have none."""
    assert [NO_GATE.enter() for _ in range(3)] == [0.0] * 3
    assert NO_GATE.leave(CallOutcome()) is None


def test_reports_and_answers_travel():
    """They go through Ray."""
    report = Report("a", 1, wanted=3)
    assert pickle.loads(pickle.dumps(report)) == report
    assert math.isfinite(RateBudget(RateLimitSpec(in_flight=1)).exchange(report).spacing)
