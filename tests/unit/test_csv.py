"""CSV: rows as the standard library reads them, wherever a file is cut, and no row lost in silence."""

import csv
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchrunner.errors import InvalidSpecError, ShardFailedError
from batchrunner.formats import csv_fields, csv_header, csv_records
from batchrunner.formats.contract import Sharding
from batchrunner.formats.csv_format import Csv, Tsv
from batchrunner.formats.registry import format_named
from batchrunner.shard import Slice, Slicing
from batchrunner.spec import SourceSpec

PIECES = [
    b"a",
    b"b",
    b",",
    b",",
    b'"',
    b'"',
    b"\n",
    b"\n",
    b"\r\n",
    b"\r",
    "ä".encode(),
    "\ufeff".encode(),
    b"\xff",
    b" ",
]
ANYTHING = st.lists(st.sampled_from(PIECES), max_size=60).map(b"".join)
TEXTS = st.text(st.sampled_from('ab ,;"\n\t|ä€𝄞\ufeff'), max_size=6)


def whole(data):
    return Slice("a.csv", Slicing.BYTES, 0, len(data), len(data), "1")


def cut(data, *, made=Csv(), unit="files", count=1, limit=None):  # noqa: B008 - it is stateless
    how = {"compression": None, "sharding": Sharding(unit, count), "limit": limit}
    cuts = made.cut(len(data), **how, opened=lambda: io.BytesIO(data))
    return [Slice("a.csv", c.slicing, c.start, c.stop, len(data), "1", c.rows) for c in cuts]


def chunks(data, *, made=Csv(), piece=None, columns=None, partition=()):  # noqa: B008 - as above
    how = {"compression": None, "columns": columns, "partition": partition}
    return list(made.read(io.BytesIO(data), piece or whole(data), **how))


def placed(data, **how):
    """Position and row of each record; None for a bad one."""
    found = []
    for chunk in chunks(data, **how):
        found += zip(chunk.positions(), chunk.rows(0, len(chunk)), strict=True)
        found += ((bad.position.at, None) for bad in chunk.bad)
    return sorted(found, key=lambda one: one[0])


def rows(data, **how):
    return [row for _, row in placed(data, **how)]


def again(data, *, made=Csv()):  # noqa: B008 - as above
    """As `placed`, by the second reader."""
    reader, found = made.second_reader(), []
    for some in reader.records(io.BytesIO(data), whole(data), wanted=None, compression=None):
        for at, record in some:
            try:
                found.append((at, reader.row_of(record)))
            except ValueError:
                found.append((at, None))
    return found


def outcome(reading):
    """What *reading* returns, or that the file is refused."""
    try:
        return reading()
    except (ShardFailedError, ValueError):
        return "refused"


@pytest.fixture
def tiny(monkeypatch):
    """Blocks of a few bytes, so that everything stands at their edges."""
    monkeypatch.setattr(csv_records, "BLOCK_BYTES", 5)
    monkeypatch.setattr(csv_header, "HEAD_BYTES", 3)


@given(
    table=st.integers(1, 4).flatmap(
        lambda width: st.lists(st.lists(TEXTS, min_size=width, max_size=width), max_size=8)
    ),
    delimiter=st.sampled_from(",;\t|"),
    end=st.sampled_from(["\n", "\r\n"]),
    quoting=st.sampled_from([csv.QUOTE_ALL, csv.QUOTE_MINIMAL, csv.QUOTE_NONNUMERIC]),
)
def test_what_python_writes_is_read(table, delimiter, end, quoting):
    """Each text comes back; an empty one without quotes is null, which has no other text."""
    names = [f"c{n}" for n in range(len(table[0]) if table else 1)]
    out = io.StringIO(newline="")
    csv.writer(out, delimiter=delimiter, lineterminator=end, quoting=quoting).writerows(
        [names, *table]
    )
    made = Csv(delimiter=delimiter)
    found = rows(out.getvalue().encode(), made=made)

    assert [[text or "" for text in row.values()] for row in found] == table
    assert quoting == csv.QUOTE_MINIMAL or not any(None in row.values() for row in found)
    assert again(out.getvalue().encode(), made=made) == placed(out.getvalue().encode(), made=made)


