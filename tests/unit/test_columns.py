"""Rows to columns and back: every value comes out as it went in, or an error names its column."""

import datetime as dt
import math
import pickle
import re
from collections import defaultdict
from decimal import Decimal

import pyarrow as pa
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from batchrunner.formats.columns import bare_table, joined, rows_to_table, table_to_rows
from batchrunner.formats.conform import conform
from batchrunner.formats.parquet_types import check_writable, storable
from batchrunner.formats.schema_error import SchemaError
from batchrunner.formats.schemas import grown, plain_schema

INT64 = st.integers(-(2**63), 2**63 - 1)
JSON_COLUMNS = {
    "whole": INT64,
    "real": st.floats(allow_nan=False),
    "text": st.text(),
    "flag": st.booleans(),
    "nothing": st.none(),
    "list": st.lists(INT64 | st.none(), max_size=3),
    "lists": st.lists(st.lists(st.text(max_size=2), max_size=2), max_size=2),
    "object": st.fixed_dictionaries({"a": INT64, "b": st.lists(st.text(max_size=2), max_size=2)}),
}
ROWS = st.lists(
    st.fixed_dictionaries({}, optional={k: v | st.none() for k, v in JSON_COLUMNS.items()}),
    max_size=5,
).filter(lambda rows: any(rows) or not rows)

AB = pa.struct([("a", pa.int64()), ("b", pa.int64())])
SCALARS = st.none() | st.booleans() | INT64 | st.floats() | st.text(max_size=3)


def ticks(unit):
    return st.integers(-(10**9), 10**9).map(lambda n: n * {"s": 1, "ms": 500, "us": 1}[unit])


INTEGERS = {
    pa.int8(): st.integers(-128, 127),
    pa.uint8(): st.integers(0, 255),
    pa.int32(): st.integers(-(2**31), 2**31 - 1),
    pa.int64(): INT64,
    pa.uint64(): st.integers(0, 2**64 - 1),
}
TYPES = {
    pa.null(): st.none(),
    pa.bool_(): st.booleans(),
    **INTEGERS,
    pa.float64(): st.floats() | st.integers(-300, 300).map(float),
    pa.string(): st.text(max_size=3),
    pa.large_string(): st.text(max_size=3),
    pa.string_view(): st.text(max_size=3),
    pa.binary(): st.binary(max_size=3),
    pa.large_binary(): st.binary(max_size=3),
    pa.date32(): st.dates(),
    **{pa.timestamp(unit): ticks(unit) for unit in ("s", "ms", "us")},
    **{pa.timestamp(unit, "UTC"): ticks(unit) for unit in ("s", "us")},
    pa.timestamp("ns"): st.integers(-(2**62), 2**62),
    pa.timestamp("ns", "Asia/Tokyo"): st.integers(-(2**62), 2**62),
    pa.float32(): st.floats(width=32),
    **{pa.duration(unit): ticks(unit) for unit in ("s", "ms", "us")},
    pa.decimal128(5, 2): st.decimals(-99, 99, places=2),
    pa.decimal128(6, 1): st.decimals(-99, 99, places=1),
}
ARRAYS = st.sampled_from(list(TYPES)).flatmap(
    lambda kind: st.lists(st.none() | TYPES[kind], max_size=3).map(lambda vs: pa.array(vs, kind))
)


def same(one, other):
    """Return whether two lists of values are the same, NaN included."""
    return len(one) == len(other) and all(
        a == b or (isinstance(a, float) and math.isnan(a) and math.isnan(b))
        for a, b in zip(one, other, strict=True)
    )


def attempt(action, *args):
    """Return what *action* gives and "", or None and what its error says."""
    try:
        return action(*args), ""
    except SchemaError as error:
        return None, str(error)


def column(values, kind=None):
    return pa.table({"x": pa.array(values, kind)})


def schema_of(kind):
    return pa.schema([("x", kind)])


