"""JSON lines by columns: the tables, and the lines, that there are by rows, or none."""

import io
import json
import math

import numpy as np
import orjson
import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import exact
from batchrunner.formats import json_tables
from batchrunner.formats.chunk import Shape
from batchrunner.formats.columns import table_to_rows
from batchrunner.formats.json_columns import write_table
from batchrunner.formats.json_rows import write_block
from batchrunner.formats.jsonl import JsonLines
from batchrunner.formats.jsonl_reader import parse
from batchrunner.formats.line_tables import line_table_of
from batchrunner.formats.lines import LineBlock
from batchrunner.formats.shapes import tables_of
from batchrunner.shard import Slice, Slicing

TEXTS = st.text(max_size=6) | st.sampled_from(
    ["", '"', "\\", '\\"', "a,b", '","', "null", "\x00", "\n", "ä", "😀", "\u2028", "\x7f", "}\n{"]
)
INTEGERS = st.integers(-(2**63), 2**63 - 1) | st.integers(-5, 5) | st.integers()
FLOATS = st.floats(allow_nan=False, allow_infinity=False) | st.sampled_from([1.0, -0.0, 1e16, 1e-7])
COLUMNS = st.sampled_from(
    [TEXTS, INTEGERS, FLOATS, st.booleans(), st.none()]
    + [kind | st.none() for kind in (TEXTS, INTEGERS, FLOATS, st.booleans())]
    + [INTEGERS | FLOATS, TEXTS | INTEGERS, st.lists(INTEGERS, max_size=2)]
)
HEAD = 8
KEYS = st.lists(st.text('abc_ ä"\\,:', max_size=4), min_size=1, max_size=4, unique=True)


@st.composite
def files_of_one_program(draw):
    """Lines of one layout, as different writers write them."""
    columns = {key: draw(COLUMNS) for key in draw(KEYS)}
    rows = draw(st.lists(st.fixed_dictionaries(columns), min_size=1, max_size=8))
    rows = rows[:1] * draw(st.sampled_from([0, HEAD])) + rows  # more than are looked at beforehand
    write = draw(
        st.sampled_from(
            [
                json.dumps,
                lambda row: json.dumps(row, ensure_ascii=False),
                lambda row: json.dumps(row, ensure_ascii=False, separators=(",", ":")),
            ]
        )
    )
    lines = "\n".join(map(write, rows)).encode("utf-8", "surrogatepass")
    return lines + draw(st.sampled_from([b"\n", b""]))


@st.composite
def damaged(draw):
    """The same, with a few bytes that do not belong there."""
    data = bytearray(draw(files_of_one_program()))
    for _ in range(draw(st.integers(1, 3))):
        at = max(len(data) - draw(st.integers(0, 60)), 0)
        piece = draw(
            st.sampled_from(
                [*b'{}[]:,"\\ \n0-1.e\x01\xff', b"null", b'"":', b",,", b"\\u0022", b"[1", b"2]"]
            )
        )
        new = bytes([piece]) if isinstance(piece, int) else piece
        data[at : at + draw(st.integers(0, 2))] = new
    return bytes(data)


def read_table(data):
    found = json_tables.read_table(data)
    return found and found.table


def by_rows(data):
    """Return the table that the reader of rows makes; None if it finds a bad row, or several tables."""
    chunk = parse(LineBlock(data, 0), columns=None)
    tables = list(tables_of(chunk.parsed))
    if chunk.bad or len(tables) != 1 or tables[0].segment.shape.absent:
        return None
    return tables[0].table


def hold(data):
    table = read_table(data)
    if table is not None:
        careful = by_rows(data)
        assert careful is not None
        assert table.schema.equals(careful.schema, check_metadata=True)
        assert exact.rows(table) == exact.rows(careful)
    return table


@given(data=files_of_one_program())
@settings(max_examples=300)
@example(data=b'{"a":null}\n{"a":"\\u0001"}\n')
@example(data=b'{"a":1.5}\n{"a":123456789012345678901234}\n')
def test_a_table_read_by_columns_is_the_one_that_is_read_by_rows(data):
    """In each value and type, so that no output depends on which of the two read a block."""
    hold(data)


