"""Every way of asking a source for its rows, held against parsers that are not ours.

Rows that fail are asked for again, by number, by position, one by one. Each way has to mean the same
rows, whatever stands between them: one row off, and a row is lost and its neighbour doubled.
"""

import io
import json
import math
from contextlib import contextmanager
from itertools import pairwise

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batchrunner.formats import jsonl_reader, lines, parquet_reader
from batchrunner.formats.chunk import MAX_RAW_BYTES
from batchrunner.formats.jsonl import JsonLines
from batchrunner.formats.jsonl_reader import read_jsonl
from batchrunner.formats.lines import read_lines
from batchrunner.formats.parquet import Parquet
from batchrunner.formats.parquet_reader import read_parquet
from batchrunner.formats.registry import FileKind
from batchrunner.shard import Slice, Slicing
from batchrunner.worker.picking import picked

BOM = b"\xef\xbb\xbf"
MAX_LINE = 1000

# What stands in real files, and what our readers treat apart.
ROWS = st.sampled_from(
    [
        *[b'{"id": %d}' % n for n in range(40)],
        b'{"id": 1, "text": "\xe2\x80\xa8 a line that is none \xc3\xa4"}',
        b'  {"id": 2}  ',
        b'{"id": 3}\r',
        b"{}",
        b'{"id": 12345678901234567890123}',
        b'{"id": -0, "x": 1e5, "y": 1.0, "z": -0.0, "t": true, "n": null}',
        b'{"id": 4, "s": "\\ud800"}',
        b'{"id": 5, "s": "\\u0022"}',
        b'{"id": 6, "deep": ' + b"[" * 300 + b"]" * 300 + b"}",
    ]
)
NO_ROWS = st.sampled_from(
    [
        *(b"{", b"[1]", b"7", b"null", b"{}{}", b'{"a": 1} {"a": 2}', b"nope", b'{"id": 1}x'),
        *(b'{"a": 1, "a": 2}', b'{"a": {"b": 1, "b": 2}}', b'{"a": NaN}', b'{"a": -Infinity}'),
        *(b'{"a": 1e999}', b'{"a": "\xff"}', b"\xff\xfe", b'{"a": "\x00"}', b"\x00", BOM + b"{}"),
        b"[" * MAX_LINE,
        b'{"id": 1, "long": "' + b"x" * MAX_LINE + b'"}',
        b"x" * (3 * MAX_LINE),
    ]
)
BLANK = st.sampled_from([b"", b"", b"", b" ", b"\r", b"\t \r", b"\x0b", b"\x0c"])
LINE = st.one_of(ROWS, ROWS, ROWS, BLANK, NO_ROWS)


class File(bytes):
    """Shown in short."""

    __slots__ = ()

    def __repr__(self):
        return repr([line[:30] for line in self.split(b"\n")])


FILES = st.builds(
    lambda bom, found, end: File(bom + b"\n".join(found) + end),
    st.sampled_from([b"", b"", BOM]),
    st.lists(LINE, max_size=30) | st.lists(st.one_of(ROWS, BLANK), min_size=60, max_size=200),
    st.sampled_from([b"\n", b"", b"\n\n"]),
)


def parsed_by_the_book(data):
    """Each row and bad row of *data*, with where it stands: (offset, line, row or None)."""
    offset = 0
    for line in data.split(b"\n"):
        skipped = len(BOM) if offset == 0 and line.startswith(BOM) else 0
        if line[skipped:].strip():
            yield offset + skipped, line[skipped:], row_of(line[skipped:])
        offset += len(line) + 1


def row_of(line):
    def unique(pairs):
        if len(dict(pairs)) < len(pairs):
            raise ValueError
        return dict(pairs)

    def finite(text):
        if not math.isfinite(number := float(text)):
            raise ValueError
        return number

    if len(line) > MAX_LINE:
        return None
    try:
        row = json.loads(
            line.decode(), object_pairs_hook=unique, parse_float=finite, parse_constant=finite
        )
    except (ValueError, RecursionError):
        return None
    return row if isinstance(row, dict) else None


