"""What is on its way through stages is bounded, is filled into whole batches, and is never mixed up."""

from __future__ import annotations

import random
import threading
from concurrent.futures import Future
from dataclasses import dataclass, field
from types import SimpleNamespace

import pytest

import staged
from batchrunner import BatchSpec
from batchrunner.errors import CapabilityImportError
from batchrunner.worker.batch import InputTypes
from batchrunner.worker.calling import Edges
from batchrunner.worker.lost_calls import CallLostError, CallTimedOutError
from batchrunner.worker.stage_pool import RowsLostError
from batchrunner.worker.staged_caller import StagedCaller
from batchrunner.worker.thread_pools import ThreadPools
from batchrunner.worker.tickets import BytesOnTheWay
from patience import PATIENCE


@dataclass
class ABatch:
    """A batch as `verify` and an isolated process have it: rows, and no place in the source."""

    content: list
    input_types: InputTypes = field(default_factory=InputTypes)
    is_retry: bool = False

    @property
    def counts(self):
        return [len(self.content)]

    def rows(self):
        return [dict(row) for row in self.content]


def ready(content, types):
    return list(content), len(content)


EDGES = Edges(ready, lambda batch: batch.input_types)


def a_caller(stages, *, make_pools=ThreadPools, errors=None, **execution):
    spec = BatchSpec(
        capability=stages,
        source="/in.jsonl",
        sink="/out",
        execution={"engine": "local", **execution},
        errors=errors or {"retry": {"max_attempts": 1}},
    )
    work = SimpleNamespace(spec=spec, prepare=lambda: None, capability=None, session="s", code={})
    return StagedCaller(spec, make_pools(work), edges=EDGES)


def batches(count, size, **more):
    return [
        ABatch([{"id": n, **more} for n in range(k * size, (k + 1) * size)]) for k in range(count)
    ]


def answers(caller, some):
    """Submit as a worker does: ahead, as long as there is room."""
    pending, found = [], []
    for batch in some:
        pending.append(caller.submit(batch))
        while pending and caller.is_full(len(pending), 0, pending[0]):
            found.append(pending.pop(0)())
    found += [answer() for answer in pending]
    return [[row for piece in pieces for row in piece.rows] for [pieces] in found]


class Pools:
    """Real pools, each wrapped by *wrap*."""

    def __init__(self, wrap, **changes):
        self.wrap, self.changes, self.made = wrap, changes, []

    def __call__(self, work):
        self.pools = ThreadPools(work, **self.changes)
        self.most_bytes, self.most_tickets = self.pools.most_bytes, self.pools.most_tickets
        self.is_apart = False
        return self

    def of(self, number, stage):
        self.made.append(self.wrap(self.pools.of(number, stage)))
        return self.made[-1]


class Losing:
    """A pool that loses calls or rows at random, as one whose workers and nodes die."""

    def __init__(self, pool, rng, error, share=0.1):
        self.pool, self.rng, self.error, self.share = pool, rng, error, share

    def __getattr__(self, name):
        return getattr(self.pool, name)

    def submit(self, spans):
        future = self.pool.submit(spans)
        if self.rng.random() >= self.share:
            return future
        lost = type(future)()
        future.add_done_callback(lambda _: lost.set_exception(self.error("lost")))
        return lost

    def get(self, span):
        if self.error is RowsLostError and self.rng.random() < self.share:
            raise RowsLostError("gone with its node")
        return self.pool.get(span)


STAGES = [
    {"target": "staged:first", "batch_size": 7, "one_to_one": True},
    {"target": "staged:three_of_each", "mode": "row", "batch_size": 4, "concurrency": 2},
    {"target": "staged:second", "batch_size": 16},
]


def expected(some):
    out = []
    for batch in some:
        rows = [copy for row in staged.first(batch.rows()) for copy in staged.three_of_each(row)]
        out.append(staged.second(rows))
    return out


