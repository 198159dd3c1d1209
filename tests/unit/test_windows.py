"""Windows over the rows of a slice: each row, readable or not, lies in exactly one of them."""

from __future__ import annotations

import io
import json

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchrunner.formats.chunk import BadRow, Position
from batchrunner.formats.jsonl_reader import read_jsonl
from batchrunner.formats.parquet_reader import TableChunk
from batchrunner.shard import Slice, Slicing
from batchrunner.worker.windows import bad_rows_before, rows_of, windowed

LINES = st.lists(st.sampled_from(["row", "bad", "blank"]), min_size=1, max_size=30)


def a_file(kinds):
    """Lines that are rows, none, or blank, which is no row either; and what each row is called."""
    rows = [n for n, kind in enumerate(kinds) if kind != "blank"]
    text = {
        "row": lambda n: json.dumps({"id": n}),
        "bad": lambda n: f"bad {n}",
        "blank": lambda _: "",
    }
    return "".join(text[kind](n) + "\n" for n, kind in enumerate(kinds)).encode(), rows


def read(data):
    piece = Slice("in.jsonl", Slicing.BYTES, 0, len(data), len(data), "1")
    return read_jsonl(io.BytesIO(data), piece, compression=None, columns=None)


def by_offset(chunks):
    """What each row holds, in the order of the file, by its place there."""
    found = []
    for chunk in chunks:
        rows = chunk.rows(0, len(chunk))
        found += zip(chunk.positions(), [row["id"] for row in rows], strict=True)
        found += [(b.position.at, int(b.position.raw.split()[1])) for b in chunk.bad]
        assert [chunk.locate(n).at for n in range(len(chunk))] == list(chunk.positions())
        assert chunk.reread(0, len(chunk)) == rows
    return [number for _, number in sorted(found)]


@given(LINES, st.lists(st.integers(1, 9), max_size=5))
def test_windows_divide_the_rows_of_a_slice(kinds, takes):
    """A row in two of them would come out twice, a row in none never."""
    data, rows = a_file(kinds)
    skip, seen = 0, []
    for take in [*takes, None]:
        window = by_offset(windowed(read(data), skip=skip, take=take))
        assert window == rows[skip : None if take is None else skip + take]
        seen += window
        skip += take or 0

    assert seen == rows


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 3)), max_size=6), st.data())
def test_windows_go_over_chunks_and_keep_their_tables(sizes, data):
    """A chunk is cut in the middle, also by columns; its unreadable rows stay where they stand."""
    chunks, at = [], 0
    for rows, bad in sizes:
        kinds = data.draw(st.permutations([True] * rows + [False] * bad))
        good = [at + n for n, is_good in enumerate(kinds) if is_good]
        faults = [
            BadRow(Position("row", at + n, b""), "bad") for n, ok in enumerate(kinds) if not ok
        ]
        chunks.append(TableChunk(pa.table({"id": pa.array(good, pa.int64())}), good, tuple(faults)))
        at += rows + bad
    skip, take = data.draw(st.integers(0, at + 2)), data.draw(st.integers(1, at + 2))

    seen = []
    for chunk in windowed(iter(chunks), skip=skip, take=take):
        assert rows_of(chunk)
        for segment in chunk.segments():
            table = chunk.table(segment.start, segment.stop)
            assert table.column("id").to_pylist() == chunk.positions()[segment.start : segment.stop]
        seen += sorted([*chunk.positions(), *(row.position.at for row in chunk.bad)])

    assert seen == list(range(at))[skip : skip + take]


def test_reading_ends_with_the_window():
    """A file may go on for gigabytes after it."""

    def chunks():
        yield from read(a_file(["row"] * 4)[0])
        pytest.fail("the next chunk was read")

    assert by_offset(windowed(chunks(), skip=1, take=3)) == [1, 2, 3]


@given(LINES, st.lists(st.integers(0, 30), max_size=6))
def test_unreadable_rows_come_with_the_rows_before_which_they_stand(kinds, cuts):
    """So a shard may end after any row of a chunk."""
    data, _ = a_file(kinds)
    for chunk in read(data):
        before = bad_rows_before(chunk)
        seen, stops = [], sorted({min(cut, len(chunk)) for cut in cuts} | {len(chunk)})
        for stop in stops:
            given_now = [row.position.at for row in before(stop)]
            limit = chunk.positions()[stop] if stop < len(chunk) else len(data)
            assert all(at < limit for at in given_now)
            seen += given_now
            assert seen == [b.position.at for b in chunk.bad if b.position.at < limit]
