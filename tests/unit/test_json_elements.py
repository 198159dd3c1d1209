"""A file of JSON is divided where a parser that is not ours divides it, wherever its blocks end."""

from __future__ import annotations

import gzip
import io
import json

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batchrunner.errors import ShardFailedError
from batchrunner.formats import json_elements, json_second_reader
from batchrunner.formats.contract import Sharding
from batchrunner.formats.json_elements import UndividedError, read_elements
from batchrunner.formats.json_files import Json
from batchrunner.formats.json_second_reader import ElementReader
from batchrunner.shard import Slice, Slicing

JSON = Json()
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=12,
)
TOKENS = [
    '{"a":1}',
    "[1,[2]]",
    r'"x\""',
    r'"\\"',
    *',, \n{}[]"\\1',
    "null",
    "é",
    '{"b":"[,]"}',
    "\r",
]
LAYOUTS = st.sampled_from([{}, {"indent": 1}, {"separators": (",", ":")}, {"ensure_ascii": False}])


def elements(data, **between):
    blocks = read_elements(io.BytesIO(data), **between)
    return [item for block in blocks for item in block.records()]


def again(data):
    """The same by the second reader."""
    piece = Slice("in.json", Slicing.FILE, 0, len(data), len(data), "1")
    records = ElementReader().records(io.BytesIO(data), piece, wanted=None, compression=None)
    return [item for some in records for item in some]


@pytest.fixture(params=[1, 2, 3, 7, 1 << 20])
def block_bytes(request, monkeypatch):
    for module in (json_elements, json_second_reader):
        monkeypatch.setattr(module, "BLOCK_BYTES", request.param)


@pytest.mark.usefixtures("block_bytes")
def test_elements_are_those_of_a_parser():
    """Whatever they hold: quotes, brackets and commas in strings are none."""

    @settings(max_examples=40, deadline=None)
    @given(st.lists(VALUES), LAYOUTS)
    def divided_alike(values, layout):
        data = json.dumps(values, **layout).encode(errors="surrogatepass")
        found = elements(data)
        assert [repr(json.loads(raw)) for _, raw in found] == [*map(repr, json.loads(data))]
        assert all(data[at : at + len(raw)] == raw for at, raw in found)
        assert again(data) == found

    divided_alike()


@pytest.mark.usefixtures("block_bytes")
def test_both_readers_divide_what_is_no_json_alike():
    """`verify` counts the bad rows that the run counted."""

    @settings(max_examples=150, deadline=None)
    @given(st.lists(st.sampled_from(TOKENS), max_size=9))
    def divided_alike(tokens):
        data = f"[{''.join(tokens)}]".encode()
        try:
            found = elements(data)
        except UndividedError:
            return
        assert again(data) == found

    divided_alike()


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("[]", []),
        (" \r\n[ \t] ", []),
        ("[1, 2]", [(1, b"1"), (4, b"2")]),
        ("[,]", [(1, b""), (2, b"")]),
        ("[1,]", [(1, b"1"), (3, b"")]),
        ("[1,,2]", [(1, b"1"), (3, b""), (4, b"2")]),
        ('{"a": [1, 2]}\n', [(0, b'{"a": [1, 2]}')]),
        ('  {"a": 1} ', [(0, b'{"a": 1}')]),
        ("12", [(0, b"12")]),
        ('"a{" ', [(0, b'"a{"')]),
        ('{"a":', [(0, b'{"a":')]),
        ('\ufeff[{"a": 1}]', [(4, b'{"a": 1}')]),
        ('\ufeff {"a": 1}', [(0, b'{"a": 1}')]),
    ],
)
@pytest.mark.usefixtures("block_bytes")
def test_an_element_is_where_it_stands_and_a_document_at_0(text, found):
    """`retry --rows` and a person find it there."""
    assert elements(text.encode()) == found
    assert again(text.encode()) == found


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "it holds no document"),
        ("\ufeff \n", "it holds no document"),
        ('{"a": 1}\n{"a": 2}\n', "its document ends before byte 9.*source.format: jsonl"),
        ("[1]\n[2]\n", "its array ends before byte 4.*source.format: jsonl"),
        ('[{"a": 1}]]', "its array ends before byte 10"),
        ('[{"a": 1}, {"b": ', "cut short: the element at byte 11 does not end"),
        ('[{"a": 1},', "cut short: the element at byte 10 does not end"),
        ('[{"a": "x}, {"b": 1}]', "cut short: the element at byte 1 does not end"),
        ('[{"a": [1}, {"b": 2}]', "cut short: the element at byte 1 does not end"),
    ],
)
@pytest.mark.usefixtures("block_bytes")
def test_a_file_that_cannot_be_divided_says_where_and_why(text, why):
    """And what to do about a file of lines, which is often called .json."""
    with pytest.raises(UndividedError, match=why):
        elements(text.encode())


def rows_of(text):
    """Rows, reasons of bad rows, in file order."""
    data = text if isinstance(text, bytes) else text.encode()
    piece = Slice("in.json", Slicing.FILE, 0, len(data), len(data), "1")
    found = []
    for chunk in JSON.read(io.BytesIO(data), piece, compression=None, columns=None, partition=()):
        found += zip(chunk.positions(), chunk.rows(0, len(chunk)), strict=True)
        found += [(bad.position.at, bad.reason) for bad in chunk.bad]
    return [what for _, what in sorted(found, key=lambda item: item[0])]


