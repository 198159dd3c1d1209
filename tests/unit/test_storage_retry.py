import asyncio

import pytest

from batchrunner.storage.s3.retry import AttemptError, RetryPolicy, Timing, retrying


class FailedError(AttemptError):
    def __init__(self, *, passes=True, retry_after=0.0):
        self.passes = passes
        self.retry_after = retry_after


class FakeTime:
    """A clock that only sleeping moves, and chance that is always the worst."""

    def __init__(self, *, chance=1.0):
        self.now = 0.0
        self.slept = []
        self.timing = Timing(clock=lambda: self.now, sleep=self.sleep, random=lambda: chance)

    async def sleep(self, seconds):
        self.slept.append(seconds)
        self.now += seconds


def run(outcomes, *, time, **policy):
    """Attempt after attempt, as *outcomes* say: a failure to raise, or what to return."""
    left = iter(outcomes)
    allowed = []

    async def attempt(seconds):
        allowed.append(seconds)
        outcome = next(left)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    policy = RetryPolicy(**{"deadline": 100.0, "first_delay": 1.0, "max_delay": 5.0} | policy)
    answer = asyncio.run(retrying(attempt, policy=policy, timing=time.timing))
    return answer, allowed


def test_what_passes_is_tried_again():
    """One 503 is no reason to fail a shard."""
    answer, _ = run([FailedError(), FailedError(), "done"], time=FakeTime())

    assert answer == "done"


def test_what_does_not_pass_is_raised_at_once():
    """A wrong password does not get better."""
    time = FakeTime()
    with pytest.raises(FailedError) as caught:
        run([FailedError(passes=False)], time=time)

    assert (time.slept, caught.value.attempts) == ([], 1)


def test_delays_double_up_to_the_longest():
    """A store in trouble is left alone for longer and longer, but not for ever."""
    time = FakeTime()
    run([FailedError()] * 5 + ["done"], time=time)

    assert time.slept == [1, 2, 4, 5, 5]


@pytest.mark.parametrize("chance", [0.0, 0.25, 1.0])
def test_any_delay_from_nothing_to_the_longest_is_possible(chance):
    """Full jitter: a thousand workers that failed together do not come back together."""
    time = FakeTime(chance=chance)
    run([FailedError(), FailedError(), "done"], time=time)

    assert time.slept == [chance, 2 * chance]


def test_attempts_are_counted_and_bounded():
    """The error says how often it was tried."""
    with pytest.raises(FailedError) as caught:
        run([FailedError() for _ in range(9)], time=FakeTime(), max_attempts=4)

    assert caught.value.attempts == 4


def test_retry_after_is_a_lower_bound():
    """The other side knows better than our dice."""
    time = FakeTime(chance=0.0)
    run([FailedError(retry_after=7.0), FailedError(), "done"], time=time)

    assert time.slept == [7, 0]


def test_nothing_is_awaited_beyond_the_deadline():
    """Waiting only to find that the time is up helps nobody."""
    time = FakeTime()
    with pytest.raises(FailedError) as caught:
        run([FailedError(), FailedError(retry_after=60.0), "never"], time=time, deadline=10.0)

    assert (time.slept, caught.value.attempts) == ([1], 2)


def test_each_attempt_learns_how_much_time_is_left():
    """So that one that hangs ends with the deadline."""
    _, allowed = run([FailedError(), FailedError(), "done"], time=FakeTime(), deadline=10.0)

    assert allowed == [10, 9, 7]