@pytest.mark.usefixtures("tiny")
@given(data=ANYTHING, block=st.integers(1, 9))
def test_two_readers_find_the_same_rows_in_any_bytes(data, block):
    """Rows, bad rows, their positions, and files that are refused; whatever the size of the blocks."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(csv_records, "BLOCK_BYTES", block)
        data = b"a,b\n" + data
        assert outcome(lambda: placed(data)) == outcome(lambda: again(data))


@given(data=ANYTHING, header=st.sampled_from([b"a\n", b'"a"\r\n', b"\n\r\na,b,c\n"]))
def test_two_readers_find_the_same_rows_below_any_header(data, header):
    """An empty line is a row of one column, and none of several."""
    assert outcome(lambda: placed(header + data)) == outcome(lambda: again(header + data))


@given(data=ANYTHING, quote=st.sampled_from([None, "'", "b"]))
def test_two_readers_agree_on_other_quotes(data, quote):
    """And on none, where a quote is text."""
    made = Csv(quote=quote, names=["x", "y"])
    assert outcome(lambda: placed(data, made=made)) == outcome(lambda: again(data, made=made))


@given(data=ANYTHING)
def test_a_strict_reader_reads_the_same(data):
    """Where Python's strict reader takes the whole file, so do we, to the same fields."""
    data = (b"a,b\n" + data).replace(b"\xff", b"")
    try:
        table = list(csv.reader(io.StringIO(data.decode(), newline=""), strict=True))[1:]
    except csv.Error:
        return
    table = [fields if len(fields) == 2 else None for fields in table if fields]
    if b"\r" in data.replace(b"\r\n", b""):  # Python takes it for a line end, we for a bad row
        return
    found = rows(data)
    assert [row and [text or "" for text in row.values()] for row in found] == table


@pytest.mark.usefixtures("tiny")
@given(data=ANYTHING, unit=st.sampled_from(["rows", "bytes"]), count=st.integers(1, 20))
def test_the_rows_of_the_slices_are_those_of_the_file(data, unit, count):
    """A quoted line end is cut by nobody; each slice counts its rows, and so does other code."""
    data = b"a,b\n" + data
    expected = outcome(lambda: placed(data))
    if expected == "refused":
        return
    found, counted = [], 0
    for piece in cut(data, unit=unit, count=count):
        some = placed(data, piece=piece)
        assert piece.rows in (None, len(some))
        counted += (
            Csv().second_reader().count_rows(piece, lambda: io.BytesIO(data), compression=None)
        )
        found += some
    assert (found, counted) == (expected, len(expected))


@given(data=ANYTHING, limit=st.integers(1, 9), unit=st.sampled_from(["files", "rows", "bytes"]))
def test_a_limit_takes_the_first_rows(data, limit, unit):
    """With their number, from which that of the next file follows."""
    data = b"a,b\n" + data
    expected = outcome(lambda: rows(data))
    if expected == "refused":
        return
    pieces = cut(data, unit=unit, count=3, limit=limit)
    assert [row for piece in pieces for row in rows(data, piece=piece)] == expected[:limit]
    assert sum(piece.rows for piece in pieces) == len(expected[:limit])


@given(data=ANYTHING, picked=st.sets(st.integers(0, 20), min_size=1))
def test_a_row_is_found_again_at_its_position(data, picked):
    """`retry --rows` begins at the first position: a record begins there, so no quote is open."""
    data = b"a,b\n" + data
    expected = outcome(lambda: placed(data))
    if expected == "refused":
        return
    wanted = [expected[n] for n in sorted(picked) if n < len(expected)]
    if wanted:
        span = Csv().span(whole(data), [at for at, _ in wanted], compression=None)
        found = dict(placed(data, piece=span))
        assert [(at, found[at]) for at, _ in wanted] == wanted


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"1\n", "1 fields, where the file has 2 columns"),
        (b"1,2,3\n", "3 fields, where the file has 2 columns"),
        (b'"1"x,2\n', "'x' follows a closing quote"),
        (rb'"5\" disk",2' + b"\n", "a quote inside of a field stands twice, and no backslash"),
        (b"1,\xff\n", "no UTF-8"),
        ("1,caf\u00e9\n".encode("latin1"), "iconv -f LATIN1"),
        (b"1\r,2\n", "a carriage return stands alone"),
    ],
)
def test_a_bad_record_costs_itself_with_its_reason(data, why):
    """The records around it are rows, and what it holds stands in its dead letter."""
    (chunk,) = chunks(b"a,b\n0,0\n" + data + b'9,"9"\n')
    (bad,) = chunk.bad

    assert chunk.rows(0, 2) == [{"a": "0", "b": "0"}, {"a": "9", "b": "9"}]
    assert (bad.position.at, bad.position.raw) == (8, data[:-1])
    assert why in bad.reason


