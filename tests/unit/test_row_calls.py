"""Row by row: a failure costs its row, an answer is asked for once, and a wait is no attempt."""

from __future__ import annotations

import asyncio
import re
import threading
import urllib.error
from collections import Counter
from datetime import UTC, datetime, timedelta
from email.message import Message
from email.utils import format_datetime
from functools import partial
from itertools import count
from types import SimpleNamespace

import pytest
import requests

from batchrunner.spec import ErrorsSpec
from batchrunner.spec.retrying import RetrySpec
from batchrunner.user_code import place_in_code
from batchrunner.worker.gate import CallOutcome
from batchrunner.worker.lost_calls import CallStoppedError
from batchrunner.worker.metering import MeteredGate, outcome_of_error
from batchrunner.worker.retrying import RetryPolicy, Trouble, trouble_of
from batchrunner.worker.row_attempts import RowRules
from batchrunner.worker.row_call import Answered, Failed, RowCall
from batchrunner.worker.row_calls import RowCalls
from batchrunner.worker.waiting import Waits
from patience import PATIENCE


class Service:
    """Fails each row in its own way, so many times, and counts the calls; *fault* is called with the row."""

    def __init__(self, faults=(), *, is_async=True):
        self.faults, self.asked = {row: list(some) for row, some in dict(faults).items()}, Counter()
        self.function = self.later if is_async else self.at_once

    def at_once(self, row):
        self.asked[row["id"]] += 1
        if faults := self.faults.get(row.pop("id")):
            fault = faults.pop(0) if len(faults) > 1 else faults[0]
            if fault is not None:
                raise fault
        return {"ok": True}

    async def later(self, row):
        await asyncio.sleep(0)
        return self.at_once(row)


def a_caller(service, *, waits=None, max_concurrency=4, row_timeout=None, **retry):
    errors = ErrorsSpec(retry=retry, row_timeout=row_timeout)
    rules = RowRules(errors, max_concurrency=max_concurrency)
    return RowCalls(service.function, {}, rules=rules, waits=waits)


def outcomes(calls, rows):
    return calls.call([{"id": n} for n in range(rows)], again=lambda n: {"id": n})


def kinds(found):
    return ["?" if one is None else "ok" if isinstance(one, Answered) else "bad" for one in found]


def error(message="no", **attributes):
    made = ConnectionError(message)
    for name, value in attributes.items():
        setattr(made, name, value)
    return made


IN_BOTH_WAYS = pytest.mark.parametrize("is_async", [False, True], ids=["in turn", "at once"])


@IN_BOTH_WAYS
def test_a_row_that_fails_costs_its_own_attempts_and_no_call_of_its_neighbours(is_async):
    """A paid API was asked for them some twelve times more, until the batch was halved down to it."""
    service = Service({3: [error()], 5: [error(), None]}, is_async=is_async)
    calls = a_caller(service)

    found = outcomes(calls, 8)
    calls.close()

    assert kinds(found) == ["ok", "ok", "ok", "bad", "ok", "ok", "ok", "ok"]
    assert service.asked == {**dict.fromkeys(range(8), 1), 3: 3, 5: 2}


@IN_BOTH_WAYS
@pytest.mark.parametrize("attempts", [1, 3])
def test_what_fails_everything_is_called_for_a_few_rows_only(is_async, attempts):
    """Broken code must not be called three times for each row of a batch."""
    service = Service({n: [error()] for n in range(500)}, is_async=is_async)
    calls = a_caller(service, max_attempts=attempts)

    found = outcomes(calls, 500)
    calls.close()

    assert service.asked.total() <= attempts + 4
    assert kinds(found).count("?") >= 495
    assert str(calls.doubt) == "no"


def test_rows_left_alone_are_called_once_another_one_has_its_answer():
    """The first row may be the only bad one."""
    service = Service({0: [error()]})
    calls = a_caller(service, max_concurrency=1)

    found, still = outcomes(calls, 6), outcomes(calls, 6)
    [alone] = calls.call([{"id": 4}], again=lambda _: {"id": 4})  # whatever was before
    then = outcomes(calls, 6)
    calls.close()

    assert kinds(found) == ["bad", *"?????"]
    assert kinds(still) == ["?"] * 6
    assert isinstance(alone, Answered)
    assert kinds(then) == ["bad", *["ok"] * 5]