@given(data=damaged())
@settings(max_examples=500)
def test_what_is_not_laid_out_alike_is_read_by_rows_or_means_the_same(data):
    """A block is known to the last byte, or not at all."""
    hold(data)


@pytest.mark.parametrize(
    ("good", "wrong"),
    [
        (b'{"a":1}', b"null"),
        (b'{"a":1}', b'{"a":[1}\n{"a":2]}\n{"a":3,4}'),
        (b'{"a":"x"}', b'{"a":"\xff"}'),
        (b'{"a":"x"}', b'{"a":"\x01"}'),
        (b'{"a":"x"}', b'{"a":"\x01"}\n{"a":null}'),
        (b'{"a":"x"}', b'{"a":"\t"}'),
        (b'{"a":"x"}', b'{"a":"\\ud800"}'),
        (b'{"a":1}', b'\n{"a":2}'),
        (b'{"a":1}', b'{"a":2}{"a":3}'),
        (b'{"a":1}', b'{"a":1,"a":2}'),
        (b'{"a":1}', b'{"b":1}'),
        (b'{"a":1}', b'{"a":01}'),
        (b'{"a":1}', b'{"a":+1}'),
        (b'{"a":1}', b'{"a":0x1F}'),
        (b'{"a":1}', b'{"a":-0}'),
        (b'{"a":1}', b'{"a":9223372036854775808}'),
        (b'{"a":1.5}', b'{"a":.5}'),
        (b'{"a":1.5}', b'{"a":1e400}'),
        (b'{"a":1.5}', b'{"a":NaN}'),
        (b'{"a":1.5}', b'{"a":123456789012345678901234}'),
        (b'{"a":true}', b'{"a":1}'),
        (b'{"a":1}', b'{"a":2}\r'),
        (b'{"a":1,"b":"x"}', b'{"b":"x","a":1}'),
        (b'{"a":1,"b":"x"}', b'{"a":1}'),
        (b'{"a":"x"}', b'{"a":"x"'),
    ],
)
def test_a_line_that_is_wrong_is_found_behind_many_that_are_not(good, wrong):
    """The first lines are looked at one by one; those behind them are known from their bytes alone."""
    hold(b"\n".join([*[good] * 20, wrong, good, b""]))


@pytest.mark.parametrize(
    "line",
    [
        '{"id":7,"text":"a b","x":1.5,"ok":true,"no":null}',
        '{"id": 7, "text": "a b", "x": 1e-05, "ok": true, "no": null}',
        '{"text":"line\\nline \\"quoted\\" \\\\ \\u00e4\\/"}',
        '{"ä":"東京"}',
        '{"n":-9223372036854775808}',
    ],
)
def test_ordinary_lines_are_read_by_columns(line):
    """If they were all left to the reader of rows, everything would be right, and slow."""
    assert hold(f"{line}\n".encode() * 3) is not None


def test_null_among_strings_is_read_by_columns():
    """Most columns of strings have some."""
    table = hold(b'{"a":"x","b":null}\n{"a":null,"b":"null"}\n{"a":"\\n","b":""}\n')

    assert table.to_pydict() == {"a": ["x", None, "\n"], "b": [None, "null", ""]}


ARRAYS = st.sampled_from(
    [
        (pa.string(), TEXTS),
        (pa.large_string(), TEXTS),
        (pa.dictionary(pa.int8(), pa.string()), TEXTS),
        (pa.int64(), st.integers(-(2**63), 2**63 - 1)),
        (pa.uint64(), st.integers(0, 2**64 - 1)),
        (pa.int8(), st.integers(-128, 127)),
        (pa.float64(), st.floats()),
        (pa.float32(), st.floats(width=32)),
        (pa.bool_(), st.booleans()),
        (pa.null(), st.none()),
        (pa.list_(pa.int64()), st.lists(st.integers(0, 9), max_size=2)),
        (pa.date32(), st.dates()),
    ]
)


