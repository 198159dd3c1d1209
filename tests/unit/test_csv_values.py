"""The types of CSV: what a declared type makes of a text, and what a part has for a value."""

import csv
import datetime as dt
import io
from decimal import Decimal

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import exact
from batchrunner.errors import ShardFailedError
from batchrunner.formats import csv_lengths, csv_part, csv_records
from batchrunner.formats.csv_format import Csv, Tsv
from batchrunner.formats.csv_values import typed
from batchrunner.formats.csv_values_second_reader import column_of
from batchrunner.formats.schema_error import SchemaError
from batchrunner.shard import Slice, Slicing

KINDS = [
    pa.bool_(),
    pa.int8(),
    pa.int64(),
    pa.uint8(),
    pa.uint64(),
    pa.float32(),
    pa.float64(),
    pa.decimal128(6, 2),
    pa.decimal256(50, 10),
    pa.string(),
    pa.large_string(),
    pa.date32(),
    pa.time32("s"),
    pa.time32("ms"),
    pa.time64("us"),
    pa.time64("ns"),
    pa.timestamp("s"),
    pa.timestamp("ms"),
    pa.timestamp("us"),
    pa.timestamp("ns"),
    pa.timestamp("us", "UTC"),
    pa.timestamp("ms", "Asia/Kathmandu"),
    pa.timestamp("ns", "+05:30"),
]
WORDS = [
    *("", " ", "0", "1", "-1", "+1", "007", "1.0", ".5", "5.", "1_0", " 1", "1 ", "\u0661"),
    *("127", "128", "-128", "-129", "255", "256", "9223372036854775807", "9223372036854775808"),
    *("18446744073709551615", "18446744073709551616", "0x1F", "1e2", "1e400", "1e39", "1e-400"),
    *(
        "3.4028236e38",
        "0.1",
        "16777217",
        "1.00000005960464477",
        "-0",
        "-0.0",
        "0" * 30 + "7",
        "-" + "0" * 30 + "7",
        "1.50",
        "1.555",
    ),
    *("inf", "-Infinity", "NaN", "nan(1)", "infinit", "true", "TRUE", "True", "t", "yes", "null"),
    *("2020-01-01", "2020-02-30", "0001-01-01", "0000-01-01", "9999-12-31", "10000-01-01"),
    *("2020-1-1", "2020-01-01 01:02", "2020-01-01T01:02:03", "2020-01-01 01:02:03.5"),
    *("2020-01-01 01:02:03.123456789", "2020-01-01 01:02:03.1234567891", "2020-01-01 24:00:00"),
    *("2020-01-01 01:02:03Z", "2020-01-01T01:02:03+05:30", "2020-01-01 01:02:03-0530"),
    *("2020-01-01 01:02:03+05", "2020-01-01 01:02:03+25:00", "2020-01-01Z", "1600-01-01"),
    *("01:02", "01:02:03", "01:02:03.5", "01:02:03.123456789", "24:00:00", "23:59:60", "1:02:03"),
]
TEXTS = st.one_of(
    st.sampled_from(WORDS),
    st.text(st.sampled_from("0123456789-+.:TZeE xNn"), max_size=24),
    st.integers(-(2**65), 2**65).map(str),
    st.floats().map(repr),
    st.decimals(allow_nan=False, allow_infinity=False, places=2).map(str),
    st.datetimes().map(str),
    st.times().map(str),
)


def part_of(*tables, made=Csv(), compression="none", read_back=bytes):  # noqa: B008 - it is stateless
    """The bytes of a part of *tables*, written one after the other.

    To write it again, what *read_back* makes of the bytes is read.
    """
    files = []

    def opened():
        files.append(io.BytesIO())
        files[-1].close = lambda: None
        return files[-1]

    part = made.writer(
        opened(),
        compression=compression,
        settle=lambda schema: schema,
        restart=lambda: (io.BytesIO(read_back(files[-1].getvalue())), opened()),
    )
    for table in tables:
        part.append(table)
        part._write()
    part.close()
    return files[-1].getvalue()