@IN_BOTH_WAYS
def test_a_wait_that_the_service_asks_for_is_no_attempt(is_async):
    """Ten refusals and one attempt allowed: the row has its answer in the end."""
    refusals = [error(retry_after=0.01)] * 10
    service = Service({2: [*refusals, None]}, is_async=is_async)
    calls = a_caller(service, max_attempts=1)

    found = outcomes(calls, 4)
    calls.close()

    assert kinds(found) == ["ok"] * 4
    assert service.asked[2] == 11


@IN_BOTH_WAYS
def test_a_service_that_refuses_for_ever_ends_with_its_refusal(is_async):
    """No run waits for ever: `max_wait` ends its attempts, and the error says so."""
    service = Service({2: [error("busy", retry_after=0.01)]}, is_async=is_async)
    calls = a_caller(service, max_attempts=2, max_wait=0.1)

    found = outcomes(calls, 4)
    calls.close()

    assert kinds(found) == ["ok", "ok", "bad", "ok"]
    assert re.fullmatch(
        r"busy \(not tried again: the service wants no call for 0 s, and a row waits 0 s in all, see "
        r"errors.retry.max_wait\)",
        str(found[2].error),
    )
    assert 2 <= service.asked[2] <= 11


@IN_BOTH_WAYS
def test_a_wait_longer_than_all_that_is_allowed_is_not_begun(is_async):
    """A quota of tomorrow is no reason to sit until then, and another attempt would be refused, too."""
    tomorrow = [error("busy", retry_after=86_400), error("broken", status=500, retry_after=1e9)]
    service = Service({n: [one] for n, one in enumerate(tomorrow, 1)}, is_async=is_async)
    calls = a_caller(service, max_attempts=5)

    found = outcomes(calls, 3)
    calls.close()

    assert kinds(found) == ["ok", "bad", "bad"]
    assert service.asked == {0: 1, 1: 1, 2: 1}
    why = "not tried again: the service wants no call for {} s, and a row waits 3,600 s in all, see errors.retry.max_wait"
    assert str(found[1].error) == f"busy ({why.format('86,400')})"
    assert str(found[2].error) == f"broken ({why.format('1,000,000,000')})"
    assert place_in_code(found[2].error) == place_in_code(tomorrow[1]) != ""
    assert [one.error.type_name for one in found[1:]] == ["ConnectionError"] * 2


class Pauses:
    """A gate that keeps for how long calls say that all are to wait."""

    is_open = False

    def __init__(self):
        self.said = []

    def enter(self):
        return 0.0

    def leave(self, outcome):
        self.said.append((outcome.is_refused, outcome.retry_after))


@IN_BOTH_WAYS
def test_only_a_refusal_stops_all(is_async):
    """A page that is under repair for an hour concerns its row; a pause that no row waits for concerns nobody."""
    faults = [
        *(error(status=429, retry_after=0.01), error(status=529, retry_after=0.02)),
        *(error(status=503, retry_after=0.03), error(retry_after=0.04)),
        *(error(status=500, retry_after=0.05), error(status=404, retry_after=0.06)),
        *(error(status=429), error(status=503), error(status=429, retry_after=1e9)),
        *(error(status=429, retry_after=-1), error(status=429, retry_after="soon")),
    ]
    service = Service({n: [one, None] for n, one in enumerate(faults, 1)}, is_async=is_async)
    gate = Pauses()
    meter = MeteredGate(gate, max_wait=60.0)
    rules = RowRules(ErrorsSpec(retry={"max_wait": 60}), max_concurrency=1)
    calls = RowCalls(service.function, {}, rules=rules, meter=meter)
    outcomes(calls, len(faults) + 1)
    calls.close()

    said = [*((True, seconds) for seconds in (0.01, 0.02, 0.03, 0.04)), *[(True, 0.0)] * 4]
    assert [one for one in gate.said if one != (False, 0.0)] == said
    assert [outcome_of_error(one) for one in faults[4:6]] == [CallOutcome()] * 2  # of a batch


