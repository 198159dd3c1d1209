"""What an answer says that it used: read from any shape, added up exactly, priced, and never a reason to fail."""

import itertools
import pickle

import numpy as np
import orjson
import pandas as pd
import pyarrow as pa
import pytest

from batchrunner.checkpoint.answers import answer_in
from batchrunner.checkpoint.documents import Sentinel
from batchrunner.user_code import CallRaisedError, contained
from batchrunner.worker.gate import CallOutcome
from batchrunner.worker.metering import MeteredGate, outcome_of_error
from batchrunner.worker.usage import (
    added,
    path_of,
    portable_with_usage,
    priced,
    tokens_in,
    usage_in,
    usage_of_error,
    usages_in,
)

OPENAI = {
    "prompt_tokens": 9,
    "completion_tokens": 12,
    "total_tokens": 21,
    "prompt_tokens_details": {"cached_tokens": 4, "audio_tokens": 0},
    "service_tier": "default",
}
READ = {
    "prompt_tokens": 9,
    "completion_tokens": 12,
    "total_tokens": 21,
    "prompt_tokens_details.cached_tokens": 4,
}
TWICE = {name: 2 * amount for name, amount in READ.items()}
ROWS = [{"id": 1, "usage": OPENAI}, {"id": 2}, {"id": 3, "usage": OPENAI}, {"id": 4, "usage": None}]


@pytest.mark.parametrize(
    "batch",
    [
        ROWS,
        tuple(ROWS),
        {"id": np.arange(4), "usage": np.array([row.get("usage") for row in ROWS], dtype=object)},
        {"id": [1, 2, 3, 4], "usage": [row.get("usage") for row in ROWS]},
        pd.DataFrame(ROWS),
        pa.table({"id": [1, 2, 3, 4], "usage": [row.get("usage") for row in ROWS]}),
    ],
    ids=["rows", "tuple", "numpy", "lists", "pandas", "pyarrow"],
)
def test_usage_is_read_from_every_batch_format(batch):
    """It is the same answer, whatever the capability returns it in."""
    assert usage_in(batch) == TWICE
    if not isinstance(batch, tuple):  # what a stage returned
        assert usages_in(batch) == [READ, {}, READ, {}]


def test_usage_is_read_where_the_spec_says():
    """A line of an OpenAI batch file has the whole response in it."""
    line = {"custom_id": "a", "response": {"status_code": 200, "body": {"usage": OPENAI}}}

    path = path_of("response.body.usage")
    assert usage_in(line, path) == READ
    assert usage_in([line, {"response": None}, {"response": {"body": [1]}}, line], path) == TWICE
    assert usage_in({"response": [line["response"]] * 2}, path) == TWICE


class Strange:
    """An answer whose attributes raise."""

    def __getattr__(self, name):
        raise RuntimeError(name)


NONE = [
    *(None, 3, "usage", b"usage", [], {}, [[1]], [None]),
    *({"usage": "much"}, {"usage": 7}, {"usage": [1, "a"]}, {"usage": {}}),
    *({"usage": {"a": "b", 3: None, "c": True}}, {"usage": {"d": float("nan")}}),
    *({"usage": {"a": -1, "b": float("inf")}}, pd.DataFrame(), pa.table({})),
]


def test_what_is_no_usage_is_none():
    """A capability may call anything `usage`; its rows must not fail for it."""
    assert [usage_in(answer) for answer in (*NONE, Strange(), [Strange()])] == [{}] * (
        len(NONE) + 2
    )


LARGEST = 2**63 - 1
TOO_LARGE = {
    "usage": {"a": 2**63, "b": 2**70, "c": 1e308, "d": 10**400, "e\ud83d": 5, "f": {"\udc00": 6}}
}


def test_what_no_record_can_hold_is_no_usage():
    """Written into a sentinel, it would end the run, and each one that goes on with it."""
    known = {"usage": TOO_LARGE["usage"] | {"total_tokens": LARGEST, "é": 7}}

    assert usage_in(TOO_LARGE) == {}
    assert usage_in(known) == {"total_tokens": LARGEST, "é": 7}


def test_sums_of_usage_end_at_the_largest_number_that_records_hold():
    """Two answers that each can be written must not add up to one that cannot."""
    most = {"prompt_tokens": LARGEST, "completion_tokens": LARGEST, "cost": 9e18}
    total = priced(added(most, most), {"prompt_tokens": 1e300})

    assert added(most, most) == dict.fromkeys(most, LARGEST)
    assert tokens_in(most) == LARGEST
    assert total["cost"] == LARGEST
    assert orjson.loads(orjson.dumps(total)) == total


def test_usage_that_an_earlier_release_stored_as_infinite_is_read():
    """In JSON it is null, and `status` and `report` ended there."""
    line = b'{"slice":0,"at":0,"row":"r","usage":{"a":null,"b":2},"answer":[]}'

    assert added({"a": None, "b": 2}, {"a": 3}) == {"a": 3, "b": 2}
    assert answer_in(line).usage == {"b": 2}


