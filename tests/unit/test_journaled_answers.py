"""Journaled answers: exact in value and type, and of no other run, definition, shard or row."""

from __future__ import annotations

import datetime as dt
import json
import math
import uuid
from collections import OrderedDict
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchrunner.checkpoint import Checkpoint, PlanFacts
from batchrunner.checkpoint.answers import (
    JournaledAnswer,
    Scope,
    answer_in,
    answers_object,
    digest_of,
    lines_for,
)
from batchrunner.checkpoint.exact_values import NotExactError, from_json, to_json
from batchrunner.storage import open_storage
from batchrunner.worker.answer_journal import AnswerJournal

SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=False),
    st.text(),
    st.binary(),
    st.decimals(allow_nan=False),
)
KEYS = st.one_of(st.text(), st.sampled_from(["$dict", "$bytes", "$float", "$", "$numpy"]))
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.lists(inner, max_size=3).map(tuple),
        st.dictionaries(KEYS, inner, max_size=4),
    ),
    max_leaves=20,
)


def same(left, right):
    """Equal in value and type, at every depth, and in the order of keys."""
    if type(left) is not type(right):
        return False
    if isinstance(left, dict):
        pairs = zip(left.items(), right.items(), strict=True)
        return len(left) == len(right) and all(a == b and same(x, y) for (a, x), (b, y) in pairs)
    if isinstance(left, list | tuple):
        return len(left) == len(right) and all(map(same, left, right))
    if isinstance(left, np.ndarray):
        return left.dtype == right.dtype and left.shape == right.shape and (left == right).all()
    if isinstance(left, float):
        return repr(left) == repr(right)
    return bool(left == right)


@given(VALUES)
def test_what_is_kept_comes_back_in_value_and_type(value):
    """An answer from the journal is what the API gave, or the output depends on kills."""
    assert same(from_json(to_json(value)), value)


@pytest.mark.parametrize(
    "value",
    [
        2**200,
        -0.0,
        math.inf,
        "\ud800",
        b"\x00\xff",
        Decimal("1.10"),
        np.float32(0.1),
        np.float64(0.1),
        np.bool_(True),
        np.arange(6, dtype=">i2").reshape(2, 3),
        np.zeros((0, 3)),
        [np.array([0.1, 0.2], dtype=np.float32)],
    ],
    ids=repr,
)
def test_so_do_values_that_json_has_no_word_for(value):
    """Embeddings, images and large numbers are what APIs are paid for."""
    assert same(from_json(to_json(value)), value)


def test_not_a_number_stays_one():
    """It equals nothing, itself included."""
    assert math.isnan(from_json(to_json(math.nan)))


@pytest.mark.parametrize(
    "value",
    [
        {1: 2},
        {"a", "b"},
        OrderedDict(a=1),
        dt.datetime(2026, 1, 1, tzinfo=dt.UTC),
        uuid.UUID(int=1),
        Fraction(1, 3),
        np.array("text"),
        np.datetime64(1, "s"),
        object(),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_would_come_back_as_another_type_is_refused(value):
    """It is asked again after a crash, and is what it was then."""
    with pytest.raises(NotExactError):
        to_json([value])


SCOPE = Scope("run", "definition", 3)
ROW = {"id": 7, "text": "seven"}
LINE = JournaledAnswer(0, 70, digest_of(ROW), [{"ok": True}], {"tokens": 5}).to_line()


def test_a_line_has_the_place_and_the_digest_of_its_row_and_what_was_used():
    """A reader that is not ours finds it all in JSON."""
    head, line = answers_object(SCOPE, [LINE]).splitlines()

    assert json.loads(line) == {
        "slice": 0,
        "at": 70,
        "row": digest_of(ROW),
        "usage": {"tokens": 5},
        "answer": [{"ok": True}],
    }
    assert json.loads(head)["run_uid"] == "run"
    [(place, found)] = lines_for(SCOPE, answers_object(SCOPE, [LINE]))
    assert place == (0, 70)
    assert answer_in(found).rows == [{"ok": True}]


@pytest.mark.parametrize(
    "other",
    [Scope("other", "definition", 3), Scope("run", "other", 3), Scope("run", "definition", 4)],
)
def test_answers_of_another_run_definition_or_shard_do_not_count(other):
    """`--accept-changes` asks everything that is in flight again."""
    assert not list(lines_for(SCOPE, answers_object(other, [LINE])))


def test_an_object_that_is_torn_or_edited_does_not_count():
    """At any byte: its rows are asked again, and no value is guessed at."""
    whole = answers_object(SCOPE, [LINE, LINE.replace(b"70", b"80")])
    for cut in range(len(whole)):
        assert not list(lines_for(SCOPE, whole[:cut]))
        flipped = whole[:cut] + bytes([whole[cut] ^ 1]) + whole[cut + 1 :]
        assert len(list(lines_for(SCOPE, flipped))) in {
            0,
            2,
        }  # 2: the version counts, not its spelling


def test_equal_values_of_other_types_are_other_rows():
    """A source that changes 1 to 1.0 asks another question."""
    rows = [{"a": 1}, {"a": 1.0}, {"a": True}, {"a": "1"}, {"a": b"1"}, {"b": 1}, {"a": [1]}]
    assert len({digest_of(row) for row in rows}) == len(rows)


def a_journal(folder, **changes):
    facts = PlanFacts(width=5, format="jsonl", compression="", unit="bytes", count=1)
    fields = {"run_uid": "run", "definition": "definition", "epoch": 1, **changes}
    return AnswerJournal(Checkpoint(open_storage(str(folder))), facts, **fields)


def test_a_journal_has_what_was_added_once_it_is_closed_and_drops_what_is_committed(tmp_path):
    """Two workers that answer the same row, as when a driver was displaced, do each other no harm."""
    answers = [JournaledAnswer(0, n, digest_of(ROW), [{"n": n}]) for n in range(50)]
    first, second = a_journal(tmp_path), a_journal(tmp_path, epoch=2)
    for answer in answers:
        first.add(1, answer)
    for answer in answers[:30]:
        second.add(1, answer)
        second.add(2, answer)
    first.close()
    second.close()

    third, other = a_journal(tmp_path), a_journal(tmp_path, definition="another")
    third.look()
    other.look()
    assert [answer_in(line).rows for line in third.known(1).values()] == [
        [{"n": n}] for n in range(50)
    ]
    assert len(third.known(2)) == 30
    assert other.known(1) == {}
    third.drop([1])
    third.close()
    other.close()
    left = sorted(path.name for path in (tmp_path / "answers").iterdir())
    assert left
    assert all(name.startswith("part-00002.2-") for name in left)


def test_what_cannot_be_kept_exactly_is_left_out_and_fails_nothing(tmp_path):
    """The row has its answer; only a crash would ask for it again."""
    journal = a_journal(tmp_path)
    deep = []
    for _ in range(100_000):
        deep = [deep]
    for rows in ([{"a": object()}], [{"a": deep}], [{"a": 10**5000}], [{"a": 1}]):
        journal.add(1, JournaledAnswer(0, len(rows), "", rows))
    journal.close()

    again = a_journal(tmp_path)
    again.look()
    assert [answer_in(line).rows for line in again.known(1).values()] == [[{"a": 1}]]
    again.close()