@contextmanager
def small(*, block, few=64):
    """Blocks, runs of lines and longest lines of a few bytes, so that small files have many."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lines, "BLOCK_BYTES", block)
        patch.setattr(jsonl_reader, "MAX_LINE_BYTES", MAX_LINE)
        patch.setattr(jsonl_reader, "_FEW", few)
        patch.setitem(read_lines.__kwdefaults__, "max_line", MAX_LINE)
        yield


def hold(chunks, expected, *, unit):
    """Check every way of asking *chunks* for their rows: (position, raw, row or None) in order."""
    good = [one for one in expected if one[2] is not None]
    bad = [(at, raw) for at, raw, row in expected if row is None]
    found = []
    for chunk in chunks:
        found += held_chunk(chunk, good[len(found) : len(found) + len(chunk)], unit=unit)
    places = [row.position for chunk in chunks for row in chunk.bad]

    assert len(found) == len(good)
    assert [place.at for place in places] == [at for at, _ in bad]
    for place, (_, raw) in zip(places, bad, strict=True):  # of a giant, its beginning
        assert place.raw == raw or (len(raw) > MAX_LINE and raw.startswith(place.raw))


def held_chunk(chunk, expected, *, unit):
    n = len(chunk)
    want = repr([row for _, _, row in expected])  # 1, 1.0 and True are not the same
    first = chunk.rows(0, n)
    assert repr(first) == want
    for row in first:
        row.clear()  # as a capability might, before it fails
    assert repr(chunk.reread(0, n)) == want
    cuts = sorted({0, n // 3, n // 2, n})
    assert repr([row for a, b in pairwise(cuts) for row in chunk.reread(a, b)]) == want
    assert list(chunk.positions()) == [at for at, _, _ in expected]
    places = [chunk.locate(index) for index in range(n)]
    assert [(p.unit, p.at, p.raw) for p in places] == [(unit, at, raw) for at, raw, _ in expected]
    return expected


def expected_of(data, *, start=0, stop=None):
    return [
        (at, line[:MAX_RAW_BYTES], row)
        for at, line, row in parsed_by_the_book(data)
        if start <= (0 if data.startswith(BOM) and at == len(BOM) else at) < (stop or len(data) + 1)
    ]


def read(data, slicing, start, stop, *, compression=None):
    shard = Slice("x.jsonl", slicing, start, stop, len(data), "")
    return list(read_jsonl(io.BytesIO(data), shard, compression=compression, columns=None))


@given(data=FILES, few=st.sampled_from([2, 3, 64]), block=st.sampled_from([16, 100, 1 << 20]))
def test_lines_of_a_file_mean_the_same_rows_however_they_are_asked_for(data, few, block):
    """As the standard library reads them, line by line."""
    with small(block=block, few=few):
        hold(read(data, Slicing.FILE, 0, len(data)), expected_of(data), unit="byte")


@given(data=FILES, codec=st.sampled_from([("gz", "gzip"), ("zst", "zstd")]), block=st.just(100))
@settings(max_examples=40)
def test_lines_of_a_compressed_file_mean_the_same_rows(data, codec, block):
    """Their offsets are those of the text inside."""
    packed = pa.compress(data, codec=codec[1], asbytes=True)
    with small(block=block, few=3):
        found = read(packed, Slicing.FILE, 0, len(packed), compression=codec[0])
        hold(found, expected_of(data), unit="byte")


@given(data=FILES, cuts=st.lists(st.integers(1, 800), max_size=4))
def test_lines_of_byte_ranges_mean_the_same_rows(data, cuts):
    """Each line in the range that holds its first byte."""
    edges = [0, *sorted({cut for cut in cuts if cut < len(data)}), len(data)]
    with small(block=64, few=3):
        for start, stop in pairwise(edges):
            hold(
                read(data, Slicing.BYTES, start, stop),
                expected_of(data, start=start, stop=stop),
                unit="byte",
            )


@given(data=FILES, count=st.integers(1, 12))
@settings(max_examples=40)
def test_the_first_rows_of_a_compressed_file_mean_the_same_rows(data, count):
    """Bad rows count, too."""
    with small(block=64, few=3):
        packed = pa.compress(data, codec="gzip", asbytes=True)
        expected = expected_of(data)[:count]
        if len(expected) == count:
            found = read(packed, Slicing.HEAD, 0, count, compression="gz")
            hold(found, expected, unit="byte")


@given(data=FILES, pick=st.sets(st.integers(0, 60), min_size=1), compressed=st.booleans())
def test_picked_lines_are_the_ones_that_were_picked(data, pick, compressed):
    """How rows that failed are found again, in another process and another year."""
    expected = [one for number, one in enumerate(expected_of(data)) if number in pick]
    if not expected:
        return
    kind = FileKind("jsonl", "gz" if compressed else None)
    file = pa.compress(data, codec="gzip", asbytes=True) if compressed else data
    shard = Slice("x.jsonl", Slicing.DEAD_LETTERS, 0, len(expected), len(file), "")
    wanted = frozenset(at for at, _, _ in expected)
    with small(block=64, few=3):
        part = JsonLines().span(shard, wanted, compression=kind.compression)
        chunks = read(file, part.slicing, part.start, part.stop, compression=kind.compression)
        hold(list(picked(iter(chunks), wanted, piece=shard)), expected, unit="byte")


# Parquet: tables whose bad rows are known because they were put there.
NO_TEXT = b"\xff"
CELLS = st.tuples(
    st.integers(-(2**63), 2**63 - 1) | st.none(),
    st.text(max_size=3).map(str.encode) | st.none() | st.just(NO_TEXT),
    st.lists(st.just(b"a") | st.just(b"") | st.just(NO_TEXT), max_size=2),
)
TABLES = st.lists(st.lists(CELLS, max_size=12), min_size=1, max_size=5)


def a_file(groups, *, words):
    """A file of row groups; strings are written as bytes first, since some are none."""
    file, schema = io.BytesIO(), None
    for cells in groups:
        text = pa.array([text for _, text, _ in cells], pa.binary()).view(pa.string())
        flat = pa.array([b for _, _, many in cells for b in many], pa.binary()).view(pa.string())
        ends = [sum(len(many) for _, _, many in cells[:n]) for n in range(len(cells) + 1)]
        table = pa.table(
            {
                "i": pa.array([number for number, _, _ in cells], pa.int64()),
                "s": text.dictionary_encode() if words else text,
                "l": pa.ListArray.from_arrays(pa.array(ends, pa.int32()), flat),
            }
        )
        if schema is None:
            schema, writer = table.schema, pq.ParquetWriter(file, table.schema)
        writer.write_table(table)
    writer.close()
    return file.getvalue()


def rows_by_hand(groups, columns):
    """(number, None, row or None) of each row: None for one with a string that is no text."""
    cells = [cell for group in groups for cell in group]
    for number, (i, s, many) in enumerate(cells):
        row = {"i": i, "s": s, "l": many}
        row = {name: row[name] for name in row if name in columns}
        values = [row.get("s"), *row.get("l", [])]
        yield number, None if NO_TEXT in values else decoded(row)


def decoded(value):
    if isinstance(value, dict):
        return {name: decoded(item) for name, item in value.items()}
    if isinstance(value, list):
        return [decoded(item) for item in value]
    return value.decode() if isinstance(value, bytes) else value


@st.composite
def slices_of(draw, groups):
    """A shard of a file, and the numbers of its rows."""
    ends = [sum(map(len, groups[:n])) for n in range(len(groups) + 1)]
    slicing = draw(st.sampled_from([Slicing.FILE, Slicing.ROW_GROUPS, Slicing.ROWS]))
    if slicing is Slicing.FILE:
        return slicing, 0, 0, range(ends[-1])
    edges = ends if slicing is Slicing.ROW_GROUPS else range(ends[-1] + 1)
    start, stop = sorted(draw(st.tuples(*[st.integers(0, len(edges) - 1)] * 2)))
    return slicing, start, stop, range(edges[start], edges[stop])


@given(data=st.data(), groups=TABLES, words=st.booleans(), at_once=st.sampled_from([1, 5, 100]))
def test_rows_of_parquet_mean_the_same_however_they_are_asked_for(data, groups, words, at_once):
    """Of every slice and projection, picked or not; strings that are none are bad rows."""
    slicing, start, stop, numbers = data.draw(slices_of(groups))
    columns = data.draw(st.sampled_from([("i", "s", "l"), ("s",), ("i", "l"), ("i",)]))
    pick = data.draw(st.none() | st.sets(st.integers(0, 60), min_size=1))
    expected = [one for one in rows_by_hand(groups, columns) if one[0] in numbers]
    file, shard = a_file(groups, words=words), Slice("x", slicing, start, stop, 0, "")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parquet_reader, "READ_ROWS", at_once)
        if pick is None:
            found = list(read_parquet(io.BytesIO(file), shard, columns=columns))
        else:
            expected = [one for one in rows_by_hand(groups, columns) if one[0] in pick]
            wanted = frozenset(number for number, _ in expected)
            if not wanted:
                return
            part = Parquet().span(shard, wanted, compression=None)
            chunks = read_parquet(io.BytesIO(file), part, columns=columns)
            found = list(picked(chunks, wanted, piece=shard))
    hold_tables(found, expected)


def hold_tables(chunks, expected):
    good = [one for one in expected if one[1] is not None]
    for chunk in chunks:
        n = len(chunk)
        here, good = good[:n], good[n:]
        want = [row for _, row in here]
        cuts = sorted({0, n // 3, n // 2, n})
        spans = list(pairwise(cuts))
        assert chunk.rows(0, n) == chunk.reread(0, n) == want
        assert [row for a, b in spans for row in chunk.reread(a, b)] == want
        assert [row for a, b in spans for row in chunk.table(a, b).to_pylist()] == want
        assert list(chunk.positions()) == [number for number, _ in here]
        places = [chunk.locate(index) for index in range(n)]
        assert [(p.unit, p.at) for p in places] == [("row", number) for number, _ in here]
        assert [json.loads(p.raw) for p in places] == want
    assert not good
    places = [row.position.at for chunk in chunks for row in chunk.bad]
    assert places == [number for number, row in expected if row is None]
