"""JSON lines as a source: which lines are rows, where they stand, and what the others are."""

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchrunner.errors import ShardFailedError
from batchrunner.formats import jsonl_reader
from batchrunner.formats.jsonl_reader import read_jsonl
from batchrunner.formats.lines import MAX_LINE_BYTES
from batchrunner.shard import Slice, Slicing


def chunks(data, *, compression=None, columns=None):
    shard = Slice("x.jsonl", Slicing.FILE, 0, len(data), len(data), "")
    return list(read_jsonl(io.BytesIO(data), shard, compression=compression, columns=columns))


def rows(data, **kwargs):
    return [row for chunk in chunks(data, **kwargs) for row in chunk.rows(0, len(chunk))]


def bad(data):
    return [(b.position.at, b.reason) for chunk in chunks(data) for b in chunk.bad]


@given(
    st.binary(max_size=80)
    | st.lists(st.sampled_from([b'{"a":1}', b"{", b" ", b"\n", b"\r", b"\xff"])).map(b"".join)
)
def test_every_line_that_is_not_blank_is_a_row_or_a_bad_row(data):
    """Nothing a file holds makes a line disappear, or the reader fail."""
    lines = [line for line in data.split(b"\n") if line.strip()]
    bom_alone = data.startswith(b"\xef\xbb\xbf") and not data.split(b"\n")[0][3:].strip()

    assert len(rows(data)) + len(bad(data)) == len(lines) - bom_alone


def test_blank_lines_crlf_and_a_missing_last_newline_change_nothing():
    """Files come from everywhere."""
    assert rows(b'{"a":1}\r\n\r\n  \n{"a":2}') == [{"a": 1}, {"a": 2}]
    assert bad(b'{"a":1}\r\n\r\n  \n{"a":2}') == []


def test_a_byte_order_mark_is_skipped_at_the_beginning_only():
    """Some editors write one."""
    assert rows(b'\xef\xbb\xbf{"a":1}\n') == [{"a": 1}]
    assert [at for at, _ in bad(b'{"a":1}\n\xef\xbb\xbf{"a":2}\n')] == [8]


def test_a_bad_row_is_named_by_its_place():
    """In a file of gigabytes, the byte is what an editor can jump to."""
    data = b'{"a":1}\n' * 100 + b"{bad}\n" + b'{"a":1}\n' * 100

    [(at, reason)] = bad(data)

    assert (at, len(rows(data))) == (800, 200)
    assert "Expecting property name" in reason


def test_every_row_knows_where_it_stands():
    """Also behind blank and bad lines."""
    data = b'{"n":0}\n\n{"n":1}\n{\n{"n":2}\n'
    [chunk] = chunks(data)

    for index in range(3):
        position = chunk.locate(index)
        assert data[position.at :].startswith(position.raw)
        assert position.raw == b'{"n":%d}' % index


@pytest.mark.parametrize("blank", [b"", b"  ", b"\r"])
@pytest.mark.parametrize("before", [62, 63, 64, 127])
def test_an_empty_line_moves_no_row_to_its_neighbours_line(before, blank):
    """Lines are looked at 64 at a time: one that ends such a run once cost the next row its place."""
    lines = [b'{"n":%d}' % n for n in range(200)]
    lines.insert(before, blank)
    [chunk] = chunks(b"\n".join([*lines, b""]))

    assert chunk.reread(0, 200) == chunk.rows(0, 200) == [{"n": n} for n in range(200)]
    assert [chunk.locate(n).raw for n in range(200)] == [b'{"n":%d}' % n for n in range(200)]
    assert chunk.positions() == [chunk.locate(n).at for n in range(200)]


def test_a_chunk_whose_rows_and_lines_do_not_agree_is_none():
    """Rows that fail would be read again from other lines: better no rows than these."""
    with pytest.raises(ValueError, match="2 rows, but the lines of 1"):
        jsonl_reader.JsonlChunk([{}, {}], b"{}\n{}\n", range(1), 0)


def test_rows_can_be_read_again_after_they_were_changed():
    """A capability may write into its rows before it raises."""
    [chunk] = chunks(b'{"n":[1]}\n')
    chunk.rows(0, 1)[0]["n"].append(2)

    assert chunk.reread(0, 1) == [{"n": [1]}]


def test_a_line_that_is_too_long_is_a_bad_row(monkeypatch):
    """The rows around it are kept."""
    monkeypatch.setattr(jsonl_reader, "MAX_LINE_BYTES", 100)
    data = b'{"a":1}\n{"b":"' + b"x" * 200 + b'"}\n{"a":2}\n'

    assert rows(data) == [{"a": 1}, {"a": 2}]
    assert bad(data) == [(8, "the line has 208 bytes; at most 100 are read: split the row")]


def test_a_giant_line_is_a_bad_row_with_its_beginning():
    """As long as it takes, and no more memory."""
    data = b'{"a":1}\n' + b"x" * (MAX_LINE_BYTES + (3 << 20)) + b'\n{"a":2}\n'

    assert rows(data) == [{"a": 1}, {"a": 2}]
    [(at, reason)] = bad(data)
    assert at == 8
    assert "at most 16,777,216 are read" in reason


@pytest.mark.parametrize(("compression", "codec"), [("gz", "gzip"), ("zst", "zstd")])
def test_compressed_members_may_follow_each_other(compression, codec):
    """`cat a.gz b.gz` is a way to make a file."""
    import pyarrow as pa

    member = pa.compress(b'{"a":1}\n', codec=codec, asbytes=True)

    assert rows(member + member, compression=compression) == [{"a": 1}, {"a": 1}]


@pytest.mark.parametrize(("compression", "codec"), [("gz", "gzip"), ("zst", "zstd")])
@pytest.mark.parametrize("damage", ["cut", "garbage"])
def test_a_damaged_compressed_file_is_named(compression, codec, damage):
    """Half of it must not be taken for the whole."""
    import pyarrow as pa

    whole = pa.compress(b'{"a":1}\n' * 1000, codec=codec, asbytes=True)
    data = whole[:-9] if damage == "cut" else b"this is no archive"

    with pytest.raises(ShardFailedError, match=r"x\.jsonl cannot be uncompressed"):
        rows(data, compression=compression)


def test_columns_that_a_row_lacks_stay_away():
    """A projection adds nothing."""
    assert rows(b'{"a":1,"b":2}\n{"b":3}\n', columns=("a",)) == [{"a": 1}, {}]