def test_whole_numbers_stay_whole():
    """Their sums are exact over billions of tokens, also where numpy counted them."""
    some = usage_in({"usage": {"a": np.int64(2**53), "b": np.float32(0.5), "c": 1}})

    assert added(*[some] * 3) == {"a": 3 * 2**53, "b": 1.5, "c": 3}
    assert [type(value) for value in some.values()] == [int, float, int]


def test_few_names_are_kept_and_cost_first():
    """A sentinel travels beside its part, where S3 has room for 2 KB."""
    many = {f"a_name_{n}": 1 for n in range(40)} | {"x" * 60: 1, "cost": 0.1, "d": {"e": 1}}
    found = usage_in({"usage": many})

    assert next(iter(found)) == "cost"
    assert len(found) == 12
    longest = {f"{n:02}".ljust(48, "x"): 10**12 for n in range(12)}
    sentinel = Sentinel(
        *["u" * 32, 1, "part-00001.jsonl", 10**9, 10**9, 0, 10**12],
        *["f" * 64] * 3,
        1e5,
        usage=longest,
    )
    assert len(sentinel.to_intent()) < 2048 - len("batchrunner-intent")


@pytest.mark.parametrize(
    ("usage", "tokens"),
    [
        (READ, 21),
        ({"prompt_tokens": 3, "completion_tokens": 4}, 7),
        ({"input_tokens": 3, "output_tokens": 4, "cache_read_input_tokens": 9}, 7),
        ({"prompt_tokens": 5}, 5),
        ({"cost": 0.1}, None),
        ({}, None),
    ],
)
def test_tokens_are_those_of_each_service(usage, tokens):
    """The rate limit counts them."""
    assert tokens_in(usage) == tokens


def test_prices_give_the_cost():
    """Those that the user gave win over a cost in the answer, and count once however often they are applied."""
    prices = {"prompt_tokens": 0.15e-6, "completion_tokens": 0.6e-6, "never": 1.0}
    cost = pytest.approx(9 * 0.15e-6 + 12 * 0.6e-6)

    assert priced(READ, prices)["cost"] == cost
    assert priced(priced(READ | {"cost": 5.0}, prices), prices)["cost"] == cost
    assert priced({"cost": 5.0}, {}) == {"cost": 5.0}
    assert priced({"cost": 5.0}, prices) == {"cost": 5.0}  # a call that none of the prices is for


def test_a_call_that_failed_may_have_cost():
    """An answer that was cut off is paid for."""
    error = ValueError("cut off")
    error.usage, error.status_code, error.retry_after = OPENAI, 429, 3
    assert usage_of_error(error) == READ
    assert outcome_of_error(error) == CallOutcome(READ, is_refused=True, retry_after=3.0)
    assert outcome_of_error(KeyError("x")) == CallOutcome()
    assert usage_of_error(OddError()) == {}


@pytest.mark.parametrize("base", [SystemExit, KeyboardInterrupt, BaseException])
def test_what_is_no_exception_may_have_cost_too(base):
    """A client that gives up may exit, and still say what its last answer cost."""

    class GaveUp(base):
        usage = OPENAI

    def ask():
        raise GaveUp("cut off")

    with pytest.raises(CallRaisedError) as raised:
        contained(ask)

    assert usage_of_error(raised.value) == READ


def test_usage_of_an_error_passes_between_processes():
    """On Ray, what a call raises comes from another machine."""
    error = ValueError("cut off")
    error.usage = OPENAI

    came = pickle.loads(pickle.dumps(portable_with_usage(error)))

    assert (came.type_name, usage_of_error(came)) == ("ValueError", READ)


class OddError(Exception):
    @property
    def usage(self):
        raise ValueError


class Closed:
    """A gate that admits nothing at first."""

    def __init__(self, *waits):
        self.waits, self.left = list(waits), []

    def enter(self):
        return self.waits.pop(0) if self.waits else 0.0

    def leave(self, outcome):
        self.left.append(outcome)


def test_a_meter_counts_what_is_used_and_waited_for():
    """Waits of several calls at a time are one stretch of time."""
    now = itertools.count(100.0, 1.0)
    gate = Closed(5.0, 5.0, 0.5)
    meter = MeteredGate(gate, prices={"a": 2.0}, clock=lambda: next(now))
    waits = [meter.enter() for _ in range(4)]  # at 100, 101 and 102

    assert waits == [5.0, 5.0, 0.5, 0.0]
    next(now), next(now), next(now), next(now)
    assert meter.limited == 6.0  # until 106
    meter.leave(CallOutcome({"a": 3}))
    meter.leave(CallOutcome({"a": 1, "b": 2}))
    meter.leave(CallOutcome())
    assert meter.used == {"a": 4, "b": 2, "cost": 8.0}
    assert len(gate.left) == 3


def test_usage_that_a_row_brings_is_not_that_of_its_answer():
    """A second run over the output of a first one passes it on, and pays nothing for it."""
    row = {"usage": OPENAI}
    assert MeteredGate().brings_usage(row)
    assert MeteredGate().brings_usage([row])
    assert not MeteredGate().brings_usage({"id": 1})
    assert not MeteredGate(usage_at="usage").brings_usage(row)  # the spec says that it counts