@pytest.mark.parametrize("seed", range(5))
def test_rows_that_are_lost_with_a_node_are_made_again(seed):
    """Wherever they were: waiting, in a call, or at the end."""
    rng = random.Random(seed)
    caller = a_caller(STAGES, make_pools=Pools(lambda pool: Losing(pool, rng, RowsLostError, 0.01)))
    some = batches(30, 10)

    assert answers(caller, some) == expected(some)
    caller.close()


class Deadly:
    """A pool whose workers die of one row."""

    def __init__(self, pool, id_):
        self.pool, self.id, self.deaths = pool, id_, []

    def __getattr__(self, name):
        return getattr(self.pool, name)

    def submit(self, spans):
        blocks = [self.pool.get(span) for span in spans]
        ids = [row["id"] for block in blocks for part in block.parts for row in part.content]
        if self.id not in ids:
            return self.pool.submit(spans)
        self.deaths.append(len(ids))
        lost = Future()
        lost.set_exception(CallLostError("it died"))
        return lost


@pytest.mark.parametrize("stage", [0, 1, 2])
def test_a_row_of_which_workers_die_costs_two_of_them_and_no_other_row(stage):
    """A call with it, and the row alone: no halving, since each death costs a new process."""
    pools = Pools(lambda pool: Deadly(pool, 43) if len(pools.made) == stage else pool)
    caller = a_caller(STAGES, make_pools=pools)
    some = batches(10, 10)

    for batch, wanted in zip(some, expected(some), strict=True):
        if any(row["id"] == 43 for row in batch.content):
            with pytest.raises(CallLostError, match="it died"):
                answers(caller, [batch])
        else:
            assert answers(caller, [batch]) == [wanted]
    # In the third stage, each of its three rows alone.
    assert pools.made[stage].deaths[1:] == [1] * (3 if stage == 2 else 1)
    caller.close()


class Troubled:
    """A pool whose calls fail at random, as those of a service and of machines do: not the rows are to blame."""

    def __init__(self, pool, rng, share):
        self.pool, self.rng, self.share = pool, rng, share

    def __getattr__(self, name):
        return getattr(self.pool, name)

    def submit(self, spans):
        future = self.pool.submit(spans)
        errors = [ValueError, MemoryError, *([CallLostError] if sum(map(len, spans)) > 1 else [])]
        draw = self.rng.random()
        if draw >= self.share:
            return future
        lost = Future()
        error = RowsLostError if draw < 0.002 else self.rng.choice(errors)
        future.add_done_callback(lambda _: lost.set_exception(error("by chance")))
        return lost


OTHER_STAGES = [
    {"target": "staged:three_of_each", "mode": "row", "batch_size": 8},
    {"target": "staged:only_even", "batch_size": 10},
    {"target": "staged:second", "batch_size": 7, "one_to_one": True, "concurrency": 2},
    # Not one whose answer depends on how large its batch is: where memory fails it, that changes.
    {"target": "staged:only_even", "batch_size": 1000, "name": "last"},
]


def expected_of_others(some):
    out = []
    for batch in some:
        rows = [copy for row in batch.rows() for copy in staged.three_of_each(row)]
        out.append(staged.second(staged.only_even(rows)))
    return out


@pytest.mark.parametrize("seed", [*range(4), pytest.param(range(4, 200), marks=pytest.mark.soak)])
@pytest.mark.parametrize(
    ("stages", "by_hand", "share"),
    [(STAGES, expected, 0.15), (OTHER_STAGES, expected_of_others, 0.03)],
)
def test_trouble_in_any_call_costs_no_row_and_ends(stages, by_hand, share, seed):
    """Nothing is lost, doubled or moved, and nothing waits for ever."""
    for number in [seed] if isinstance(seed, int) else seed:
        rng = random.Random(number)
        pools = Pools(lambda pool, rng=rng: Troubled(pool, rng, share))
        errors = {"retry": {"max_attempts": 30}}
        caller = a_caller(stages, make_pools=pools, errors=errors)
        some = batches(rng.choice([1, 5, 20]), rng.choice([1, 3, 10, 40]))
        found = (
            [again(caller, batch) for batch in some]
            if number % 2
            else answers_or_again(caller, some)
        )
        assert found == by_hand(some), number
        caller.close()