@given(rows=ROWS)
def test_rows_come_back_from_a_table_as_they_went_in(rows):
    """A key that a row lacks is null: a table has no holes."""
    keys = dict.fromkeys(key for row in rows for key in row)

    assert table_to_rows(rows_to_table(rows)) == [{k: row.get(k) for k in keys} for row in rows]


@given(values=st.lists(SCALARS | st.lists(SCALARS, max_size=2), min_size=1, max_size=4))
@settings(max_examples=300)
def test_values_that_do_not_go_together_are_refused_not_bent(values):
    """What JSON allows in one place, a column may not: then the user has to hear of it."""
    table, refusal = attempt(rows_to_table, [{"x": value} for value in values])

    assert "column 'x" in refusal or repr(table.to_pylist()) == repr(
        [{"x": value} for value in values]
    )


@pytest.mark.parametrize(
    ("values", "kinds"),
    [
        ([1, 0.5], "floats and integers"),
        ([True, 1], "booleans and integers"),
        (["a", b"a"], "bytes and strings"),
        ([dt.date(2020, 1, 2), dt.datetime(2020, 1, 2, 15, 30)], "dates and timestamps"),  # noqa: DTZ001
        ([Decimal(1), 1], "decimals and integers"),
        ([[1], 1], "integers and lists"),
        ([{"a": 1}, [1]], "lists and objects"),
    ],
)
def test_a_column_has_values_of_one_kind(values, kinds):
    """Arrow's inference would make one of the other, without a word."""
    with pytest.raises(SchemaError, match=f"column 'x' mixes {kinds}: return values of one type"):
        rows_to_table([{"x": value} for value in values])
    with pytest.raises(SchemaError, match=r"column 'x\[\]\.y' mixes "):
        rows_to_table([{"x": [{"y": value} for value in values]}])


def test_time_zones_are_not_mixed():
    """One column, one zone; and none is not UTC."""
    naive, utc = dt.datetime(2020, 1, 1), dt.datetime(2020, 1, 1, tzinfo=dt.UTC)  # noqa: DTZ001
    with pytest.raises(SchemaError, match=r"column 'x': time zones \['None', 'UTC'\]"):
        rows_to_table([{"x": naive}, {"x": utc}])
    with pytest.raises(SchemaError, match="a time of day with a time zone"):
        rows_to_table([{"x": dt.time(1, tzinfo=dt.UTC)}])


@pytest.mark.parametrize("cut", range(1, 4))
def test_the_type_of_a_decimal_is_that_of_the_first_one(cut):
    """Whatever batches there are: later ones have its scale, or do not fit."""
    values = [Decimal("1.10"), Decimal(2), Decimal("12345.67"), Decimal("-0.01")]
    first = rows_to_table([{"x": value} for value in values[:cut]])
    rest = rows_to_table([{"x": value} for value in values[cut:]], hints=[first.schema])

    assert first.schema == rest.schema == pa.schema([("x", pa.decimal128(38, 2))])
    assert [*first["x"].to_pylist(), *rest["x"].to_pylist()] == values
    with pytest.raises(SchemaError, match="column 'x'"):
        rows_to_table([{"x": Decimal("0.001")}], hints=[first.schema])


def test_columns_keep_the_order_in_which_they_came():
    """The first row says it; what later ones add comes behind."""
    assert rows_to_table([{"b": 1, "a": 2}, {"c": 3, "a": 4}]).column_names == ["b", "a", "c"]


@given(names=st.lists(st.text(max_size=6), unique=True, min_size=1, max_size=5))
def test_a_column_may_have_any_name(names):
    """Rows are made by code with the names in it: quotes, braces and line breaks are names, too."""
    table = pa.table({name: [number, None] for number, name in enumerate(names)})
    first, second = table_to_rows(table)

    assert list(first.items()) == list(zip(names, range(len(names)), strict=True))
    assert list(second.items()) == [(name, None) for name in names]