def read(data, types, *, compression=None):
    """The table in *data* as the format reads it, by the declared *types*."""
    made = Csv(schema={field.name: str(field.type) for field in types})
    slicing = Slicing.FILE if compression else Slicing.BYTES
    piece = Slice("a.csv", slicing, 0, len(data), len(data), "1")
    chunks = made.read(io.BytesIO(data), piece, compression=compression, columns=None, partition=())
    tables = [chunk.table(0, len(chunk)) for chunk in chunks]
    return pa.concat_tables(tables) if tables else types.empty_table()


def read_again(data, types, *, compression="none"):
    reader = Csv().part_reader(types=lambda: types, compression=compression)
    tables = reader.tables(io.BytesIO(data), None, wanted=None, columns=None)
    return pa.concat_tables([table for _, table in tables])


@pytest.mark.parametrize("kind", KINDS, ids=str)
@settings(max_examples=30)
@given(texts=st.lists(TEXTS, max_size=6))
def test_two_readers_make_the_same_of_a_text(kind, texts):
    """One by Arrow's casts, one by Python's types: the same values, and the same texts that are none."""
    table = pa.table({"v": pa.array(texts, pa.string())})
    made, faults = typed(table, pa.schema([("v", kind)]))
    bad = set()
    for number, text in enumerate(texts):
        try:
            column_of([text], kind)
        except ValueError:
            bad.add(number)
    again = column_of([None if n in bad else text for n, text in enumerate(texts)], kind)

    assert set(faults) == bad
    assert exact.bits(made["v"].combine_chunks()) == exact.bits(again)


def test_a_type_that_refuses_null_has_bad_rows():
    """As in the sink's schema."""
    data = b"a,b\n,x\n1,y\n"
    piece = Slice("a.csv", Slicing.BYTES, 0, len(data), len(data), "1")
    made = Csv(schema={"a": "int64 not null"})
    (chunk,) = made.read(io.BytesIO(data), piece, compression=None, columns=None, partition=())

    assert chunk.rows(0, 1) == [{"a": 1, "b": "y"}]
    assert [bad.reason for bad in chunk.bad] == [
        "column 'a': null here, but int64 not null in source.schema"
    ]


VALUES = {
    "text": pa.array(["", "a", None, 'q"', "a,b", "x\ny", "x\r", "\x00", "null", " "]),
    "large": pa.array(["", None, "b"], pa.large_string()),
    "view": pa.array(["", None, "b"], pa.string_view()),
    "words": pa.array(["b", None, "", "b"]).dictionary_encode(),
    "int": pa.array([0, -1, None, 2**63 - 1, -(2**63)]),
    "uint": pa.array([0, None, 2**64 - 1], pa.uint64()),
    "double": pa.array([0.1, -0.0, 1e300, 5e-324, float("inf"), float("-inf"), float("nan"), None]),
    "single": pa.array([0.1, 1e-45, 3.4028235e38, -0.0, None], pa.float32()),
    "bool": pa.array([True, None, False]),
    "decimal": pa.array([Decimal("1.50"), None, Decimal("-0.01")], pa.decimal128(38, 2)),
    "wide": pa.array([Decimal("1.50"), None], pa.decimal256(60, 20)),
    "date": pa.array([dt.date(1, 1, 1), None, dt.date(9999, 12, 31)]),
    "ms": pa.array([0, -1, None], pa.timestamp("ms")),
    "us": pa.array([-62135596800000000, 253402300799999999, None], pa.timestamp("us")),
    "ns": pa.array([-9223372036 * 10**9, 2**63 - 1, None], pa.timestamp("ns")),
    "utc": pa.array([0, 253402300799999999, None], pa.timestamp("us", "UTC")),
    "edges": pa.array(
        [-62135596800000 + 86_400_000, 253402214400000 - 1], pa.timestamp("ms", "+14:00")
    ),
    "zone": pa.array([0, 10**15 + 5, None], pa.timestamp("us", "America/St_Johns")),
    "time": pa.array([0, 86_399_999, None], pa.time32("ms")),
    "fine": pa.array([0, 86_399_999_999_999, None], pa.time64("ns")),
    "null": pa.nulls(2),
}