@pytest.mark.parametrize("block", [4, 5, 1 << 20])
@pytest.mark.parametrize("field", ["\ufeff", "\ufeff\ufeffa", '"\ufeff"', '\ufeff"a'])
def test_a_mark_is_text_wherever_a_block_or_a_slice_begins(field, block, monkeypatch):
    """Only at the start of a file it is none; Arrow leaves one out at the start of what it gets."""
    monkeypatch.setattr(csv_records, "BLOCK_BYTES", block)
    data = f"\ufeffa,b\n{f'{field},1{chr(10)}' * 4}".encode()
    expected = [{"a": field.removeprefix('"').removesuffix('"'), "b": "1"}] * 4

    assert rows(data) == expected
    assert [row for _, row in again(data)] == expected
    assert [row for piece in cut(data, unit="rows") for row in rows(data, piece=piece)] == expected


def test_a_mark_is_no_part_of_a_number():
    """A declared type refuses it in each row alike, for either reader."""
    data, made = "a,b\n\ufeff1,2\n\ufeff3,4\n5,6\n".encode(), Csv(schema={"a": "int64"})

    assert [row for _, row in placed(data, made=made)] == [None, None, {"a": 5, "b": "6"}]
    assert again(data, made=made) == placed(data, made=made)


@pytest.mark.parametrize("neighbour", [b"1,2\n", b"too few\n", b'"a"x,2\n'])
def test_a_column_that_is_not_read_is_looked_at_all_the_same(neighbour):
    """Whether a record is a row depends on its bytes, and not on the records beside it."""
    data = b"a,b\n0,\xff\n" + neighbour

    assert placed(data, columns=("a",))[0] == (4, None)
    assert again(data)[0] == (4, None)


def test_a_quote_inside_of_a_field_is_text():
    """As all readers have it: an inch is no quoted field."""
    assert rows(b'a,b\n5" disk,"6"" disk"\nx"y"z,\n') == [
        {"a": '5" disk', "b": '6" disk'},
        {"a": 'x"y"z', "b": None},
    ]


def test_a_file_that_ends_in_quotes_fails_its_last_slice_only():
    """How many rows the open quote swallowed is unknown; the slices before it have theirs."""
    data = b"a,b\n" + b"1,2\n" * 10 + b'3,"4\n5,6\n'
    *good, last = cut(data, unit="rows", count=5)

    assert [piece.rows for piece in good] == [5, 5]
    with pytest.raises(ShardFailedError, match=r"a\.csv: the record at byte 44 has a quote"):
        rows(data, piece=last)


def test_null_and_the_empty_text_differ():
    """Without quotes a field is null, with them it is a text; other words for null are named."""
    data = b'a,b\n,""\nNA,"NA"\n'

    assert rows(data) == [{"a": None, "b": ""}, {"a": "NA", "b": "NA"}]
    assert rows(data, made=Csv(nulls=["NA"])) == [{"a": "", "b": ""}, {"a": None, "b": "NA"}]
    assert rows(data, made=Csv(nulls=[])) == [{"a": "", "b": ""}, {"a": "NA", "b": "NA"}]


def test_a_header_may_be_given():
    """Of a file that has none, the first line is a row; a mark before it is no text."""
    data = b"\xef\xbb\xbf1;2\n"

    assert rows(data, made=Csv(names=["a", "b"], delimiter=";")) == [{"a": "1", "b": "2"}]
    assert rows(b"\xef\xbb\xbfa\tb\n1\t2\n", made=Tsv()) == [{"a": "1", "b": "2"}]


@pytest.mark.parametrize(
    "data", [b"", b"\n", b"\r\n\n", b"\xef\xbb\xbf", b"a,b", b"a,b\n", b"a,b\n\n"]
)
def test_a_file_without_rows_has_none(data):
    """Neither a header nor empty lines are rows."""
    assert rows(data) == again(data) == []
    assert [r for piece in cut(data, unit="rows") for r in rows(data, piece=piece)] == []


@pytest.mark.parametrize(
    ("header", "why"),
    [
        (b'"a"x\n', "follows a closing quote"),
        (b"a\rb\rc\n", "a carriage return stands alone"),
        (b"\xff\xfea\x00", "no UTF-8"),
        ("a,b\n1,2\n".encode("utf-16"), "UTF-16: convert the file"),
    ],
)
def test_a_header_that_names_no_columns_is_refused(header, why):
    """With the way out, as there may be none in the file."""
    with pytest.raises(ShardFailedError, match=rf"a\.csv: .*{why}.*names: \[\.\.\.\]"):
        rows(header + b"1,2\n")
    assert len(cut(header + b"1,2\n", unit="rows")) == 1