@pytest.mark.parametrize(
    ("element", "why"),
    [
        ('{"a": oops}', "Expecting value"),
        ('{"a": "\t"}', "Invalid control character"),
        ('{"a": 1, "a": 2}', "the key 'a' stands twice"),
        ('{"a": NaN}', "NaN is no JSON"),
        ('{"a": 1e999}', "is too large for a double"),
        ("3", "a row must be a JSON object, not a number"),
        ("null", "a row must be a JSON object, not null"),
        ('[{"a": 1}]', "a row must be a JSON object, not an array"),
        ("", "an element is missing before this comma or bracket"),
        (b'{"a": "\xff"}', "not UTF-8"),
        ("[" * 100_000 + "]" * 100_000, "nested too deeply"),
    ],
)
def test_a_bad_element_is_a_bad_row_with_the_reason_of_json_lines(element, why):
    """The rules are the same, and its neighbours are rows."""
    element = element if isinstance(element, bytes) else element.encode()
    first, bad, last = rows_of(b'[{"a": 0},%b, {"a": 1}]' % element)

    assert (first, last) == ({"a": 0}, {"a": 1})
    assert why in bad


@pytest.mark.parametrize(
    "element", ['{"a": 1]', '{"a": 1} {"b": 2}', '{"a": 1} oops', 'oops {"b": 2}', "[1}"]
)
def test_an_element_whose_end_is_uncertain_fails_the_file(element):
    """It may be two rows: to set it aside as one would lose the other."""
    with pytest.raises(ShardFailedError, match=r"at byte 11 .* where it ends is uncertain"):
        rows_of(f'[{{"a": 0}}, {element}]')


@pytest.mark.parametrize("text", ['{"a": oops}', "12", '"a"', "nothing", '{"a": 1'])
def test_a_bad_document_is_a_bad_row(text):
    """A folder of documents has one row a file, good or bad."""
    (reason,) = rows_of(text)

    assert isinstance(reason, str)


EXACT = [
    {"big": 10**30, "small": -(2**63)},
    {"float": 1e300, "zero": -0.0, "tiny": 5e-324},
    {"text": '\u2028 "quoted" \\ \x00 \U0001d11e', "lone": "\ud800"},
    {"": {"": [[], {}, None, True]}},
    {},
]


@pytest.mark.parametrize("layout", [{}, {"indent": 3}, {"ensure_ascii": False}])
def test_values_are_exact_in_every_layout(layout):
    """A document on many lines is parsed as one on a single line is."""
    values = EXACT if not layout else [{**row, "lone": None} for row in EXACT]
    text = json.dumps(values, **layout)

    assert repr(rows_of(text)) == repr(values)
    assert [repr(rows_of(json.dumps(row, **layout))) for row in values] == [
        repr([row]) for row in values
    ]


def test_an_element_too_long_to_hold_is_a_bad_row():
    """Memory is bounded, and its neighbours are rows."""
    text = json.dumps([{"a": 0}, {"a": "x" * (18 << 20)}, {"a": 1}, {"a": "y" * (16 << 20)}])
    found = rows_of(text)

    assert (found[0], found[2]) == ({"a": 0}, {"a": 1})
    assert "the row has 18,874,377 bytes; at most 16,777,216 are read" in found[1]
    assert "the row has 16,777,225 bytes" in found[3]
    assert [at for at, _ in again(text.encode())] == [at for at, _ in elements(text.encode())]


def test_a_document_too_long_to_hold_is_a_bad_row():
    """Not a file that is held whole, whatever its size."""
    (reason,) = rows_of(json.dumps({"a": "x" * (17 << 20)}))

    assert "the row has 17,825,801 bytes" in reason


def slices(data, unit, count, *, compression=None, limit=None):
    return JSON.cut(
        len(data),
        compression=compression,
        sharding=Sharding(unit, count),
        limit=limit,
        opened=lambda: io.BytesIO(data),
    )


def test_a_large_array_is_cut_between_elements():
    """So that a file of any size is the work of many."""
    data = json.dumps([{"n": n} for n in range(100)], indent=1).encode()
    cut = slices(data, "bytes", 300)

    assert len(cut) > 4
    assert [(piece.slicing, cut[0].start, cut[-1].stop) for piece in cut[:1]] == [
        (Slicing.BYTES, 0, len(data))
    ]
    assert sum(piece.rows for piece in cut) == 100
    assert [piece.rows for piece in slices(data, "rows", 40)] == [40, 40, 20]


@pytest.mark.parametrize("data", [b'{"a": 1}', b'[{"a": 1', b"[]", b'{"a": 1}\n{"a": 2}', b"\xff"])
def test_a_file_that_cannot_be_cut_is_one_slice(data):
    """What is wrong with it fails its piece, and not the plan."""
    for unit in ("rows", "bytes"):
        (piece,) = slices(data, unit, 1)
        assert (piece.start, piece.stop) == (0, len(data))


@pytest.mark.parametrize("limit", [1, 2, 3, 99])
def test_a_compressed_array_is_one_slice(limit):
    """Of the first rows, if these are all that is asked for."""
    data = gzip.compress(b'[{"a": 1}, {"a": 2}, {"a": 3}]')
    (piece,) = slices(data, "rows", 1, compression="gz", limit=limit)

    assert piece.rows == min(limit, 3)
    assert slices(data, "rows", 1, compression="gz")[0].slicing is Slicing.FILE


def test_a_compressed_file_that_is_cut_short_fails_its_shard():
    """And is named."""
    data = pa.compress(json.dumps([{"a": n} for n in range(9999)]).encode(), "zstd", asbytes=True)[
        :-9
    ]
    piece = Slice("in.json.zst", Slicing.FILE, 0, len(data), len(data), "1")

    with pytest.raises(ShardFailedError, match=r"in\.json\.zst"):
        list(JSON.read(io.BytesIO(data), piece, compression="zst", columns=None, partition=()))
