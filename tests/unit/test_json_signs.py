"""That reading lines lost nothing is seen in them only if it is so."""

from __future__ import annotations

import json

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchrunner.formats import json_rows
from batchrunner.formats.json_rows import may_hold_long_integer, parse_block
from batchrunner.formats.json_signs import keys_are_kept, may_hold_many_digits

TEXTS = st.text(st.sampled_from('ab":\\ \t{}[],é東'), max_size=5)
BLANKS = st.sampled_from(["", "", "", " ", "  ", "\t"])
VALUES = st.one_of(TEXTS, st.integers(), st.booleans(), st.none(), st.lists(TEXTS, max_size=2))


@st.composite
def lines(draw):
    """Return an object as text: with keys that stand twice, objects inside, and blanks anywhere."""
    members = draw(st.lists(st.tuples(TEXTS, VALUES | st.dictionaries(TEXTS, VALUES)), max_size=4))
    is_ascii = draw(st.booleans())
    written = []
    for key, value in members:
        before, between, after, last = (draw(BLANKS) for _ in range(4))
        name, text = (json.dumps(one, ensure_ascii=is_ascii) for one in (key, value))
        written.append(f"{before}{name}{between}:{after}{text}{last}")
    return "{" + ",".join(written) + "}"


def has_lost_a_key(line):
    lost = []

    def pairs(found):
        lost.append(len(dict(found)) < len(found))
        return dict(found)

    json.loads(line, object_pairs_hook=pairs)
    return any(lost)


@given(st.lists(lines(), min_size=1, max_size=5))
def test_no_key_that_stands_twice_is_overlooked(block):
    """The first of two values would be lost in silence."""
    data = "\n".join(block).encode()
    rows = [orjson.loads(line) for line in block]

    if keys_are_kept(data, rows):
        assert not any(map(has_lost_a_key, block))


@pytest.mark.parametrize("dumps", [json.dumps, lambda row: orjson.dumps(row).decode()])
def test_ordinary_lines_are_seen_to_be_kept(dumps):
    """Else the check would only cost."""
    rows = [
        {
            "id": n,
            "text": ' "hello": \\ "東京" [x]',
            "tags": ["a", " b"],
            "score": 0.5,
            "none": None,
        }
        for n in range(150)
    ]

    assert keys_are_kept("\n".join(map(dumps, rows)).encode(), rows)


@given(before=st.text("0123456789abc ", max_size=30), digits=st.integers(0, 40), after=TEXTS)
def test_no_long_integer_is_overlooked(before, digits, after):
    """It would become a float."""
    data = f"{before}{'7' * digits}{after}".encode()

    if may_hold_long_integer(data):
        assert may_hold_many_digits(data)


@pytest.mark.parametrize(
    "line",
    [
        b'{"a": 1, "a": 2}',
        b'{"a":1,"b":{"a":1,"a":2}}',
        b'{"a":":","a":2}',
        b'{"a" :1,"b":":","a":3}',
        b'{"a":12345678901234567890123}',
        b'{"a":"\\u0022","a":"\\""}',
    ],
)
def test_what_would_be_lost_is_found_among_many_lines(line):
    """Only blocks of many lines are looked at by their signs."""
    good = b'{"a":1,"b":"2"}\n' * 1_000
    assert len(good) > json_rows._MANY_BYTES

    for block in (good + line, line + b"\n" + good, good + line + b"\n" + good):
        assert parse_block(block) is None


def test_lists_that_are_too_deep_to_write_are_left_to_the_careful_parser():
    """It says so, or reads them; orjson reads four times as deep as it writes."""
    good = b'{"a":[1,[2]]}\n' * 400

    assert keys_are_kept(good, [{"a": [1, [2]]}] * 400)
    assert parse_block(good + b'{"a":' + b"[" * 300 + b"]" * 300 + b"}") is None


def test_rows_of_many_lines_are_exact():
    """They are compared with those of the standard library, in value and type."""
    rows = [
        {"n": n, "x": n / 7, "s": f'"{n}": ', "l": [n, None], "o": {"k": True} if n % 2 else {}}
        for n in range(500)
    ]
    for some in (rows, [{**row, "o": 1} for row in rows]):
        data = "\n".join(map(json.dumps, some)).encode()

        assert repr(parse_block(data)) == repr(some)