@st.composite
def tables(draw):
    names = draw(st.lists(st.text(max_size=3), min_size=1, max_size=4))
    rows = draw(st.integers(0, 6))
    columns = []
    for _ in names:
        kind, values = draw(ARRAYS)
        values = draw(st.lists(values | st.none(), min_size=rows + 2, max_size=rows + 2))
        columns.append(pa.array(values, kind).slice(draw(st.integers(0, 2)), rows))
    return pa.table(columns, names=names)


def lines_of(table):
    """The lines that the writer of rows makes; None if it refuses one."""
    try:
        return JsonLines().encode(table_to_rows(table))
    except ValueError:
        return None


@given(table=tables())
@settings(max_examples=400)
def test_a_table_is_written_as_its_rows_are(table):
    """Byte by byte: floats, escapes, nulls, slices, and names that need escapes themselves."""
    written = write_table(table)

    assert written is None or written == lines_of(table)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_number_that_json_has_no_word_for_is_left_to_the_writer_of_rows(value):
    """That one says which row it is, and of which column."""
    assert write_table(pa.table({"a": [1.0, value]})) is None


def test_text_that_is_no_utf_8_is_left_to_the_writer_of_rows():
    """Arrow lets a capability make such strings, and does not look."""
    wrong = pa.array([b"\xff"]).view(pa.string())

    assert write_table(pa.table({"a": wrong})) is None


@pytest.mark.parametrize("sign", [chr(n) for n in range(0x80)])
def test_each_sign_is_escaped_as_in_rows(sign):
    """Control characters have forms of their own, and there are 32."""
    table = pa.table({"a": [f"x{sign}y", "plain"]})

    assert write_table(table) == write_block(table.to_pylist())


def chunks(data, **options):
    piece = Slice("x.jsonl", Slicing.FILE, 0, len(data), len(data), "")
    options = {"compression": None, "columns": None, "partition": (), **options}
    reader = JsonLines()
    return [
        list(read(io.BytesIO(data), piece, **options))
        for read in (reader.read_by_columns, reader.read)
    ]


@pytest.mark.parametrize("columns", [None, ("b", "a"), ("b", "day"), ("z",)])
@pytest.mark.parametrize("partition", [(), (("day", "1"),), (("a", "0"),), (("day", None),)])
def test_chunks_by_columns_are_those_by_rows(columns, partition):
    """With columns chosen and added, cut, read again and named by their place."""
    data = b"".join(orjson.dumps({"a": n, "b": f"{n}\n"}) + b"\n" for n in range(5))
    by_columns, rows = chunks(data, columns=columns, partition=partition)

    for one, other in zip(by_columns, rows, strict=True):
        n = len(other)
        assert (len(one), one.bad, one.types, one.nbytes) == (n, other.bad, None, other.nbytes)
        assert list(one.segments()) == list(other.segments())
        for start, stop in [(0, n), (1, n), (2, 3)] if n > 2 else []:
            assert one.table(start, stop).equals(other.table(start, stop))
        assert one.rows(0, n) == one.reread(0, n) == other.reread(0, n)
        assert one.positions() == other.positions()
        assert [one.locate(i) for i in range(n)] == [other.locate(i) for i in range(n)]


def test_a_block_with_a_bad_row_is_read_by_rows():
    """Its dead letter has the same place as ever."""
    data = b'{"a":1}\n{"a":NaN}\n{"a":3}\n'
    by_columns, rows = chunks(data)

    assert [bad for chunk in by_columns for bad in chunk.bad] == [
        b for chunk in rows for b in chunk.bad
    ]
    assert [s.shape for c in by_columns for s in c.segments()] == [
        Shape(pa.schema([("a", pa.int64())]), is_inferred=True)
    ]


def remembered(data):
    read = json_tables.read_table(data)
    if read is not None:
        read.remember()
    return read