def test_as_many_keys_are_not_the_same_keys():
    """Rows with the same keys go a quicker way, and each key is still looked at."""
    rows = [{"a": 1, "b": 2}, {"b": 3, "a": 4}, {"a": 5, "c": 6}]

    assert rows_to_table(rows[:2]).to_pylist() == [{"a": 1, "b": 2}, {"a": 4, "b": 3}]
    assert rows_to_table(rows).to_pylist() == [
        {"a": 1, "b": 2, "c": None},
        {"a": 4, "b": 3, "c": None},
        {"a": 5, "b": None, "c": 6},
    ]


def test_rows_are_looked_at_and_not_changed():
    """A `defaultdict` makes up what it is asked for."""
    rows = [defaultdict(int, {"a": 1, "b": 2}), defaultdict(int, {"a": 3, "c": 4})]

    assert rows_to_table(rows)["b"].to_pylist() == [2, None]
    assert rows == [{"a": 1, "b": 2}, {"a": 3, "c": 4}]


def test_integers_are_floats_where_floats_were_declared():
    """And only those that a float holds."""
    hints = [schema_of(pa.float64())]
    rows = [{"x": 2**53}, {"x": 0.5}]

    assert rows_to_table(rows, hints=hints, lenient=True)["x"].to_pylist() == [2.0**53, 0.5]
    with pytest.raises(SchemaError, match="column 'x'"):
        rows_to_table([{"x": 2**53 + 1}, {"x": 0.5}], hints=hints, lenient=True)


@pytest.mark.parametrize(
    "value", [2**63, 2**64, "\ud800", object(), {1: 2}, 1j, Decimal("NaN"), [1, "a"], [1, {"a": 1}]]
)
def test_what_arrow_cannot_hold_is_an_error_of_its_column(value):
    """The worker turns it into a dead letter; nothing else may come out of here."""
    with pytest.raises(SchemaError, match="column 'x"):
        rows_to_table([{"x": value}])


def test_a_key_that_is_no_string_is_named():
    """Python has such dicts, files do not."""
    with pytest.raises(SchemaError, match="the key 7 is no string"):
        rows_to_table([{"a": 1, 7: 2}])


@given(array=ARRAYS, want=st.sampled_from(list(TYPES)))
@settings(max_examples=500)
def test_conform_alters_no_value(array, want):
    """Either all values are what they were, or an error names the column and both types."""
    assume(getattr(array.type, "tz", None) == getattr(want, "tz", None))
    table, refusal = attempt(conform, pa.table({"x": array}), schema_of(want))

    if table is None:
        assert all(word in refusal for word in ("column 'x'", str(array.type), str(want)))
    else:
        assert table.schema.field("x").type == want
        assert same(table.column("x").to_pylist(), array.to_pylist())


@pytest.mark.parametrize(
    ("values", "have", "want"),
    [
        ([1, None, -1], pa.int64(), pa.float64()),
        ([1.0, None], pa.float64(), pa.int64()),
        ([255], pa.int64(), pa.uint8()),
        (["a"], pa.large_string(), pa.string()),
        (["a", "a"], pa.dictionary(pa.int32(), pa.string()), pa.string()),
        ([1], pa.dictionary(pa.int32(), pa.int64()), pa.float64()),
        ([[1, 2], None], pa.list_(pa.int64(), 2), pa.list_(pa.int64())),
        ([[1]], pa.list_(pa.int64()), pa.large_list(pa.int64())),
        ([[1]], pa.list_(pa.int64()), pa.list_(pa.float64())),
        ([[]], pa.list_(pa.null()), pa.list_(pa.string())),
        ([{"a": 1}], pa.struct([("a", pa.int64())]), pa.struct([("a", pa.float64())])),
        ([dt.datetime(2020, 1, 1)], pa.timestamp("us"), pa.timestamp("s")),  # noqa: DTZ001 - naive
        ([Decimal("1.5")], pa.decimal128(5, 2), pa.decimal128(9, 1)),
        ([None], pa.null(), pa.struct([("a", pa.int64())])),
        ([None], pa.null(), pa.map_(pa.string(), pa.int64())),
    ],
)
def test_a_type_that_holds_the_very_values_is_taken(values, have, want):
    """Of what is declared: a number may be written as another where it is the same number."""
    table = conform(column(values, have), schema_of(want))

    assert table.schema.field("x").type == want
    assert table.column("x").to_pylist() == values


