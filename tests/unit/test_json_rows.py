"""JSON to rows and back: exact, or refused; never altered in silence."""

import json
import math
from datetime import UTC, datetime

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchrunner.formats.json_rows import parse_block, parse_line, write_block, write_line

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
ROWS = st.dictionaries(st.text(), VALUES, max_size=4)


@given(row=ROWS)
def test_what_is_written_is_read_back_the_same(row):
    """Integers of any size, lone surrogates, tiny floats: all of JSON's values."""
    line = write_line(row)

    assert line.count(b"\n") == 1
    back = parse_line(line[:-1])
    assert back == row
    assert repr(back) == repr(row) or "-0" in repr(row)


@given(rows=st.lists(ROWS, min_size=1, max_size=5), escaped=st.booleans())
def test_a_block_is_read_as_its_lines_are(rows, escaped):
    """The fast way gives what the strict way gives, or leaves it to that."""
    lines = [json.dumps(row, ensure_ascii=escaped).encode("utf-8", "replace") for row in rows]

    block = parse_block(b"\n".join(lines))

    if block is not None:
        assert block == [json.loads(line) for line in lines]


@given(data=st.lists(st.sampled_from([*'{}[]:,1" \n', '"a"', '{"a":', "}\n{", '{"b":2}\n'])))
def test_a_block_of_anything_is_read_as_its_lines_are(data):
    """Pieces of JSON in any order, and newlines where there should be none."""
    block = parse_block("".join(data).encode())

    if block is not None:
        assert block == [json.loads(line) for line in "".join(data).removesuffix("\n").split("\n")]


@pytest.mark.parametrize(
    "lines",
    [
        [b'{"a":1},{"b":2}'],
        [b'{"a":[{"b":1}', b'{"c":2}]}'],
        [b'{"a":"x', b'y"}', b'{"b":1},{"c":2}'],
        [b'{"a":[1', b"2]}", b"{},1,{}"],
        [b'{"a":1}', b"", b'{"b":2}'],
    ],
)
def test_a_row_is_a_line_and_a_line_is_a_row(lines):
    """Together they would be an array of dicts, some with as many rows as there are lines."""
    assert parse_block(b"\n".join(lines)) is None


@given(rows=st.lists(ROWS, min_size=1, max_size=5))
def test_a_block_is_written_as_its_lines_are(rows):
    """One line each, whatever the rows hold."""
    block = write_block(rows)

    if block is not None:
        assert [json.loads(line) for line in block.splitlines()] == json.loads(json.dumps(rows))


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b'{"a":1,"a":2}', "the key 'a' stands twice"),
        (b'{"a":1,"\\u0061":2}', "the key 'a' stands twice"),
        (b'{"b":{"a":1,"a":2},"c":"\\u0022\\u0022"}', "the key 'a' stands twice"),
        (b'{"a":NaN}', "NaN is no JSON"),
        (b'{"a":-Infinity}', "-Infinity is no JSON"),
        (b'{"a":1e400}', "too large for a double"),
        (b'{"a":"\xff"}', "not UTF-8 at byte 6"),
        (b'{"a":', "Expecting value"),
        (b"[1]", "must be a JSON object, not an array"),
        (b"null", "must be a JSON object, not null"),
        (b"3", "must be a JSON object, not a number"),
        (b'{"a":' + b"[" * 5000 + b"]" * 5000 + b"}", "nested too deeply"),
        (b'{"a":' + b"1" * 5000 + b"}", "4300 digits"),
        (b'{"a":1}{"b":2}', "Extra data"),
        (b"\x00", "Expecting value"),
    ],
)
def test_what_is_no_row_is_refused_with_its_reason(line, reason):
    """The row becomes a dead letter, and a person reads why."""
    assert parse_block(line) is None
    with pytest.raises(ValueError, match=reason.replace("(", r"\(")):
        parse_line(line)


@pytest.mark.parametrize(
    "line",
    [
        b'{"a":18446744073709551616}',
        b'{"a":-9223372036854775809}',
        b'{"a":123456789012345678901234567890}',
        b'{"a":"\\ud800"}',
        b'{"a":0.0001234567890123456789}',
        b'{"a":9007199254740993}',
        '{"a":"\u2028"}'.encode(),
        b'{"a":"1234567890123456789012"}',
        b'{"a":' + b"[" * 300 + b"]" * 300 + b"}",
    ],
)
def test_what_is_unusual_is_kept_exactly(line):
    """Orjson alone would round the first three."""
    assert parse_line(line) == json.loads(line)
    assert json.loads(write_line(parse_line(line))) == json.loads(line)


@pytest.mark.parametrize(
    "value",
    [math.nan, [1.0, math.inf], {"b": -math.inf}, np.float64("nan"), np.array([1.0, np.nan])],
)
def test_nan_is_refused_not_written_as_null(value):
    """It would come back as something else."""
    assert write_block([{"a": None}, {"a": value}]) is None
    with pytest.raises(ValueError, match="the value of 'a' is no JSON"):
        write_line({"a": value})


@pytest.mark.parametrize(
    ("value", "written"),
    [
        (np.int64(3), b"3"),
        (np.float32(0.5), b"0.5"),
        (np.array([1, 2]), b"[1,2]"),
        (np.array(["x", None], dtype=object), b'["x",null]'),
        (datetime(2026, 1, 2, tzinfo=UTC), b'"2026-01-02T00:00:00+00:00"'),
    ],
)
def test_what_models_return_is_written(value, written):
    """Numpy scalars and arrays come out of every model."""
    assert write_line({"a": value}) == b'{"a":' + written + b"}\n"


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({1: 2}, "the key 1 is no string"),
        ({"a": b"x"}, "the value of 'a' is no JSON"),
        ([1], "a row must be a dict, not list"),
    ],
)
def test_what_is_no_json_is_refused_by_name(row, reason):
    """The capability returned it; the key helps to find where."""
    with pytest.raises(ValueError, match=reason):
        write_line(row)


@pytest.mark.parametrize("text", ["-0", "-0.0", "1e-400", "0.1e1", "1E5", "123456789012345678"])
def test_numbers_are_what_the_standard_library_makes_of_them(text):
    """Also at the edges: no second parser in the same program reads them otherwise."""
    line = f'{{"x": {text}}}'.encode()

    assert repr(parse_line(line)) == repr(json.loads(line))
    assert repr(parse_block(line + b"\n")) == repr([json.loads(line)])