CHANGES = {
    "nothing": lambda table: table,
    "a column more": lambda table: table.append_column("n", pa.array(range(len(table)))),
    "text more": lambda table: table.append_column("t", pa.array(["ä\n"] * len(table))),
    "a column less": lambda table: table.select(table.column_names[1:]),
    "another order": lambda table: table.select(table.column_names[::-1]),
    "another name": lambda table: table.rename_columns([f"x{n}" for n in table.column_names]),
    "a column before": lambda table: table.add_column(0, "n", pa.array([1] * len(table))),
    "no first row": lambda table: table.slice(1),
    "each second row": lambda table: table.take(pa.array(range(0, len(table), 2), pa.int64())),
    "rows turned round": lambda table: table.take(pa.array(range(len(table))[::-1], pa.int64())),
    "the rows twice": lambda table: pa.concat_tables([table, table]),
    "another's column": lambda table: table.set_column(
        0, table.column_names[0], pa.array(["?"] * len(table))
    ),
    "another's last column": lambda table: table.set_column(
        table.num_columns - 1,
        table.column_names[-1],
        pa.array([None] * len(table), table.schema.types[-1]),
    ),
    "a column shifted": lambda table: table.slice(1).set_column(
        0, table.column_names[0], table.column(0).slice(0, len(table.slice(1)))
    ),
}


@pytest.mark.parametrize("change", CHANGES)
@given(data=files_of_one_program(), start=st.integers(0, 3), stop=st.integers(0, 8))
@settings(max_examples=60)
@example(data=b'{"a":1,"b":2}\n{"a":3,"b":4}\n{"a":5,"b":6}\n', start=0, stop=8)
@example(data=b'{"a":1,"b":2}\n{"a":3,"b":4}\n{"a":5,"b":6}\n', start=1, stop=8)
def test_lines_are_copied_only_for_the_columns_that_were_read_from_them(change, data, start, stop):
    """Whatever a capability does with its table: what it returns is what is written."""
    read = remembered(data)
    if read is None:
        return
    table = CHANGES[change](read.table.slice(start, stop))

    written = write_table(table) if table.num_columns else None

    assert written is None or written == lines_of(table)


@pytest.mark.parametrize(
    ("line", "copied"),
    [
        (b'{"a":1,"b":"x","c":1.5,"d":true,"e":null}\n', True),
        (b'{"a": 1, "b": "x"}\n', False),  # it would be written without blanks
        (b'{"a":1.50}\n', False),
        (b'{"a":"\\u0041"}\n', False),
        (b'{"a":"x"}\n{"a":null}\n', False),
    ],
)
def test_lines_are_copied_if_they_would_be_written_so(line, copied):
    """An output depends on the values alone, and not on how they were read."""
    read = remembered(line * 2)
    (batch,) = read.table.append_column("n", pa.array(range(len(read.table)))).to_batches()

    assert (line_table_of(batch) is not None) == copied
    assert write_table(pa.table(batch)) == lines_of(pa.table(batch))


@pytest.mark.parametrize("value", [b"1", b'"x"', b"1.5", b"true", b"null"])
@pytest.mark.parametrize("first", [0, 1])
def test_memory_that_was_read_cannot_be_changed(value, first):
    """A change in place would be overlooked, and the lines be written as they were: it is refused."""
    read = remembered(b'{"a":%b}\n' % value * 3)
    column = read.table.slice(first).append_column("n", pa.nulls(3 - first)).column("a").chunk(0)
    for memory in filter(None, column.buffers()):
        with pytest.raises(ValueError, match="read-only"):
            np.frombuffer(memory, np.uint8)[:] += 1

    column.validate(full=True)
    assert column.to_pylist() == [json.loads(value)] * (3 - first)


def test_lines_are_forgotten_with_their_rows():
    """Another table may lie in the same memory later."""
    read = remembered(b'{"a":1}\n')
    (batch,) = read.table.to_batches()
    assert line_table_of(batch) is not None

    del read

    assert line_table_of(batch) is None