def again(caller, batch):
    """What comes of *batch* in the end: a ticket that failed as a whole begins anew."""
    for _ in range(200):
        try:
            return answers(caller, [batch])[0]
        except (ValueError, MemoryError, CallLostError, RowsLostError):
            continue
    raise AssertionError("it never came through")


def answers_or_again(caller, some):
    pending = [(batch, caller.submit(batch)) for batch in some]
    found = []
    for batch, answer in pending:
        try:
            found.append([row for [pieces] in [answer()] for piece in pieces for row in piece.rows])
        except (ValueError, MemoryError, CallLostError, RowsLostError):
            found.append(again(caller, batch))
    return found


def test_what_is_on_its_way_is_bounded_by_bytes(monkeypatch):
    """A stage that makes its rows twenty times as large waits for the next one."""
    most = [0]

    class Watched(BytesOnTheWay):
        def keep(self, kept):
            super().keep(kept)
            most[0] = max(most[0], self.total)

    monkeypatch.setattr("batchrunner.worker.staged_caller.BytesOnTheWay", Watched)
    stages = [
        {"target": "staged:larger", "batch_size": 10, "fn_kwargs": {"times": 20}},
        {"target": "staged:without_blob", "batch_size": 1000, "one_to_one": True},
    ]
    limit = 4 << 20
    caller = a_caller(stages, make_pools=lambda work: ThreadPools(work, most_bytes=limit))
    some = batches(200, 10, text="x" * 1000)

    found = answers(caller, some)

    assert [row["id"] for rows in found for row in rows] == list(range(2000))
    assert {row["size"] for rows in found for row in rows} == {20_000}
    assert most[0] < limit + 3 * 10 * 21_000  # those of the calls that are made when it is reached
    caller.close()
    del caller


def test_a_slow_stage_keeps_all_its_workers_busy_before_a_fast_one_with_few():
    """Calls that are being made counted as rows that wait: eight workers got four calls, and the model waited."""
    staged.together[:] = [threading.Barrier(8, timeout=PATIENCE)]
    slow = {"target": "staged:meets", "batch_size": 4, "concurrency": 8, "one_to_one": True}
    fast = {"target": "staged:first", "batch_size": 4, "concurrency": 1, "one_to_one": True}
    caller = a_caller([slow, fast])
    some = batches(64, 4)

    assert answers(caller, some) == [staged.first(batch.rows()) for batch in some]
    caller.close()


def test_nothing_stays_counted_once_all_answers_are_read(monkeypatch):
    """Else a worker would stand still after some thousand batches."""
    made = []

    class Watched(BytesOnTheWay):
        def __init__(self):
            super().__init__()
            made.append(self)

    monkeypatch.setattr("batchrunner.worker.staged_caller.BytesOnTheWay", Watched)
    rng = random.Random(0)
    caller = a_caller(STAGES, make_pools=Pools(lambda pool: Losing(pool, rng, RowsLostError, 0.02)))
    answers(caller, batches(20, 10))
    answers(caller, [ABatch([{"id": n} for n in range(10)])])
    caller.submit(ABatch([{"id": 1}]))
    caller.abandon()
    caller.close()

    assert made[0].total == 0


def test_a_call_that_takes_too_long_is_left_behind(tmp_path):
    """Its row is given back as one that took too long, and the stage goes on with another thread."""
    stages = [{"target": "capabilities:hangs_on_bad", "batch_size": 4, "one_to_one": True}]
    errors = {"retry": {"max_attempts": 1}, "batch_timeout": 0.3}
    caller = a_caller(stages, errors=errors)
    rows = [{"id": 1}, {"id": 2, "bad": True}, {"id": 3}]

    with pytest.raises(CallTimedOutError, match="batch_timeout"):
        answers(caller, [ABatch(rows)])
    assert answers(caller, [ABatch(rows[:1])])[0] == rows[:1]
    caller.close()


def test_a_stage_that_cannot_be_built_says_so_before_any_row():
    """As a capability does that cannot be imported."""
    with pytest.raises(CapabilityImportError, match="staged"):
        a_caller(["staged:nothing_of_that_name"])