@pytest.mark.parametrize("name", VALUES)
@pytest.mark.parametrize("alone", [True, False])
def test_a_value_comes_back_from_a_part(name, alone):
    """By declaration of its type: every bit of it, null as null, and the empty text as itself."""
    table = pa.table({"v": VALUES[name]})
    if not alone:
        table = table.append_column("w", pa.array(["x"] * len(table)))
    csv_part.check_columns(table)
    data = part_of(table)
    plain = [
        f if not pa.types.is_dictionary(f.type) else f.with_type(pa.string()) for f in table.schema
    ]
    plain = [f.with_type(pa.string()) if pa.types.is_string_view(f.type) else f for f in plain]
    declared = pa.schema([f for f in plain if not pa.types.is_null(f.type)])

    assert exact.rows(read(data, declared)) == exact.rows(table)
    assert exact.rows(read_again(data, table.schema)) == exact.rows(table)


@given(
    rows=st.lists(
        st.tuples(
            st.text(st.characters(codec="utf-8"), max_size=5) | st.none(),
            st.integers(-(2**63), 2**63 - 1) | st.none(),
            st.floats() | st.none(),
        )
    ),
    made=st.sampled_from([Csv(), Tsv()]),
)
def test_python_reads_what_is_written(rows, made):
    """The standard library's reader finds the same texts: null and the empty text are one for it."""
    schema = pa.schema([("t", pa.string()), ("i", pa.int64()), ("f", pa.float64())])
    table = pa.table(
        [list(column) for column in zip(*rows, strict=True)] or [[], [], []], schema=schema
    )
    data = part_of(table, made=made).decode()
    header, *found = csv.reader(
        io.StringIO(data, newline=""), delimiter=made.delimiter, strict=True
    )

    assert header == ["t", "i", "f"]
    assert [(t, i, f and float(f)) for t, i, f in found] == [
        (
            t or "",
            "" if i is None else str(i),
            "" if f is None else pytest.approx(f, rel=0, nan_ok=True),
        )
        for t, i, f in rows
    ]


@pytest.mark.parametrize("compression", ["none", "gz", "zst"])
def test_a_column_that_comes_late_is_null_before(compression):
    """Also in rows with line ends in them, and in a part of one column, where null is an empty line."""
    first = pa.table({"a": ["x\ny", None, ""]})
    second = pa.table({"b": [1, None, 3], "a": ["p", "q", None]})
    data = part_of(first, second, compression=compression)
    types = pa.schema([("a", pa.string()), ("b", pa.int64())])
    outer = None if compression == "none" else compression

    assert read(data, types, compression=outer).to_pylist() == [
        {"a": "x\ny", "b": None},
        {"a": None, "b": None},
        {"a": "", "b": None},
        {"a": "p", "b": 1},
        {"a": "q", "b": None},
        {"a": None, "b": 3},
    ]
    assert read_again(data, types, compression=compression) == read(data, types, compression=outer)


TEXT_KINDS = [
    pa.string(),
    pa.large_string(),
    pa.string_view(),
    pa.dictionary(pa.int8(), pa.string()),
]
FEW_TEXTS = st.lists(st.text('a"ä\n,', max_size=80) | st.none(), min_size=1, max_size=4)


