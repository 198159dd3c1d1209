"""Cutting files into shards: whatever the cut, every row is in exactly one of them."""

import io
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batchrunner.driver.file_table import SourceFile
from batchrunner.driver.plan import Slicer
from batchrunner.formats import lines, parquet_reader
from batchrunner.formats.contract import Sharding
from batchrunner.formats.jsonl_reader import read_jsonl
from batchrunner.formats.parquet_reader import read_parquet
from batchrunner.formats.registry import FileKind
from batchrunner.shard import Slice, Slicing

JSONL, PARQUET = "jsonl", "parquet"
PLAIN, ROWS_IN_GROUPS = FileKind(JSONL), FileKind(PARQUET)
CODECS = {"gz": "gzip", "zst": "zstd"}

LINES = st.lists(st.sampled_from([b'{"a":1}', b'{"text":"\xe2\x80\xa8 x"}', b"", b" \r", b"{"]))
JSONL_BYTES = st.tuples(LINES, st.sampled_from([b"", b"\n"])).map(
    lambda made: b"\n".join(made[0]) + made[1]
)
LIMITS = st.none() | st.integers(1, 12)
GROUPS = st.lists(st.integers(0, 9), max_size=6)


def cut(data, kind, *, unit="bytes", count=1, limit=None, opened=None):
    file = SourceFile("x", len(data), "", kind)
    opened = opened or (lambda: io.BytesIO(data))
    return Slicer(lambda _: opened()).slices(file, Sharding(unit, count), limit)


def read(data, kind, piece):
    """Return what a worker finds in a slice: its rows, and in place of a bad one its line."""
    fields = (piece.slicing, piece.start, piece.stop)
    shard = Slice("x", *fields, size=len(data), identity="", rows=piece.rows)
    if kind.format == PARQUET:
        chunks = read_parquet(io.BytesIO(data), shard, columns=None)
        return [row["n"] for chunk in chunks for row in chunk.rows(0, len(chunk))]
    chunks = read_jsonl(io.BytesIO(data), shard, compression=kind.compression, columns=None)
    found = []
    for chunk in chunks:
        good = [(chunk.locate(i).at, row) for i, row in enumerate(chunk.rows(0, len(chunk)))]
        bad = [(one.position.at, one.position.raw) for one in chunk.bad]
        found += [row for _, row in sorted(good + bad, key=lambda item: item[0])]
    return found


def written(data):
    """Return the rows of a file without our own code: JSON, or the line when it is none."""
    rows = [line for line in data.split(b"\n") if line.strip()]
    return [line if line == b"{" else json.loads(line) for line in rows]


def a_parquet_file(groups, *, padding=0):
    """A file of numbered rows; *groups* says how many rows each row group has."""
    buffer, first = pa.BufferOutputStream(), 0
    schema = pa.schema([("n", pa.int64()), ("pad", pa.string())])
    with pq.ParquetWriter(buffer, schema, compression="none", use_dictionary=False) as writer:
        for rows in groups:
            numbers = range(first, first + rows)
            padded = [f"{n:0{padding + 1}d}" for n in numbers]
            writer.write_table(pa.table({"n": list(numbers), "pad": padded}, schema=schema))
            first += rows
    return buffer.getvalue().to_pybytes()


def never():
    raise AssertionError("opened")


