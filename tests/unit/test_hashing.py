"""The hash of a shard's source: the same for the same bytes, another for any byte that counts."""

import gzip
import io
from itertools import pairwise

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchrunner.formats.hashing import HashedReads, ReadHash
from batchrunner.formats.jsonl_reader import read_jsonl
from batchrunner.formats.parquet_reader import read_parquet
from batchrunner.formats.registry import FileKind, format_named
from batchrunner.shard import Slice, Slicing

JSONL, GZ, ZST, PARQUET = (
    FileKind("jsonl"),
    FileKind("jsonl", "gz"),
    FileKind("jsonl", "zst"),
    FileKind("parquet"),
)


def a_shard(data, slicing=Slicing.FILE, start=0, stop=None):
    stop = len(data) if stop is None else stop
    return Slice("/in/a", slicing, start, stop, len(data), "1")


def hash_of(data, shard, kind, columns=None):
    """What a worker keeps that reads the shard, and the rows that it read."""
    file, hashed = io.BytesIO(data), format_named(kind.format).source_hash(shard, columns=columns)
    read = hashed.over(file)
    if kind.format == "parquet":
        chunks = read_parquet(read, shard, columns=columns)
    else:
        chunks = read_jsonl(read, shard, compression=kind.compression, columns=columns)
    rows = [row for chunk in chunks for row in chunk.rows(0, len(chunk))]
    hashed.finish(file)
    return hashed.text, rows


def holds(data, shard, kind, hashed, columns=None):
    return format_named(kind.format).has_same_bytes(
        io.BytesIO(data), shard, columns=columns, hashed=hashed
    )


def flipped(data, at):
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


LINES = st.lists(
    st.sampled_from([b'{"a":1}', b'{"b":"xyz"}', b"", b"bad", b'{"c":[1,2]}']), max_size=9
)


@given(lines=LINES, ends=st.booleans(), cuts=st.lists(st.integers(0, 60), max_size=3))
def test_every_byte_that_a_row_depends_on_is_in_the_hash_of_its_range(lines, ends, cuts):
    """Whichever byte changes: a range whose hash still holds has the rows that it had."""
    data = b"\n".join(lines) + (b"\n" if ends else b"")
    edges = sorted({0, len(data), *(min(cut, len(data)) for cut in cuts)})
    for start, stop in pairwise(edges):
        shard = a_shard(data, Slicing.BYTES, start, stop)
        hashed, rows = hash_of(data, shard, JSONL)
        assert holds(data, shard, JSONL, hashed)
        for at in range(len(data)):
            changed = flipped(data, at)
            if holds(changed, shard, JSONL, hashed):
                assert hash_of(changed, shard, JSONL)[1] == rows
            else:
                assert at >= max(start - 1, 0)


def test_what_comes_after_a_range_is_not_in_its_hash():
    """Or one changed line would make the shards before it anew."""
    data = b'{"a":1}\n' * 4
    hashed, _ = hash_of(data, a_shard(data, Slicing.BYTES, 0, 9), JSONL)

    assert hashed.endswith("-16")
    assert holds(data[:16] + b'{"b":2}\n' * 2, a_shard(data, Slicing.BYTES, 0, 9), JSONL, hashed)


def compressed(kind, rows=2000):
    text = b"".join(b'{"id":%d}\n' % (n * 7919 % 10007) for n in range(rows))
    return gzip.compress(text) if kind is GZ else pa.compress(text, "zstd", asbytes=True)


@pytest.mark.parametrize("kind", [GZ, ZST])
def test_of_a_compressed_file_every_byte_counts(kind):
    """It cannot be cut, so its shard is all of it."""
    data = compressed(kind)
    shard = a_shard(data)
    hashed, rows = hash_of(data, shard, kind)

    assert len(rows) == 2000
    assert hashed.endswith(f"-{len(data)}")
    assert holds(data, shard, kind, hashed)
    assert not any(holds(flipped(data, at), shard, kind, hashed) for at in range(0, len(data), 37))


def test_of_the_first_rows_of_a_compressed_file_the_rest_does_not_count():
    """A limit reads no further; what it did not read changed nothing."""
    data = compressed(GZ, rows=400_000)
    shard = a_shard(data, Slicing.HEAD, 0, 3)
    hashed, rows = hash_of(data, shard, GZ)

    assert len(rows) == 3
    assert holds(flipped(data, len(data) - 9), shard, GZ, hashed)
    assert not holds(flipped(data, 20), shard, GZ, hashed)


def a_table():
    table = pa.table({"id": range(100), "a.b": range(100), "s": [{"x": n} for n in range(100)]})
    buffer = pa.BufferOutputStream()
    pq.write_table(table, buffer, row_group_size=25)
    return buffer.getvalue().to_pybytes()


@pytest.mark.parametrize("columns", [None, ("id",), ("a.b",), ("s",), ("id", "s")])
@pytest.mark.parametrize(
    ("slicing", "start", "stop"),
    [
        (Slicing.FILE, 0, None),
        (Slicing.ROW_GROUPS, 1, 3),
        (Slicing.ROWS, 30, 60),
        (Slicing.ROWS, 25, 50),
        (Slicing.ROW_GROUPS, 3, 4),
    ],
)
def test_every_byte_that_a_row_of_a_table_depends_on_is_in_its_hash(slicing, start, stop, columns):
    """Flip any: what still holds reads as it did."""
    data = a_table()
    shard = a_shard(data, slicing, start, stop)
    hashed, rows = hash_of(data, shard, PARQUET, columns)

    assert rows
    assert holds(data, shard, PARQUET, hashed, columns)
    noticed = 0
    for at in range(4, len(data), 11):
        changed = flipped(data, at)
        same = holds(changed, shard, PARQUET, hashed, columns)
        noticed += not same
        assert not same or hash_of(changed, shard, PARQUET, columns)[1] == rows
    assert noticed


def test_a_row_group_that_is_not_the_shards_does_not_count():
    """Or a shard would be made anew for another one's rows."""
    data = a_table()
    chunk = pq.ParquetFile(io.BytesIO(data)).metadata.row_group(3).column(0)
    shard = a_shard(data, Slicing.ROW_GROUPS, 0, 2)
    hashed, _ = hash_of(data, shard, PARQUET)

    assert holds(flipped(data, chunk.data_page_offset + 9), shard, PARQUET, hashed)


def test_a_read_that_passes_bytes_over_gives_no_hash():
    """Better none than one that vouches for what was never compared."""
    reads = HashedReads(io.BytesIO(b"0123456789"), start=0, stop=None)
    reads.read(2)
    reads.seek(4)
    reads.read(2)

    assert reads.digest() == ""


def test_bytes_that_are_read_twice_count_once():
    """A reader may look at the beginning and start over."""
    once, twice = (HashedReads(io.BytesIO(b"0123456789"), start=0, stop=None) for _ in range(2))
    once.read(6)
    twice.read(4)
    twice.seek(0)
    buffer = bytearray(6)
    twice.readinto(buffer)

    assert (bytes(buffer), twice.digest()) == (b"012345", once.digest())


def test_a_slice_whose_rows_need_a_header_has_no_hash_without_it():
    """Else the header could change, and the file would pass for the one that was read."""
    hashed = ReadHash(8)
    file = hashed.over(io.BytesIO(b"id,text\n1,a\n2,b\n"))
    assert file.read(8)
    assert file.read(4)

    assert hashed.text == ""