@IN_BOTH_WAYS
def test_a_stop_that_leaves_no_time_for_a_wait_ends_it(is_async):
    """The grace period is for work; the row is no dead letter, it was not tried."""
    waits = Waits(drain=1.0)
    waits.stop = SimpleNamespace(waited=lambda: 0.5)
    service = Service({0: [error(retry_after=600)]}, is_async=is_async)
    calls = a_caller(service, waits=waits)

    with pytest.raises(CallStoppedError):
        outcomes(calls, 1)
    calls.close()


def test_a_call_that_hangs_is_cancelled_and_tried_again():
    """3 % of the calls of a service may hang; its client may have no limit."""
    hung = []

    async def hangs_once(row):
        if row["id"] == 1 and not hung:
            hung.append(row)
            await asyncio.Event().wait()
        return row

    calls = a_caller(SimpleNamespace(function=hangs_once), row_timeout=0.2)

    assert kinds(outcomes(calls, 3)) == ["ok"] * 3
    calls.close()


def test_a_row_that_is_on_its_way_is_joined_and_not_asked_for_twice():
    """A shard is read again while calls of its last attempt are in flight."""
    loops, asked, go = [], [], asyncio.Event()
    has_begun = threading.Semaphore(0)

    async def waits(row):
        asked.append(row["id"])
        loops.append(asyncio.get_running_loop())
        has_begun.release()
        await go.wait()
        return row

    calls = a_caller(SimpleNamespace(function=waits), max_concurrency=9)
    rows = [RowCall({"id": n}, partial(dict, id=n)) for n in range(3)]
    calls.start(rows)
    assert all(has_begun.acquire(timeout=PATIENCE) for _ in rows)
    second = calls.start([*rows, RowCall({"id": 3}, dict)])
    assert has_begun.acquire(timeout=PATIENCE)  # of the one that is new
    loops[0].call_soon_threadsafe(go.set)

    assert kinds(second()) == ["ok"] * 4
    assert sorted(asked) == [0, 1, 2, 3]
    calls.close()


def test_no_more_calls_are_in_flight_than_are_allowed_over_all_batches():
    """`max_concurrency` is of the worker, not of a batch."""
    now, most = count(), []
    flying = set()

    async def flies(row):
        flying.add(row["id"])
        most.append(len(flying))
        await asyncio.sleep(0.001)
        flying.discard(row["id"])
        next(now)
        return row

    calls = a_caller(SimpleNamespace(function=flies), max_concurrency=5)
    answers = [
        calls.start([RowCall({"id": 10 * batch + n}, dict) for n in range(10)])
        for batch in range(4)
    ]

    assert all(kinds(answer()) == ["ok"] * 10 for answer in answers)
    assert max(most) == 5
    calls.close()


class OwnError(ConnectionResetError):
    """A subclass of the user's."""


RETRIED = [
    ({"retry_on": ["ConnectionError"]}, OwnError(), True),
    ({"retry_on": ["builtins.OSError"]}, OwnError(), True),
    ({"retry_on": ["OwnError"]}, ConnectionError(), False),
    ({"retry_on": ["test_row_calls.OwnError"]}, OwnError(), True),
    ({"retry_on": ["requests.RequestException"]}, requests.ConnectTimeout(), True),
    ({"retry_on": ["httpx.RequestException"]}, requests.ConnectTimeout(), False),
    ({"retry_on": [503]}, error(status_code=503), True),
    ({"retry_on": ["5xx"]}, error(status=507), True),
    ({"retry_on": ["5xx"]}, error(status=429), False),
    ({"retry_on": ["5xx"]}, ValueError(), False),
    ({"give_up_on": ["4xx", "ValueError"]}, error(status=404), False),
    ({"give_up_on": ["4xx", "ValueError"]}, UnicodeError(), False),
    ({"give_up_on": ["4xx", "ValueError"]}, error(status=500), True),
    ({"retry_on": ["OSError"], "give_up_on": ["ConnectionError"]}, OwnError(), False),
    ({}, ValueError(), True),
]


