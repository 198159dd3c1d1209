"""Text: each line is a row, and what comes out is what went in."""

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchrunner.errors import ShardFailedError
from batchrunner.formats import lines
from batchrunner.formats.contract import Sharding
from batchrunner.formats.text import Text
from batchrunner.shard import Slice, Slicing

PIECES = [b"a", "ä€".encode(), b"\n", b"\r", b"\xe2\x80\xa8", b"\x00", b"\xff", b"\xef\xbb\xbf"]
FILES = st.lists(st.sampled_from(PIECES)).map(b"".join)


def pieces(data, *, sharding):
    slices = Text().cut(
        len(data),
        compression=None,
        sharding=sharding,
        limit=None,
        opened=lambda: io.BytesIO(data),
    )
    return [Slice("a.txt", s.slicing, s.start, s.stop, len(data), "1") for s in slices]


def chunks(data, *, piece=None, columns=None, partition=()):
    piece = piece or Slice("a.txt", Slicing.BYTES, 0, len(data), len(data), "1")
    read = {"compression": None, "columns": columns, "partition": partition}
    return list(Text().read(io.BytesIO(data), piece, **read))


def texts(data, **how):
    """The texts in order of their positions, None for a bad row."""
    found = []
    for chunk in chunks(data, **how):
        rows = [row["text"] for row in chunk.rows(0, len(chunk))]
        placed = [*zip(chunk.positions(), rows, strict=True)]
        found += sorted(
            [*placed, *((bad.position.at, None) for bad in chunk.bad)], key=lambda x: x[0]
        )
    return [text for _, text in found]


def by_hand(data):
    """The rows by Python's own words."""
    *ended, rest = data.removeprefix(b"\xef\xbb\xbf").split(b"\n")
    lines = [line.removesuffix(b"\r") for line in ended] + ([rest] if rest else [])
    return [line.decode() if b"\xff" not in line else None for line in lines]


@given(data=FILES, block=st.integers(1, 9))
def test_every_line_is_a_row(data, block):
    """Blank ones too, with either line end, and the last one also without; a bad one costs itself."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lines, "BLOCK_BYTES", block)
        assert texts(data) == by_hand(data)


@given(data=FILES, count=st.integers(1, 9), unit=st.sampled_from(["rows", "bytes"]))
def test_the_rows_of_the_slices_are_those_of_the_file(data, count, unit):
    """However it is cut, and counted by other code to as many rows."""
    found, counted = [], 0
    for piece in pieces(data, sharding=Sharding(unit, count)) if data else []:
        found += texts(data, piece=piece)
        counted += (
            Text().second_reader().count_rows(piece, lambda: io.BytesIO(data), compression=None)
        )

    assert found == by_hand(data)
    # A mark is as long as the smallest slices here, which no spec can ask for.
    assert counted == len(found) or (unit == "bytes" and data.startswith(b"\xef\xbb\xbf"))


@given(data=FILES)
def test_tables_hold_what_rows_hold(data):
    """`batch_format` does not change a value."""
    for chunk in chunks(data):
        table = chunk.table(0, len(chunk))
        assert table.to_pylist() == chunk.rows(0, len(chunk))
        assert table.schema == chunk.types


@given(rows=st.lists(st.text(st.characters(codec="utf-8")).filter(lambda t: "\n" not in t)))
def test_what_is_written_is_read(rows):
    """Each text comes back, the first of a part also if it begins with a byte order mark."""
    held = [text for text in rows if not text.endswith("\r")]
    for text in set(rows) - set(held):
        with pytest.raises(ValueError, match="line end"):
            Text().encode([{"text": text}])
    out = io.BytesIO()
    out.close = lambda: None
    part = Text().writer(out, compression="none", settle=None, restart=None)
    for text in held:
        part.append(Text().encode([{"text": text}]))
    part.close()

    assert texts(out.getvalue()) == held
    reader = Text().second_reader()
    again = reader.part_records(io.BytesIO(out.getvalue()), compression="none")
    assert [reader.row_of(record)["text"] for some in again for _, record in some] == held


@pytest.mark.parametrize(
    ("row", "why"),
    [
        ({"text": 1}, "a string, not int"),
        ({"text": None}, "a string, not NoneType"),
        ({"text": "a", "id": 1}, "the row has 'text', 'id'"),
        ({}, "the row has none"),
        ({"text": "a\nb"}, "line end"),
        ({"text": "\ud800"}, "surrogates"),
    ],
)
def test_what_a_line_cannot_hold_is_refused(row, why):
    """The row fails; it is not written as another."""
    with pytest.raises(ValueError, match=why):
        Text().encode([row])


def test_the_only_column_may_have_any_name():
    """`lambda rows: [{"answer": …}]` needs no renaming."""
    assert Text().encode([{"answer": "a"}, {"answer": ""}]) == b"a\n\n"


def test_a_line_that_is_too_long_is_a_bad_row(monkeypatch):
    """In bounded memory, and the lines around it are rows."""
    monkeypatch.setattr(lines, "BLOCK_BYTES", 1 << 16)
    data = b"a\n" + b"x" * (17 << 20) + b"\nb\n"

    assert texts(data) == ["a", None, "b"]


def test_columns_come_from_folders_or_are_refused():
    """A file of text has one column."""
    (chunk,) = chunks(b"a\nb\n", partition=(("day", "1"),), columns=("day",))

    assert chunk.rows(0, 2) == chunk.table(0, 2).to_pylist() == [{"day": "1"}, {"day": "1"}]
    with pytest.raises(ShardFailedError, match="no column 'id'"):
        chunks(b"a\n", columns=("id",))