@given(
    data=JSONL_BYTES,
    unit=st.sampled_from(["bytes", "rows", "files"]),
    count=st.integers(1, 40),
    limit=LIMITS,
    block=st.integers(1, 30),
)
@settings(max_examples=300)
def test_the_slices_of_jsonl_hold_the_rows_of_the_file(data, unit, count, limit, block):
    """Wherever it is cut, and however it is read: each row once, in order, up to the limit."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lines, "BLOCK_BYTES", block)
        slices = cut(data, PLAIN, unit=unit, count=count, limit=limit)
        found = [read(data, PLAIN, piece) for piece in slices]

    assert [row for rows in found for row in rows] == written(data)[:limit]
    assert all(piece.rows in (None, len(rows)) for piece, rows in zip(slices, found, strict=True))
    assert limit is None or all(piece.rows is not None for piece in slices)


@given(data=JSONL_BYTES, every=st.integers(1, 5), limit=LIMITS)
def test_shards_of_so_many_rows_are_exact(data, every, limit):
    """All have as many as was asked for, but the last; none has none."""
    total = len(written(data)[:limit])

    counts = [
        len(read(data, PLAIN, one))
        for one in cut(data, PLAIN, unit="rows", count=every, limit=limit)
    ]

    full, rest = divmod(total, every)
    assert counts == [every] * full + [rest] * (rest > 0)


@given(size=st.integers(1, 10**7), step=st.integers(1, 10**6))
def test_byte_ranges_touch_and_are_about_as_large_as_asked(size, step):
    """No gap, no overlap, no crumb at the end that costs a whole part."""
    step = max(step, size // 1000)
    slices = Slicer(never).slices(SourceFile("x", size, "", PLAIN), Sharding("bytes", step), None)

    edges = [piece.start for piece in slices] + [slices[-1].stop]
    assert edges == [0, *(piece.stop for piece in slices)]
    assert edges[-1] == size == sum(piece.weight for piece in slices)
    assert all(piece.weight <= 1.5 * step + 1 for piece in slices)
    assert len(slices) == 1 or all(piece.weight >= step / 1.5 - 1 for piece in slices)


def test_a_line_longer_than_a_shard_is_in_one_of_them():
    """The shards that lie inside it have no rows, and are no error."""
    data = b'{"a":"' + b"x" * 100 + b'"}\n{"a":1}\n'

    counts = [len(read(data, PLAIN, piece)) for piece in cut(data, PLAIN, count=20)]

    assert counts == [1, 0, 0, 0, 0, 1]


def test_a_byte_order_mark_belongs_to_the_first_row():
    """It must not become a row, nor hide one."""
    data = b'\xef\xbb\xbf{"a":1}\n{"a":2}\n'

    slices = cut(data, PLAIN, unit="rows")

    assert [read(data, PLAIN, piece) for piece in slices] == [[{"a": 1}], [{"a": 2}]]


@pytest.mark.parametrize("compression", ["gz", "zst"])
@given(
    rows=st.lists(st.sampled_from([b'{"a":1}\n', b"\n"]), min_size=1),
    unit=st.sampled_from(["bytes", "files"]),
    limit=LIMITS,
)
def test_a_compressed_file_is_one_shard_of_the_first_rows(compression, rows, unit, limit):
    """Nothing inside it can be jumped to."""
    text = b"".join(rows)
    data = pa.compress(text, codec=CODECS[compression], asbytes=True)
    kind = FileKind(JSONL, compression)

    [piece] = cut(data, kind, unit=unit, limit=limit)

    found = read(data, kind, piece)
    assert found == written(text)[:limit]
    assert piece.rows == (None if limit is None else len(found))
    assert piece.slicing is (Slicing.HEAD if written(text)[limit or 99 :] else Slicing.FILE)


@pytest.mark.parametrize("compression", ["gz", "zst"])
@given(
    rows=st.lists(st.sampled_from([b'{"a":1}\n', b"\n", b"{\n"]), min_size=1),
    count=st.integers(1, 5),
    limit=LIMITS,
)
def test_a_compressed_file_is_cut_by_rows_into_windows(compression, rows, count, limit):
    """Each begins where the one before it ends, and has as many rows as were asked for."""
    text = b"".join(rows)
    data = pa.compress(text, codec=CODECS[compression], asbytes=True)

    pieces = cut(data, FileKind(JSONL, compression), unit="rows", count=count, limit=limit)

    number = len(written(text)[:limit])
    starts = range(0, number, count) or [0]
    assert [(one.skip, one.rows) for one in pieces] == [
        (start, min(count, number - start)) for start in starts
    ]


@given(
    groups=GROUPS,
    unit=st.sampled_from(["bytes", "rows", "row_groups", "files"]),
    count=st.integers(1, 500),
    limit=LIMITS,
    at_once=st.integers(1, 30),
)
@settings(max_examples=200)
def test_the_slices_of_parquet_hold_the_rows_of_the_file(groups, unit, count, limit, at_once):
    """Whatever its row groups, empty ones too: each row once, in order, up to the limit."""
    data = a_parquet_file(groups)
    count = count if unit == "bytes" else count % 11 + 1

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parquet_reader, "READ_ROWS", at_once)
        slices = cut(data, ROWS_IN_GROUPS, unit=unit, count=count, limit=limit)
        found = [read(data, ROWS_IN_GROUPS, piece) for piece in slices]

    assert [n for rows in found for n in rows] == list(range(sum(groups)))[:limit]
    assert all(piece.rows in (None, len(rows)) for piece, rows in zip(slices, found, strict=True))
    assert limit is None or all(piece.rows is not None for piece in slices)


@given(groups=GROUPS, every=st.integers(1, 5), limit=LIMITS)
def test_parquet_shards_of_so_many_rows_are_exact(groups, every, limit):
    """Also where they begin in the middle of a row group and end in the next but one."""
    data = a_parquet_file(groups)
    total = min(sum(groups), limit or 99)

    slices = cut(data, ROWS_IN_GROUPS, unit="rows", count=every, limit=limit)

    full, rest = divmod(total, every)
    assert [piece.rows for piece in slices] == [every] * full + [rest] * (rest > 0)


@given(groups=st.lists(st.integers(1, 3), min_size=1, max_size=9), count=st.integers(1, 4))
def test_so_many_row_groups_make_a_shard(groups, count):
    """The last has the rest."""
    slices = cut(a_parquet_file(groups), ROWS_IN_GROUPS, unit="row_groups", count=count)

    full, rest = divmod(len(groups), count)
    sizes = [piece.stop - piece.start for piece in slices]
    assert sizes == [count] * full + [rest] * (rest > 0)
    assert {piece.slicing for piece in slices} == {Slicing.ROW_GROUPS}


def test_row_groups_are_gathered_until_a_shard_is_large_enough():
    """Parquet cannot be cut inside a row group by bytes."""
    data = a_parquet_file([100] * 12, padding=90)

    slices = cut(data, ROWS_IN_GROUPS, count=25_000)

    assert [piece.rows for piece in slices] == [300, 300, 300, 300]
    assert all(piece.weight >= 25_000 for piece in slices)


@pytest.mark.parametrize(
    ("kind", "unit", "limit"),
    [
        (PLAIN, "bytes", None),
        (PLAIN, "files", None),
        (FileKind(JSONL, "gz"), "bytes", None),
        (FileKind(JSONL, "zst"), "files", None),
        (ROWS_IN_GROUPS, "files", None),
        (ROWS_IN_GROUPS, "bytes", None),
        (PLAIN, "rows", 0),
        (ROWS_IN_GROUPS, "rows", 0),
    ],
)
def test_nothing_is_opened_that_need_not_be(kind, unit, limit):
    """Planning a million files costs their listing."""
    cut(b"x" * 1500, kind, unit=unit, count=1000, limit=limit, opened=never)


@pytest.mark.parametrize("kind", [PLAIN, ROWS_IN_GROUPS, FileKind(JSONL, "gz")])
@pytest.mark.parametrize("unit", ["bytes", "rows", "files"])
@pytest.mark.parametrize("limit", [None, 5])
def test_an_empty_file_gives_no_shard(kind, unit, limit):
    """And is not opened to find that out."""
    assert cut(b"", kind, unit=unit, limit=limit, opened=never) == []


class Watched(io.BytesIO):
    """A file that counts the bytes that are read from it."""

    taken = 0

    def read(self, size=-1):
        data = super().read(size)
        self.taken += len(data)
        return data


def test_a_limit_reads_no_further_than_it_must():
    """To try the first rows of a terabyte takes no longer than that."""
    data = b'{"a":1}\n' * 600_000
    file = Watched(data)

    slices = cut(data, PLAIN, count=1 << 20, limit=10, opened=lambda: file)

    assert [(piece.start, piece.stop, piece.rows) for piece in slices] == [(0, 80, 10)]
    assert file.taken <= lines.BLOCK_BYTES


def test_of_a_parquet_file_the_footer_alone_is_read():
    """Its data is for the workers."""
    data = a_parquet_file([2000] * 5, padding=200)
    file = Watched(data)

    cut(data, ROWS_IN_GROUPS, unit="rows", count=100, opened=lambda: file)

    assert file.taken < len(data) / 10


@pytest.mark.parametrize(("kind", "unit"), [(PLAIN, "rows"), (ROWS_IN_GROUPS, "row_groups")])
def test_what_was_opened_is_closed(kind, unit):
    """A source of 100,000 files has more than a process may keep open."""
    data = a_parquet_file([3]) if kind.format == PARQUET else b'{"a":1}\n'
    file = io.BytesIO(data)

    cut(data, kind, unit=unit, opened=lambda: file)

    assert file.closed


@pytest.mark.parametrize("unit", ["rows", "row_groups", "bytes"])
@pytest.mark.parametrize("limit", [None, 3])
def test_a_file_without_a_readable_footer_is_one_shard(unit, limit):
    """Its shard then fails, with the reason; the plan, and with it all other files, does not."""
    data = b"PAR1" + bytes(100) + b"PAR1"

    (piece,) = cut(data, FileKind(PARQUET), unit=unit, limit=limit)

    assert (piece.slicing, piece.rows) == (Slicing.FILE, None)