@pytest.mark.parametrize(("retry", "raised", "expected"), RETRIED)
def test_what_is_tried_again_is_named_by_type_or_status(retry, raised, expected):
    """A subclass is of its kind, as for `except`."""
    policy = RetryPolicy(RetrySpec(**retry))

    assert policy.may_retry(raised, trouble_of(raised)) is expected


def an_answer(status, **headers):
    response = requests.Response()
    response.status_code = status
    response.headers.update({name.replace("_", "-"): value for name, value in headers.items()})
    return requests.HTTPError(response=response)


def of_urllib(status, **headers):
    message = Message()
    for name, value in headers.items():
        message[name.replace("_", "-")] = value
    return urllib.error.HTTPError("http://x", status, "", message, None)


def of_botocore(status, **headers):
    headers = {name.replace("_", "-").lower(): value for name, value in headers.items()}
    return error(response={"ResponseMetadata": {"HTTPStatusCode": status, "HTTPHeaders": headers}})


@pytest.mark.parametrize("made", [an_answer, of_urllib, of_botocore])
def test_how_long_to_wait_is_read_as_clients_give_it(made):
    """Each client has the status and the header in another place."""
    in_a_minute = format_datetime(datetime.now(UTC) + timedelta(seconds=60), usegmt=True)

    assert trouble_of(made(429, Retry_After="7")) == Trouble(429, 7.0)
    assert trouble_of(made(503)) == Trouble(503, None)
    assert 50 < trouble_of(made(503, Retry_After=in_a_minute)).retry_after <= 60
    assert trouble_of(made(429, retry_after_ms="250")).retry_after == 0.25
    silly = ("soon", "", "-7", "nan", "inf", "9" * 400, "1e999", "12 o'clock")
    assert [trouble_of(made(429, Retry_After=one)) for one in silly] == [Trouble(429)] * 8
    yesterday = format_datetime(datetime.now(UTC) - timedelta(days=1), usegmt=True)
    assert trouble_of(made(429, Retry_After=yesterday)) == Trouble(429, 0.0)
    refused = [made(429, Retry_After="1"), made(503, Retry_After="1"), made(429)]
    assert all(trouble_of(one).is_refused for one in refused)
    assert not any(trouble_of(one).is_refused for one in (made(500, Retry_After="1"), made(503)))


def test_the_waits_between_attempts_grow_to_their_limit_and_are_chosen_at_random():
    """Full jitter: rows that failed together do not come back together."""
    spec = RetrySpec(backoff={"initial": 2, "factor": 3, "max": 20})
    longest, none = (RetryPolicy(spec, chance=lambda share=s: share) for s in (1.0, 0.0))

    assert [longest.pause(n, Trouble()) for n in (1, 2, 3, 4, 5000)] == [2, 6, 18, 20, 20]
    assert none.pause(4, Trouble()) == 0
    assert RetryPolicy(RetrySpec()).pause(3, Trouble()) == 0
    assert none.pause(1, Trouble(500, 5.0)) == 5.0  # it says so, though this was an attempt


def test_each_attempt_gets_the_row_as_it_was():
    """The call before may have changed it, as `Service` does."""
    service = Service({0: [error(), error(), None]}, is_async=False)

    [found] = outcomes(a_caller(service), 1)

    assert isinstance(found, Answered)
    assert service.asked == {0: 3}


def test_an_error_whose_attributes_raise_is_an_error_like_any_other():
    """Attributes of an error are the user's code, too."""

    class OddError(Exception):
        @property
        def response(self):
            raise RuntimeError("not now")

    [found] = outcomes(a_caller(Service({0: [OddError()]}, is_async=False)), 1)

    assert isinstance(found, Failed)
    assert isinstance(found.error, OddError)