@pytest.mark.parametrize(
    ("values", "have", "want"),
    [
        ([1], pa.int64(), pa.string()),
        (["1"], pa.string(), pa.int64()),
        ([True], pa.bool_(), pa.int64()),
        ([1], pa.int64(), pa.bool_()),
        (["a"], pa.string(), pa.binary()),
        ([b"a"], pa.binary(), pa.string()),
        ([1.5], pa.float64(), pa.int64()),
        ([-0.0], pa.float64(), pa.int64()),
        ([0.1], pa.float64(), pa.float32()),
        ([1e300], pa.float64(), pa.float32()),
        ([123456.789], pa.float64(), pa.float16()),
        ([dt.datetime(2020, 1, 1)], pa.timestamp("us"), pa.timestamp("us", "UTC")),  # noqa: DTZ001
        ([{"a": 1, "b": 2}], AB, pa.struct([("a", pa.int64())])),
        ([math.nan], pa.float64(), pa.int64()),
        ([300], pa.int64(), pa.int8()),
        ([2**53 + 1], pa.int64(), pa.float64()),
        ([2**63], pa.uint64(), pa.int64()),
        ([Decimal("1.25")], pa.decimal128(5, 2), pa.decimal128(5, 1)),
        ([[1]], pa.list_(pa.int64()), pa.int64()),
        ([[1]], pa.list_(pa.int64()), pa.struct([("a", pa.int64())])),
        ([[1, 2, 3]], pa.list_(pa.int64()), pa.list_(pa.int64(), 2)),
        ([1], pa.int64(), pa.null()),
    ],
)
def test_a_type_that_does_not_is_refused_by_name(values, have, want):
    """The reader of the error sees what to change: the column, what it is, what it should be."""
    with pytest.raises(SchemaError) as error:
        conform(column(values, have), schema_of(want))

    assert re.match(r"column 'x\S*': \S+.* here, but .* in the schema", str(error.value))
    assert any(str(kind) in str(error.value) for kind in (have, getattr(have, "value_type", have)))


def test_a_column_of_which_nothing_was_known_asks_to_be_declared():
    """All its values in the first part were null."""
    with pytest.raises(SchemaError, match=r"declare its type in sink\.schema"):
        conform(column(["a"]), schema_of(pa.null()))


def test_columns_are_put_in_order_and_missing_ones_are_null():
    """Readers of a data set expect the same columns in the same places."""
    schema = pa.schema([("a", pa.int64()), ("b", pa.string()), ("c", pa.list_(pa.int64()))])

    table = conform(pa.table({"b": ["x"], "a": [1]}), schema)

    assert table.schema.equals(schema)
    assert table.to_pylist() == [{"a": 1, "b": "x", "c": None}]


def test_a_column_too_many_is_named():
    """To drop it would lose what is in it."""
    with pytest.raises(SchemaError, match=r"column 'y' is not in the schema of the sink \(x\)"):
        conform(pa.table({"x": [1], "y": [2]}), schema_of(pa.int64()))


STRUCT = pa.struct([("a", pa.int64()), ("b", pa.list_(pa.struct([("c", pa.string())])))])