@given(first=FEW_TEXTS, second=FEW_TEXTS, kind=st.sampled_from(TEXT_KINDS), at=st.integers(0, 3))
def test_a_record_is_written_if_it_can_be_read_again(first, second, kind, at):
    """Whatever holds the texts, and with their quotes; of the numbers beside them only a bound is known."""
    texts = [pa.array(some[:1] * (4 - len(some)) + some, pa.string()) for some in (first, second)]
    texts = [t.dictionary_encode() if pa.types.is_dictionary(kind) else t.cast(kind) for t in texts]
    table = pa.table({"a": texts[0], "n": [-(2**63)] * 4, "b": texts[1]}).slice(at)
    most = max(len(part_of(table.slice(n, 1))) for n in range(len(table))) - len('"a","n","b"\n')
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(csv_lengths, "MOST_BYTES", 200)
        refused = outcome_of(csv_lengths.check_lengths, table)

    assert most <= 200 or refused
    assert not refused or most > 200 - 80


def outcome_of(check, table):
    """The reason for which *table* is refused; None if it is not."""
    try:
        return check(table)
    except SchemaError as error:
        return str(error)


def test_a_record_of_the_longest_that_is_read_is_written():
    """Less a margin for columns that come later; a quote counts twice."""
    most = csv_lengths.MOST_BYTES - 83
    csv_lengths.check_lengths(pa.table({"a": ["x" * most], "b": [1]}))
    csv_lengths.check_lengths(pa.table({"a": pa.nulls(1, pa.string())}))
    long_word = pa.array(["x" * (most + 1), "y"]).dictionary_encode()
    csv_lengths.check_lengths(pa.table({"a": long_word, "b": [1, 1]}).slice(1))
    csv_lengths.check_lengths(pa.table({"a": long_word, "b": [1, 1]}).slice(2))
    for text in ("x" * (most + 1), '"' * (most // 2 + 1)):
        with pytest.raises(SchemaError, match=r"about 16,711,68\d bytes as CSV"):
            csv_lengths.check_lengths(pa.table({"a": [text], "b": [1]}))


@pytest.mark.parametrize("length", [25, 35, 36, 37, 38, 60])
@pytest.mark.parametrize("at", [0, 1, 2])
def test_a_row_that_cannot_be_written_again_fails_its_part(length, at, monkeypatch):
    """What was counted is not lost: the record is too long to be read, or will be by the new column."""
    for module in (csv_records, csv_lengths):
        monkeypatch.setattr(module, "MAX_LINE_BYTES", 40)
    monkeypatch.setattr(csv_records, "BLOCK_BYTES", 10)
    rows = ["x", "y", "z"]
    rows[at] = "x" * length
    late = [pa.table({"a": ["p"], name: ["q"]}) for name in ("b" * 7, "c")]
    if length + len('"",,\n') <= 40:
        assert len(part_of(pa.table({"a": rows}), *late).splitlines()) == 6
    else:
        with pytest.raises(SchemaError, match="bytes as CSV"):
            part_of(pa.table({"a": rows}), *late)


def test_a_part_that_is_read_back_with_fewer_rows_fails():
    """Its rows are counted when they are written, and are all there when they are written again."""
    tables = pa.table({"a": ["x", "y\nz"]}), pa.table({"b": [1]})
    with pytest.raises(ShardFailedError, match="1 rows were read back of 2 that were written"):
        part_of(*tables, read_back=lambda data: data[: data.index(b'"y')])


@pytest.mark.parametrize(
    "column",
    [
        pa.array([b"a"]),
        pa.array([[1]]),
        pa.array([{"a": 1}]),
        pa.array([1], pa.duration("s")),
        pa.array([b"a"]).dictionary_encode(),
        pa.array([3_000_000], pa.date32()),
        pa.array([2**62], pa.timestamp("us")),
    ],
    ids=lambda column: str(column.type),
)
def test_what_has_no_text_is_refused(column):
    """The row fails with the name of its column; it is not written as something else."""
    with pytest.raises(SchemaError, match="column 'v': CSV has no text for"):
        csv_part.check_columns(pa.table({"v": column}))


def test_a_part_without_rows_has_its_header():
    """So that each part has the same columns."""
    out = io.BytesIO()
    out.close = lambda: None
    schema = pa.schema([("a", pa.string())])
    part = Csv().writer(out, compression="none", settle=lambda _: schema, restart=None)
    part.close()

    assert out.getvalue() == b'"a"\n'
