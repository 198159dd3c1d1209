"""Rows that come for the first time are called in a plain loop: cheap, and with all that is promised of a row."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from operator import attrgetter
from types import SimpleNamespace

import pytest

from batchrunner.formats.json_rows import parse_line
from batchrunner.formats.jsonl_reader import JsonlChunk
from batchrunner.spec import ErrorsSpec
from batchrunner.worker.batch import Batch, ChunkRows
from batchrunner.worker.calling import Edges
from batchrunner.worker.kept_answers import KeptAnswers
from batchrunner.worker.lost_calls import RowsFailedError
from batchrunner.worker.metering import MeteredGate
from batchrunner.worker.row_attempts import RowRules
from batchrunner.worker.row_caller import RowCaller
from batchrunner.worker.row_calls import RowCalls

SHARD = SimpleNamespace(id=7)


class Lines(list):
    """Rows as a sink gets them, which `Piece` weighs."""

    nbytes = 100


def a_chunk(first, count):
    """Rows of 100 bytes each, so that each stands where its number says."""
    lines = [(b'{"id": %d, "text": "row"}' % n).ljust(99) for n in range(first, first + count)]
    parsed = [parse_line(line) for line in lines]
    return JsonlChunk(parsed, b"\n".join(lines) + b"\n", range(count), offset=first * 100)


def a_batch(*chunks):
    return Batch(tuple(ChunkRows(SHARD, 0, chunk, 0, len(chunk)) for chunk in chunks))


def a_caller(function, *, meter=None, most_bytes=1 << 24):
    calls = RowCalls(function, {}, rules=RowRules(ErrorsSpec()), meter=meter)
    edges = Edges(lambda rows, _: (Lines(rows), len(rows)), attrgetter("input_types"))
    return RowCaller(calls, kept=KeptAnswers(most_bytes=most_bytes), edges=edges, ahead=1)


def rows_of(pieces):
    [[piece]] = pieces
    return list(piece.rows)


class Varied:
    """Answers rows in all ways that there are, and counts the calls."""

    def __init__(self):
        self.asked = Counter()

    def __call__(self, row):
        number = row.pop("id")
        self.asked[number] += 1
        match number % 10:
            case 1:
                return None
            case 2:
                return [{"n": number}, {"n": -number}]
            case 3:
                return ({"n": n} for n in range(3))
            case 4:
                return {"n": number, "usage": {"tokens": number}}
            case 5 if self.asked[number] == 1:
                raise ConnectionError("once")
            case 6 if number < 30:
                raise ValueError(f"row {number}")
        return {"n": number}


def answer_of(number):
    match number % 10:
        case 1:
            return []
        case 2:
            return [{"n": number}, {"n": -number}]
        case 3:
            return [{"n": n} for n in range(3)]
        case 4:
            return [{"n": number, "usage": {"tokens": number}}]
    return [{"n": number}]


@pytest.mark.parametrize("most_bytes", [1 << 24, 1], ids=["in memory", "in a file"])
def test_each_row_has_its_own_answer_whatever_comes_beside_it_and_is_asked_once(most_bytes):
    """None, many, with usage, after a retry: in a batch of several chunks, and again when it is submitted again."""
    varied, meter = Varied(), MeteredGate()
    caller = a_caller(varied, meter=meter, most_bytes=most_bytes)
    batch, later = a_batch(a_chunk(0, 25), a_chunk(25, 15)), a_batch(a_chunk(40, 20))
    sound = [n for n in range(40) if n not in (6, 16, 26)]

    with pytest.raises(RowsFailedError) as failed:
        caller.submit(batch)()
    others = batch.without(failed.value.errors)
    first = caller.submit(others)()
    rows_of(caller.submit(later)())
    again = [caller.submit(half)() for half in others.halves()]
    caller.close()

    assert {n: str(error) for n, error in failed.value.errors.items()} == {
        n: f"row {n}" for n in (6, 16, 26)
    }
    assert rows_of(first) == [row for n in sound for row in answer_of(n)]
    assert [row for half in again for row in rows_of(half)] == rows_of(first)
    assert first[0][0].usage == {"tokens": 4 + 14 + 24 + 34}
    assert sum(half[0][0].usage["tokens"] for half in again) == 4 + 14 + 24 + 34
    assert meter.used == {"tokens": 4 + 14 + 24 + 34 + 44 + 54}
    expected = {5: 2, 6: 3}
    assert varied.asked == {
        n: 1 if n % 10 == 6 and n >= 30 else expected.get(n % 10, 1) for n in range(60)
    }


def test_a_second_reading_finds_answers_and_goes_on_behind_them():
    """A shard is read again in another attempt, in other pieces."""
    asked = Counter()

    def noted(row):
        asked[row["id"]] += 1
        return {"n": row["id"]}

    caller = a_caller(noted)
    caller.submit(a_batch(a_chunk(0, 50)))()
    caller.renew()

    second = [caller.submit(a_batch(a_chunk(n, 20)))() for n in (0, 20, 40, 60)]

    assert [row["n"] for one in second for row in rows_of(one)] == list(range(80))
    assert asked == dict.fromkeys(range(80), 1)


def test_usage_that_a_row_brings_along_is_not_counted():
    """It is that of an earlier run."""
    meter = MeteredGate()
    chunk = a_chunk(0, 3)
    chunk.parsed[1]["usage"] = {"tokens": 5}

    found = rows_of(a_caller(dict, meter=meter).submit(a_batch(chunk))())

    assert found[1] == {"id": 1, "text": "row", "usage": {"tokens": 5}}
    assert meter.used == {}


def test_what_a_row_costs_beside_its_call_is_a_small_multiple_of_a_loop():
    """It was some forty times as much: mode `row` took four times as long for a function of a microsecond."""
    count = 20_000

    def cheap(row):
        return {"id": row["id"], "n": len(row["text"])}

    def looped():
        return [cheap(row) for row in a_chunk_of_all.parsed]

    def called():
        caller = a_caller(cheap)
        for start in range(0, count, 1000):
            piece = ChunkRows(SHARD, 0, a_chunk_of_all, start, start + 1000)
            caller.submit(Batch((piece,)))()

    a_chunk_of_all = a_chunk(0, count)
    a_chunk_of_all.positions()

    assert seconds(called) < 15 * seconds(looped)


def seconds(action):
    """Return the least CPU time of some runs: what else the machine does only adds to it."""
    taken = []
    for _ in range(5):
        began = time.thread_time()
        action()
        taken.append(time.thread_time() - began)
    return min(taken)


def test_a_row_that_waits_for_its_turn_has_no_task():
    """A task for each row of a batch took as long as many calls."""
    tasks = []

    async def counts(row):
        await asyncio.sleep(0)
        tasks.append(len(asyncio.all_tasks()))
        return row

    calls = RowCalls(counts, {}, rules=RowRules(ErrorsSpec(), max_concurrency=4))
    calls.call([{"id": n} for n in range(200)], again=lambda n: {"id": n})
    calls.close()

    assert max(tasks) <= 4 + 2  # and that of the batch