@pytest.mark.parametrize(
    ("kind", "own", "whole"),
    [
        (pa.null(), pa.int64(), pa.int64()),
        (pa.int64(), pa.null(), pa.int64()),
        (pa.list_(pa.null()), pa.list_(pa.int64()), pa.list_(pa.int64())),
        (pa.struct([("a", pa.int64())]), STRUCT, STRUCT),
        (
            pa.list_(pa.struct([("b", pa.null())])),
            pa.list_(STRUCT),
            pa.list_(pa.struct([("b", STRUCT.field("b").type), ("a", pa.int64())])),
        ),
        (
            pa.map_(pa.string(), pa.struct([("a", pa.null())])),
            pa.map_(pa.string(), pa.struct([("a", pa.int64()), ("z", pa.bool_())])),
            pa.map_(pa.string(), pa.struct([("a", pa.int64()), ("z", pa.bool_())])),
        ),
        (pa.string(), pa.dictionary(pa.int8(), pa.large_string()), pa.string()),
        (
            pa.dictionary(pa.int8(), pa.string()),
            pa.string_view(),
            pa.dictionary(pa.int8(), pa.string()),
        ),
        (pa.large_list(pa.int8()), pa.list_(pa.int8()), pa.large_list(pa.int8())),
    ],
)
def test_a_schema_grows_by_what_is_new_at_any_depth(kind, own, whole):
    """And what was written before has fewer columns or fields, and is right."""
    assert grown(schema_of(kind), schema_of(own)) == schema_of(whole)
    assert grown(schema_of(whole), schema_of(kind)) == schema_of(whole)
    assert grown(schema_of(kind), pa.schema([("y", own)])).names == ["x", "y"]


@pytest.mark.parametrize(
    ("kind", "own", "path"),
    [
        (pa.int64(), pa.float64(), "x"),
        (pa.int32(), pa.int64(), "x"),
        (pa.float32(), pa.float64(), "x"),
        (pa.string(), pa.binary(), "x"),
        (pa.timestamp("us"), pa.timestamp("us", "UTC"), "x"),
        (pa.timestamp("us"), pa.timestamp("ns"), "x"),
        (pa.date32(), pa.timestamp("us"), "x"),
        (pa.list_(pa.int64()), pa.list_(pa.int64(), 2), "x"),
        (pa.list_(pa.int64()), pa.list_(pa.bool_()), "x[]"),
        (STRUCT, pa.struct([("a", pa.string())]), "x.a"),
        (STRUCT, pa.struct([("b", pa.list_(pa.struct([("c", pa.int64())])))]), "x.b[].c"),
        (pa.map_(pa.string(), pa.int64()), pa.map_(pa.string(), pa.bool_()), "x.value"),
        (pa.decimal128(5, 2), pa.decimal128(6, 2), "x"),
    ],
)
def test_a_schema_changes_no_type_at_any_depth(kind, own, path):
    """Nested types by the rule of those at the top: the error names the place and both types."""
    for one, other in [(kind, own), (own, kind)]:
        with pytest.raises(SchemaError, match=re.escape(f"column {path!r}: ")) as error:
            grown(schema_of(one), schema_of(other))
        assert "here, but" in str(error.value)
        assert "declare its type in sink.schema" in str(error.value)


@pytest.mark.parametrize(
    ("values", "have", "want", "after"),
    [
        ([{"a": 1}, None], pa.struct([("a", pa.int64())]), STRUCT, [{"a": 1, "b": None}, None]),
        (
            [[{"c": "x"}, None], None, []],
            pa.list_(pa.struct([("c", pa.string())])),
            pa.large_list(pa.struct([("d", pa.int8()), ("c", pa.string())])),
            [[{"d": None, "c": "x"}, None], None, []],
        ),
        (
            [[("k", {"a": 1})], None, []],
            pa.map_(pa.string(), pa.struct([("a", pa.int64())])),
            pa.map_(pa.string(), pa.struct([("a", pa.int64()), ("b", pa.null())])),
            [[("k", {"a": 1, "b": None})], None, []],
        ),
        ([[1, 2], None], pa.list_(pa.int8()), pa.list_view(pa.int8()), [[1, 2], None]),
        (["a", None], pa.string(), pa.dictionary(pa.int8(), pa.string()), ["a", None]),
    ],
)
@pytest.mark.parametrize("first", [0, 1])
def test_rows_are_brought_into_a_grown_schema(values, have, want, after, first):
    """Slices, too, whose arrays begin in the middle of others."""
    table = pa.table({"x": pa.array([*values, *values], have)}).slice(first)

    made = conform(table, schema_of(want), lenient=False)

    made.validate(full=True)
    assert made.schema == schema_of(want)
    assert made["x"].to_pylist() == [*after, *after][first:]