def test_columns_with_one_name_are_left_out_or_refused():
    """Real files end in `,,`: empty names of empty columns."""
    data = b"a,b,,\n1,2,,\n"

    assert rows(data, columns=("b", "a")) == [{"a": "1", "b": "2"}]
    with pytest.raises(ShardFailedError, match=r"two columns have the name ''.*source\.columns"):
        rows(data)


@pytest.mark.usefixtures("tiny")
@pytest.mark.parametrize("record", [b"x" * 99, b'"' + b"x\n" * 50 + b'"', b"x," * 50, b'"",' * 40])
@pytest.mark.parametrize("end", [b"\n", b"\n1,2\n", b""])
def test_a_record_that_is_too_long_is_a_bad_row(record, end, monkeypatch):
    """It is not held in memory, and the rows around it are read."""
    for module in (csv_records, csv_fields, csv_header):
        monkeypatch.setattr(module, "MAX_LINE_BYTES", 40)
    data = b"a,b\n0,0\n" + record + end
    found = placed(data)

    assert found[:2] == [(4, {"a": "0", "b": "0"}), (8, None)]
    assert [row for _, row in found[2:]] == ([{"a": "1", "b": "2"}] if b"1" in end else [])
    assert [row for piece in cut(data, unit="rows") for row in rows(data, piece=piece)] == [
        row for _, row in found
    ]
    (bad,) = [bad for chunk in chunks(data) for bad in chunk.bad]
    assert "at most 40 are read" in bad.reason


def test_columns_are_chosen_and_added():
    """Only what is asked for is made; folders add theirs, also to rows without another column."""
    data, day = b"a,b\n1,2\n", (("day", "1"),)

    assert rows(data, columns=("b",)) == [{"b": "2"}]
    assert rows(data, columns=("day",), partition=day) == [{"day": "1"}]
    with pytest.raises(ShardFailedError, match="no column 'c' in the file; it has a, b"):
        rows(data, columns=("c",))
    with pytest.raises(
        ShardFailedError, match=r"no column 'c' in the file; .*source\.schema.*this file lacks it"
    ):
        rows(data, made=Csv(schema={"c": "int64"}))


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"delimiter": "ab"}, "delimiter: must be one ASCII character"),
        ({"delimiter": "é"}, "delimiter: must be one ASCII character"),
        ({"delimiter": '"'}, "quote: must be another character than the delimiter"),
        ({"quote": "ab"}, "quote: must be one ASCII character, or null"),
        ({"names": "ab"}, "names: must be a list of texts"),
        ({"names": ["a", "a"]}, "two columns are called 'a'"),
        ({"nulls": [1]}, "nulls: must be a list of texts"),
        ({"escape": "x"}, "has no option 'escape'; it has delimiter, quote, names, nulls"),
    ],
)
def test_a_spec_with_an_impossible_option_is_refused(options, why):
    """When it is read, not when the first file is."""
    with pytest.raises(InvalidSpecError, match=why):
        SourceSpec(uri="/in", format="csv", format_options=options)


@pytest.mark.parametrize(
    ("source", "why"),
    [
        ({"schema": {"a": "int64"}}, "must have a format"),
        ({"format": "jsonl", "schema": {"a": "int64"}}, "jsonl takes no source.schema"),
        ({"format": "jsonl", "format_options": {"a": 1}}, "jsonl has no option 'a'; it has none"),
        ({"format": "csv", "schema": {"a": "list<int64>"}}, "CSV has no text for list<int64>"),
        ({"format": "csv", "schema": {"a": "binary"}}, "CSV has no text for binary"),
    ],
)
def test_a_spec_with_types_that_do_not_apply_is_refused(source, why):
    """A type that is not applied would be a false promise."""
    with pytest.raises(InvalidSpecError, match=why):
        SourceSpec(uri="/in", **source)


def test_a_format_with_options_is_made_once():
    """Each file of a million has the same one."""
    kind = SourceSpec(uri="/in", format="csv", format_options={"delimiter": ";"}).kind_of("a.csv")

    assert kind.reader is kind.reader
    assert kind.reader is not format_named("csv")
    assert kind.reader.dialect.delimiter == ";"
