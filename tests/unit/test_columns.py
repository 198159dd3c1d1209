"""Rows to columns and back: every value comes out as it went in, or an error names its column."""

import datetime as dt
import math
import pickle
from decimal import Decimal

import pyarrow as pa
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from batchrunner.formats.columns import (
    SchemaError,
    conform,
    rows_to_table,
    table_to_rows,
    unify,
)

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
    **{pa.duration(unit): ticks(unit) for unit in ("s", "ms", "us")},
    pa.decimal128(5, 2): st.decimals(-99, 99, places=2),
    pa.decimal128(6, 1): st.decimals(-99, 99, places=1),
}
ARRAYS = st.sampled_from(list(TYPES)).flatmap(
    lambda kind: st.lists(st.none() | TYPES[kind], max_size=3).map(lambda vs: pa.array(vs, kind))
)


def same(one, other):
    """Tell whether two lists of values are the same, NaN included."""
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
    """What JSON allows in one place, a column may not: then somebody has to know."""
    table, refusal = attempt(rows_to_table, [{"x": value} for value in values])

    assert "column 'x'" in refusal or repr(table.to_pylist()) == repr(
        [{"x": as_stored(value, table.schema.field("x").type)} for value in values]
    )


def as_stored(value, kind):
    """Write a number as a float where the column is one: that alone may change."""
    if isinstance(value, list):
        return [as_stored(inner, kind.value_type) for inner in value]
    return float(value) if value is not None and pa.types.is_floating(kind) else value


def test_columns_keep_the_order_in_which_they_came():
    """The first row says it; what later ones add comes behind."""
    assert rows_to_table([{"b": 1, "a": 2}, {"c": 3, "a": 4}]).column_names == ["b", "a", "c"]


def test_an_integer_that_a_float_cannot_hold_is_refused():
    """2**53 + 1 would become its neighbour."""
    assert rows_to_table([{"x": 2**53}, {"x": 0.5}]).column("x").to_pylist() == [2.0**53, 0.5]
    with pytest.raises(SchemaError, match="column 'x'"):
        rows_to_table([{"x": 2**53 + 1}, {"x": 0.5}])


@pytest.mark.parametrize(
    "value", [2**63, 2**64, "\ud800", object(), {1: 2}, 1j, Decimal("NaN"), [1, "a"], [1, {"a": 1}]]
)
def test_what_arrow_cannot_hold_is_an_error_of_its_column(value):
    """The worker turns it into a failed shard; nothing else may come out of here."""
    with pytest.raises(SchemaError, match="column 'x'"):
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
    """Batches differ in what Arrow infers of them; most of it means nothing."""
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

    assert f"column 'x': {have} here, but {want} in the schema" in str(error.value)


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


@given(arrays=st.lists(ARRAYS, max_size=3))
@example(arrays=[pa.array([2**53 + 1]), pa.array([0.5])])
@example(arrays=[pa.array([2**63], pa.uint64()), pa.array([-1])])
@settings(max_examples=300)
def test_unify_alters_no_value(arrays):
    """A batch over two chunks is what both are, or an error."""
    table, refusal = attempt(unify, [pa.table({"x": array}) for array in arrays])

    if table is None:
        assert "x" in refusal
    else:
        found = table.column("x").to_pylist() if arrays else []
        assert same(found, [value for array in arrays for value in array.to_pylist()])


def test_unify_fills_what_a_table_lacks():
    """Rows of one source need not have the same keys."""
    table = unify([pa.table({"a": [1]}), pa.table({"b": ["x"]}), pa.table({"a": [0.5]})])

    assert table.to_pylist() == [{"a": 1, "b": None}, {"a": None, "b": "x"}, {"a": 0.5, "b": None}]


def test_types_that_cannot_be_unified_are_named():
    """Column and both types, as everywhere."""
    with pytest.raises(SchemaError, match=r"x has incompatible types: int64 vs string"):
        unify([column([1]), column(["a"])])


def test_the_error_travels_between_processes():
    """Ray moves it by pickle."""
    assert str(pickle.loads(pickle.dumps(SchemaError("column 'x'")))) == "column 'x'"