def test_rows_without_columns_are_rows():
    """Arrow's own functions for tables lose them."""
    assert table_to_rows(joined([bare_table(2), bare_table(1)])) == [{}, {}, {}]
    assert conform(rows_to_table([{}, {}]), schema_of(pa.int8())).to_pylist() == [{"x": None}] * 2


def test_what_only_annotates_a_schema_is_no_part_of_it():
    """A source says `not null`, or has numbered its fields; the sink's schema is of types alone."""
    strict = pa.field("x", pa.struct([pa.field("a", pa.int8(), nullable=False)]), nullable=False)
    schema = pa.schema([strict.with_metadata({"id": "1"})], metadata={"pandas": "{}"})

    assert plain_schema(schema).equals(
        schema_of(pa.struct([("a", pa.int8())])), check_metadata=True
    )
    with pytest.raises(SchemaError, match="two columns are called 'x'"):
        plain_schema(pa.schema([("x", pa.int8()), ("x", pa.int8())]))


def test_what_parquet_cannot_keep_is_kept_otherwise_or_refused():
    """It has no seconds, and no type for what has no parts."""
    assert storable(schema_of(pa.list_(pa.timestamp("s", "UTC")))) == schema_of(
        pa.list_(pa.timestamp("ms", "UTC"))
    )
    check_writable(schema_of(STRUCT), is_final=True)
    check_writable(schema_of(pa.struct([])), is_final=False)
    for kind in (pa.list_(pa.struct([])), pa.month_day_nano_interval(), pa.decimal128(5, -2)):
        with pytest.raises(SchemaError, match="column 'x': Parquet has no type for"):
            check_writable(schema_of(kind), is_final=True)


@given(array=ARRAYS)
@settings(max_examples=300)
def test_values_that_are_passed_on_are_the_same(array):
    """Value for value and type for type, NaN included."""
    assume(len(array))
    table = pa.table({"x": array})

    back = rows_to_table(table_to_rows(table), hints=[table.schema])

    assert back.schema == table.schema
    assert same(back["x"].to_pylist(), array.to_pylist())


def test_nanoseconds_that_python_has_not_are_refused_by_name():
    """Its time of day ends at microseconds; to cut the rest off would change the value."""
    assert table_to_rows(column([1000], pa.time64("ns"))) == [{"x": dt.time(0, 0, 0, 1)}]
    with pytest.raises(SchemaError, match=r"column 'x': time64\[ns\] values"):
        table_to_rows(column([1001], pa.time64("ns")))


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (0.1, pa.float32()),
        (2**31, pa.int32()),
        (dt.datetime(2020, 1, 1, 0, 0, 0, 1), pa.timestamp("ms")),  # noqa: DTZ001 - naive
    ],
)
def test_a_value_that_its_column_cannot_hold_is_refused(value, kind):
    """The name is the source's, and so is the type; which rows fit must decide nothing."""
    with pytest.raises(SchemaError, match="column 'x'"):
        rows_to_table([{"x": value}], hints=[schema_of(kind)])


def test_the_error_travels_between_processes():
    """Ray moves it by pickle."""
    assert str(pickle.loads(pickle.dumps(SchemaError("column 'x'")))) == "column 'x'"
