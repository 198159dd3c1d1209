"""Lines with their numbers, keys and differences: what `--key` and `--replay` stand on."""

from __future__ import annotations

import io
from datetime import UTC, date, datetime
from decimal import Decimal

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchrunner.formats import jsonl_second_reader
from batchrunner.formats.jsonl_second_reader import numbered_lines, row_of
from batchrunner.verify.comparing import record_difference, same, table_difference
from batchrunner.verify.keys import key_of, keys_of_column, shown

PIECE = st.sampled_from([b"\n", b"\r\n", b"{}", b"x" * 7, b" ", b"\t", b"\xef\xbb\xbf", b"\xc3"])


def by_hand(data: bytes) -> list[tuple[int, bytes]]:
    """Each line with text, and where it begins."""
    found, at = [], 0
    if data.startswith(b"\xef\xbb\xbf"):
        data, at = data[3:], 3
    for line in data.split(b"\n"):
        if line.strip():
            found.append((at, line))
        at += len(line) + 1
    return found


@given(st.lists(PIECE).map(b"".join), st.integers(3, 9))
def test_lines_have_their_numbers_wherever_blocks_end(data, block):
    """A number off by one would leave out the wrong row."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jsonl_second_reader, "BLOCK_BYTES", block)
        found = [item for some in numbered_lines(io.BytesIO(data), at=0) for item in some]

    assert found == by_hand(data)


def test_a_line_too_long_to_be_held_costs_no_number(monkeypatch):
    """It was set aside; those after it stand where they stand."""
    monkeypatch.setattr(jsonl_second_reader, "BLOCK_BYTES", 16)
    monkeypatch.setattr(jsonl_second_reader, "_HELD_BYTES", 64)
    monkeypatch.setattr(jsonl_second_reader, "_KEPT_BYTES", 8)
    data = b"{}\n" + b"y" * 500 + b"\n\n[1]\n"

    found = [item for some in numbered_lines(io.BytesIO(data), at=0) for item in some]

    assert [(at, line[:4]) for at, line in found] == [(0, b"{}"), (3, b"yyyy"), (505, b"[1]")]


SAME = [
    (1, 1.0, Decimal("1.00")),
    (0.5, Decimal("0.50")),
    (1e-07, Decimal("0.0000001")),
    (0, -0.0),
    ({"a": 1, "b": None}, {"a": 1.0}),
    ([1, {"b": 2, "a": 3}], [1, {"a": 3, "b": 2}]),
    (2**70, Decimal(2**70)),
]
DISTINCT = [
    1, "1", True, None, "", "null", b"1", [1], {"1": 1}, ["1"], [], {}, [None], [[]], 1.5, "1.5",
    2**53 + 1, float(2**53), float("nan"), "nan", "\ud800", "true", False, 0, {"a": "1"}, {"a": 1},
    Decimal("123456789012345678901234567890.12345"), Decimal("123456789012345678901234567890.12346"),
]  # fmt: skip


@pytest.mark.parametrize("values", SAME, ids=str)
def test_keys_that_are_equal_as_sql_and_json_see_them_are_one(values):
    """The source may be JSON, and the sink Parquet."""
    assert len(set(map(key_of, values))) == 1


def test_keys_of_another_value_or_type_are_others():
    """A number that became text is another key."""
    assert len(set(map(key_of, DISTINCT))) == len(DISTINCT)


@given(st.lists(st.none() | st.integers(-(2**63), 2**63 - 1)), st.lists(st.none() | st.text()))
def test_keys_of_columns_are_those_of_their_values(numbers, texts):
    """The fast way is the slow one, faster."""
    for values, kind in ((numbers, pa.int64()), (texts, pa.string())):
        column = pa.chunked_array([pa.array(values, kind)])
        assert keys_of_column(column, times_are_text=True).to_pylist() == list(map(key_of, values))


def test_dates_are_text_where_one_side_is_json_and_times_where_none_is():
    """`2026-01-01` in JSON is all that it can be; in Parquet, text in place of a date is a defect."""
    day, noon = date(2026, 1, 1), datetime(2026, 1, 1, 12, tzinfo=UTC)

    assert key_of(day) == key_of("2026-01-01")
    assert key_of(noon) == key_of("2026-01-01T12:00:00+00:00")
    assert key_of(day, times_are_text=False) != key_of("2026-01-01")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (7, "7"),
        ("a", '"a"'),
        (None, "null"),
        (True, "true"),
        (b"\x00", "00"),
        ([1, "x"], '[1, "x"]'),
    ],
)
def test_keys_are_shown_as_they_were(value, text):
    """Text has quotation marks, so that `7` and `"7"` differ."""
    assert shown([key_of(value)], ["k"]) == f"k {text}"


def test_a_long_key_is_shown_by_its_beginning():
    """A finding is a line."""
    assert len(shown([key_of("x" * 9999)], ["k"])) < 120


@pytest.mark.parametrize(
    ("one", "other"), [(1, 1.0), (True, 1), (0.0, -0.0), ({"a": None}, {}), ((1,), [1]), ("1", 1)]
)
def test_values_of_another_type_or_sign_differ(one, other):
    """What came out is what the capability gave, or it is not."""
    assert not same(one, other)
    assert not same([{"x": one}], [{"x": other}])
    assert same([{"x": one, "y": float("nan")}], [{"x": one, "y": float("nan")}])


@given(st.lists(st.integers(0, 3), max_size=8), st.lists(st.integers(0, 3), max_size=8))
def test_a_difference_of_lines_is_found_if_and_only_if_there_is_one(one, other):
    """However the rows are spelled."""
    lines = (b'{"a": %d}' % n for n in one)
    others = (b'{"a":%d}' % n for n in other)

    assert (record_difference(lines, others, row_of=row_of) == "") == (one == other)


def test_the_length_of_pieces_says_nothing():
    """A part is read otherwise than it was made."""
    table = pa.table({"a": range(10)})
    pieces = [table.slice(0, 3), table.slice(3, 0), table.slice(3, 7)]

    assert table_difference(iter([table]), iter(pieces)) == ""
    assert table_difference(iter(pieces[:2]), iter([table])) == "row 3: the part has no such row"


STRUCT = pa.struct([("x", pa.int64())])
GROWN = pa.struct([("x", pa.int64()), ("y", pa.string())])


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (pa.table({"a": [1]}), pa.table({"a": [1], "b": pa.nulls(1, pa.string())})),
        (pa.table({"a": pa.nulls(1)}), pa.table({"a": pa.nulls(1, pa.int64())})),
        (
            pa.table({"a": pa.array([{"x": 1}], STRUCT)}),
            pa.table({"a": pa.array([{"x": 1, "y": None}], GROWN)}),
        ),
        (pa.table({"a": ["x"]}), pa.table({"a": pa.array(["x"], pa.large_string())})),
        (pa.table({"a": ["x"]}), pa.table({"a": pa.array(["x"]).dictionary_encode()})),
        (pa.table({"a": [[1]]}), pa.table({"a": pa.array([[1]], pa.list_(pa.int64(), 1))})),
        (
            pa.table({"a": pa.array([[{"x": 1}]], pa.list_(STRUCT))}),
            pa.table({"a": pa.array([[{"x": 1, "y": None}]], pa.list_(GROWN))}),
        ),
    ],
)
def test_what_only_one_has_is_no_difference_where_it_is_null(old, new):
    """The schema of a sink grows, and parts stay as they are; nor does it matter how text is kept."""
    assert table_difference(iter([old]), iter([new])) == ""
    assert table_difference(iter([new]), iter([old])) == ""


@pytest.mark.parametrize(
    ("old", "new", "why"),
    [
        (
            pa.table({"a": [1]}),
            pa.table({"a": [1], "b": ["x"]}),
            "row 0, column 'b': the part has null, the capability gives \"x\"",
        ),
        (
            pa.table({"a": [1], "b": ["x"]}),
            pa.table({"a": [1]}),
            "row 0, column 'b': the part has \"x\", the capability gives null",
        ),
        (
            pa.table({"a": pa.array([{"x": 1, "y": "z"}], GROWN)}),
            pa.table({"a": pa.array([{"x": 1}], STRUCT)}),
            'row 0, column \'a\': the part has {"x": 1, "y": "z"}, the capability gives {"x": 1}',
        ),
        (
            pa.table({"a": pa.array([1], pa.int32())}),
            pa.table({"a": pa.array([1], pa.int64())}),
            "row 0, column 'a': int32 in the part, int64 from the capability",
        ),
    ],
)
def test_values_and_types_that_were_lost_are_found(old, new, why):
    """A value that is not there any more was lost."""
    assert table_difference(iter([old]), iter([new])) == why
