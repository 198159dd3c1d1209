"""`sink.schema`: what may be written, what it means to Arrow, and what is said of the rest."""

from __future__ import annotations

import datetime as dt
import io
import json
import re
import uuid
import zoneinfo
from decimal import Decimal

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from batchrunner.errors import InvalidSpecError
from batchrunner.formats.arrow_text import read_type
from batchrunner.formats.columns import rows_to_table
from batchrunner.formats.conform import conform
from batchrunner.formats.declared import (
    arrow_type,
    as_written,
    check_nulls,
    declared_schema,
)
from batchrunner.formats.parquet_types import no_rows
from batchrunner.formats.schema_error import SchemaError
from batchrunner.formats.schemas import plain_schema
from batchrunner.spec import BatchSpec, SinkSpec
from batchrunner.spec.fingerprint import decisive_fields, differences, fingerprint

UNITS = st.sampled_from(["ms", "us", "ns"])
ZONES = st.sampled_from([None, "UTC", "Europe/Berlin", "+01:00", "Etc/GMT-3"])
NAMES = st.text("abcXYZ_09", min_size=1, max_size=6)
ODD_NAMES = st.text(st.characters(codec="utf-8"), max_size=6)
SCALARS = st.one_of(
    st.sampled_from(
        [
            *(pa.null(), pa.bool_(), pa.int8(), pa.int16(), pa.int32(), pa.int64()),
            *(pa.uint8(), pa.uint16(), pa.uint32(), pa.uint64()),
            *(pa.float16(), pa.float32(), pa.float64(), pa.date32(), pa.time32("ms")),
            *(pa.string(), pa.large_string(), pa.string_view()),
            *(pa.binary(), pa.large_binary(), pa.binary_view(), pa.uuid(), pa.json_(), pa.bool8()),
        ]
    ),
    st.integers(1, 40).map(pa.binary),
    st.sampled_from(["us", "ns"]).map(pa.time64),
    UNITS.map(pa.duration),
    st.builds(pa.timestamp, UNITS, tz=ZONES),
    st.builds(lambda p, s: pa.decimal32(p, min(p, s)), st.integers(1, 9), st.integers(0, 9)),
    st.builds(lambda p, s: pa.decimal64(p, min(p, s)), st.integers(1, 18), st.integers(0, 18)),
    st.builds(lambda p, s: pa.decimal128(p, min(p, s)), st.integers(1, 38), st.integers(0, 38)),
    st.builds(lambda p, s: pa.decimal256(p, min(p, s)), st.integers(1, 76), st.integers(0, 76)),
    st.builds(
        pa.dictionary,
        st.sampled_from([pa.int32(), pa.int64()]),
        st.sampled_from([pa.string(), pa.binary()]),
        ordered=st.booleans(),
    ),
)


def nested(inner, names):
    def fields(name):
        return st.builds(
            lambda of, *, may: pa.field(name, of, nullable=may or pa.types.is_null(of)),
            inner,
            may=st.booleans(),
        )

    def struct(of):
        return st.tuples(*map(fields, of)).map(pa.struct)

    element = fields("item")
    key = inner.filter(lambda kind: not pa.types.is_null(kind))
    return st.one_of(
        element.map(pa.list_),
        element.map(pa.large_list),
        element.map(pa.list_view),
        element.map(pa.large_list_view),
        st.builds(pa.list_, element, st.integers(1, 5)),
        st.lists(names, min_size=1, max_size=3, unique=True).flatmap(struct),
        st.builds(pa.map_, key, inner, keys_sorted=st.booleans()),
    )


def types(names=NAMES):
    return st.recursive(SCALARS, lambda inner: nested(inner, names), max_leaves=6)


@given(types())
def test_what_arrow_prints_is_read_as_the_same_type(kind):
    """Copied from a notebook, a schema means what it meant there."""
    assert arrow_type(read_type(str(kind)).type) == kind


@given(st.lists(types(ODD_NAMES), min_size=1, max_size=3), st.data())
def test_a_schema_in_python_comes_back_as_it_was(kinds, data):
    """Whatever its fields are called, and where null may be: Arrow's own text leaves some of it out."""
    names = data.draw(st.lists(ODD_NAMES, min_size=len(kinds), max_size=len(kinds), unique=True))
    fields = [pa.field(name, kind) for name, kind in zip(names, kinds, strict=True)]
    schema = pa.schema(fields)

    columns = SinkSpec(uri="/out", schema=schema).schema_

    assert declared_schema(columns).equals(schema)
    assert SinkSpec(uri="/out", schema=columns).schema_ == columns
    assert SinkSpec(uri="/out", schema=dict(zip(names, kinds, strict=True))).schema_ == columns
    assert json.loads(json.dumps(columns)) == columns


@given(types())
def test_parquet_takes_every_type_that_can_be_declared(kind):
    """Otherwise every shard would fail, hours after `validate` has said yes."""
    assume("keys_sorted" not in str(kind))  # of which Parquet says nothing
    kept = io.BytesIO()

    pq.write_table(no_rows(pa.schema([("x", kind)])), kept)

    assert pq.read_schema(kept).field("x").type == kind


NOT_IN_PARQUET = {
    "month_day_nano_interval": pa.month_day_nano_interval(),
    "run_end_encoded<run_ends: int32, values: int64>": pa.run_end_encoded(pa.int32(), pa.int64()),
    "dense_union<a: int8=0>": pa.dense_union([pa.field("a", pa.int8())]),
    "sparse_union<a: int8=0>": pa.sparse_union([pa.field("a", pa.int8())]),
    "struct<>": pa.struct([]),
    "list<item: struct<>>": pa.list_(pa.struct([])),
    "map<string, struct<>>": pa.map_(pa.string(), pa.struct([])),
    "decimal64(5, -2)": pa.decimal64(5, -2),
    "decimal128(5, 7)": pa.decimal128(5, 7),
    "fixed_size_binary[0]": pa.binary(0),
    "dictionary<values=list<item: int8>, indices=int8, ordered=0>": pa.dictionary(
        pa.int8(), pa.list_(pa.int8())
    ),
    "dictionary<values=string_view, indices=int8, ordered=0>": pa.dictionary(
        pa.int8(), pa.string_view()
    ),
}


@pytest.mark.parametrize("text", NOT_IN_PARQUET)
def test_what_parquet_has_no_type_for_is_refused_at_once(text):
    """By the spec, as text and as an object, and not by the writer of the first part."""
    kind = NOT_IN_PARQUET[text]
    assert str(kind) == text
    for written in (text, kind, {"inner": kind}, [text]):
        with pytest.raises(InvalidSpecError, match=r"(?i)parquet|decimal"):
            SinkSpec(uri="/out", schema={"x": written})
    with pytest.raises(InvalidSpecError, match=r'(?i)column "x": .*(parquet|decimal)'):
        SinkSpec(uri="/out", schema=pa.schema([("x", kind)]))


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("timestamp[s]", pa.timestamp("ms")),
        ("timestamp[s, tz=UTC]", pa.timestamp("ms", tz="UTC")),
        ("list<time32[s]>", pa.list_(pa.time32("ms"))),
        ("date64", pa.date32()),
        ("dictionary<values=timestamp[us], indices=int8>", pa.timestamp("us")),
        (
            "dictionary<values=large_string, indices=int32>",
            pa.dictionary(pa.int32(), pa.string()),
        ),
    ],
)
def test_what_parquet_keeps_in_another_type_is_declared_as_that(text, kept):
    """What it makes of them anyway: the schema that is agreed on is the one of the parts."""
    table = no_rows(declared_schema({"x": text}))
    file = io.BytesIO()
    pq.write_table(table, file)

    assert table.schema.types == [kept]
    assert pq.read_schema(file).types == [kept]


SAME = {
    "double": ["float64", " double ", "f8", pa.float64()],
    "string": ["str", "utf8", pa.string()],
    "bool": ["boolean", pa.bool_()],
    "date32[day]": ["date32", "date32 [ day ]"],
    "extension<arrow.uuid>": ["uuid", pa.uuid()],
    "decimal128(10, 2)": ["decimal128(10,2)", "decimal128( 10 ,2 )"],
    "decimal128(10, 0)": ["decimal128(10)"],
    "list<int64>": ["list<item: int64>", "list< element:i8 >", ["int64"], [pa.int64()]],
    "list<int64 not null>": ["list<item: int64 not  null>", ["int64 not null"]],
    "fixed_size_list<float>[3]": ["fixed_size_list<item: float32>[ 3 ]"],
    "map<string, int64>": ["map<str,i8>", "map<string ('k'), int64 ('v')>"],
    "struct<a: int64, b: list<string>>": [
        "struct<a:int64,b:list<item:string>>",
        'struct<"a": int64, b: list<utf8>>',
        {"a": "i8", "b": ["string"]},
        pa.struct({"a": pa.int64(), "b": pa.list_(pa.string())}),
    ],
    "dictionary<values=string, indices=int32, ordered=0>": ["dictionary<values=str,indices=i4>"],
    "timestamp[us, tz=UTC]": ["timestamp[us,tz=UTC]", "timestamp[ us , tz = UTC ]"],
}


@pytest.mark.parametrize("text", SAME)
def test_a_type_has_one_text_however_it_was_written(text):
    """So the fingerprint depends on no space and on no alias, and Python and YAML are one run."""

    def fields(kind):
        sink = {"uri": "/out", "schema": {"x": kind}}
        return decisive_fields(BatchSpec(source="/in", sink=sink), code=None)

    for written in (text, *SAME[text]):
        assert fields(written)["sink.schema"] == json.dumps([["x", text]], separators=(",", ":"))
        assert fingerprint(fields(written)) == fingerprint(fields(text))


def test_a_run_begun_with_another_name_of_the_type_is_the_same_run():
    """Its fields were stored as written, before a type had one text; a type that differs, differs."""
    began = {"sink.schema": '[["a","float64"],["b","list<int64>"]]'}

    def changes(**columns):
        sink = {"uri": "/out", "schema": columns}
        now = decisive_fields(BatchSpec(source="/in", sink=sink), code=None)
        return differences(began, {"sink.schema": now["sink.schema"]})

    assert changes(a="double", b=["int64"]) == []
    assert len(changes(a="float", b=["int64"])) == 1
    assert differences({"sink.schema": '[["a","of tomorrow"]]'}, began) != []


def validation_of(columns):
    text = f"capability: a:b\nsource: in\nsink:\n  uri: out\n  schema: {json.dumps(columns)}\n"
    with pytest.raises(InvalidSpecError) as caught:
        BatchSpec.from_text(text, origin="x.yaml", environ={})
    return str(caught.value)


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ("in64", "sink.schema.x: no type of Arrow's; did you mean int64?"),
        ("integer", "did you mean int64?"),
        ("strng", "did you mean string?"),
        ("datetime", "did you mean timestamp[us]?"),
        ("number", "did you mean double?"),
        ("INT64", "did you mean int64?"),
        ("decimal", "did you mean decimal128(18, 2)?"),
        ("zzzz", "sink.schema.x: must be a type of Arrow's, such as int64"),
        ("", "must be a type of Arrow's"),
        ("int64 string", "the type ends at character 5, and more follows"),
        ("list<int64", "the list is not complete; write it as in list<string>"),
        ("list<>", "must be a type of Arrow's"),
        ("list", "write it as in list<string>"),
        ("fixed_size_list<float>", "write it as in fixed_size_list<float>[768]"),
        ("timestamp", "must be timestamp[s] or timestamp[ms] or"),
        ("time32[ns]", "must be time32[s] or time32[ms]"),
        ("duration[us, tz=UTC]", "must be duration[s] or"),
        ("decimal128(39, 2)", "decimal128(39, 2): the precision must be from 1 to 38"),
        ("struct<a: int64, b: struct<c: floot>>", 'in "b.c": no type of Arrow\'s; did you mean'),
        ("struct<a: int64, a: int64>", 'two fields are called "a"'),
        ("struct<a int64, b: int8>", "a field of a struct is `name: type`"),
        ("fixed_size_list<int8>[0]", "the size of a fixed_size_list is at least 1"),
        ("map<null, int64>", "the keys of a map cannot be null"),
        ("null not null", "null is the only value of the type null"),
        ("dictionary<values=string, indices=float>", "the indices of a dictionary must be"),
        ("extension<arrow.opaque>", "these can be declared: extension<arrow.bool8>"),
        ("list<" * 60 + "int8" + ">" * 60, "nested deeper than 50 levels"),
        (1, "sink.schema.x: must be a type such as int64, a mapping"),
        (None, "must be a type such as int64, a mapping"),
        ([], "or a list of one type"),
        (["int8", "int8"], "or a list of one type"),
        ({"a": {"b": "in64"}}, "sink.schema.x.a.b: no type of Arrow's; did you mean int64?"),
        ({"a": ["in64"]}, "sink.schema.x.a.0: no type of Arrow's; did you mean int64?"),
        ({}, "Parquet has no type for a struct without fields"),
    ],
)
def test_a_type_that_is_none_is_named_with_its_place_and_the_nearest(written, message):
    """By `validate`, and not by a worker as an internal error."""
    assert message in validation_of({"x": written})


def test_every_type_that_is_wrong_is_reported_at_its_path():
    """Also inside structs, each with line and column."""
    text = "capability: a:b\nsource: in\nsink:\n  uri: out\n  schema:\n    a: {b: in64, c: [dat]}\n    d: x\n"
    with pytest.raises(InvalidSpecError) as caught:
        BatchSpec.from_text(text, origin="x.yaml", environ={})

    places = [line.partition(": ")[0] for line in str(caught.value).split("\n")[::3]]
    assert places == ["x.yaml:6:12", "x.yaml:6:22", "x.yaml:7:8", "3 errors in x.yaml"]


def test_a_schema_has_columns_of_different_names():
    """Parquet keeps neither rows without columns nor two columns of one name."""
    for schema, message in [
        ({}, "must have a column"),
        (pa.schema([]), "must have a column"),
        (pa.schema([("a", pa.int8()), ("a", pa.int8())]), 'two fields are called "a"'),
        (pa.struct({"a": pa.json_(pa.large_string())}), "JSON in a large_string"),
        (pa.int64(), "must be a pyarrow.Schema"),
        ({1: "int8"}, "must have strings as names"),
        ("int8", "must be a mapping"),
    ]:
        with pytest.raises(InvalidSpecError, match=message):
            SinkSpec(uri="/out", schema=schema)


def test_a_column_named_like_a_secret_makes_no_secret_of_its_type():
    """`token: string` would have hidden the word "string" in every message."""
    text = (
        "capability: a:b\nsource: in\nsink: {uri: out, format: parquet, schema: {token: string}}\n"
    )
    from batchrunner.spec import scrubbed

    spec = BatchSpec.from_text(text, origin="x.yaml", environ={})

    assert scrubbed("column 'token': int64 here, but string") == (
        "column 'token': int64 here, but string"
    )
    assert spec.shown()["sink"]["schema"] == {"token": "string"}


NO_NULLS = {
    "a": "int64 not null",
    "m": "struct<s: string not null>",
    "l": "list<int8 not null>",
    "d": "map<string, int8 not null>",
}
FULL = {"a": 1, "m": {"s": "x"}, "l": [1], "d": [("k", 1)]}


@pytest.mark.parametrize(
    ("change", "path"),
    [
        ({"a": None}, "a"),
        ({"m": {"s": None}}, r"m\.s"),
        ({"l": [1, None]}, r"l\[\]"),
        ({"d": [("k", None)]}, r"d\.value"),
    ],
)
def test_a_null_where_none_may_be_is_named(change, path):
    """Parquet's writer would refuse the part, and with it every row of the shard."""
    schema = declared_schema(NO_NULLS)

    def table(*rows):
        return pa.Table.from_pylist([FULL, *rows], schema=plain_schema(schema))

    check_nulls(table(FULL), schema)
    check_nulls(table({**FULL, "m": None, "l": None, "d": None}), schema)
    with pytest.raises(SchemaError, match=rf"column '{path}': null here, but .*not null"):
        check_nulls(table({**FULL, **change}), schema)


def test_a_struct_that_is_null_needs_none_of_its_fields():
    """Parquet's writer counts them all the same: it is granted those nulls, and no others."""
    inner = "struct<s: string not null, l: list<int8 not null> not null> not null"
    schema = declared_schema({"a": "int8 not null", "m": f"struct<n: {inner}>", "k": inner})
    full = {"s": "x", "l": [1]}
    rows = [{"a": 1, "m": None, "k": full}, {"a": 2, "m": {"n": full}, "k": full}]
    granted = as_written(schema)
    table = conform(pa.Table.from_pylist(rows, schema=plain_schema(schema)), granted)
    file = io.BytesIO()

    check_nulls(table, schema)
    pq.write_table(table, file)

    assert pq.read_table(file).to_pylist() == rows
    assert [granted.field(name).nullable for name in "amk"] == [False, True, False]
    assert [field.nullable for field in granted.field("k").type] == [False, False]
    assert [field.nullable for field in granted.field("m").type.field("n").type] == [True, True]


VALUES = {
    "int": 1, "uint": 2, "halffloat": 0.5, "float": 0.25, "double": 0.1, "bool": True, "null": None,
    "string": "a", "large_string": "b", "string_view": "c", "binary": b"d", "large_binary": b"e",
    "binary_view": b"f", "date": dt.date(2026, 1, 2), "time": dt.time(1, 2, 3), "duration": dt.timedelta(1),
    "decimal": Decimal(0), "extension": uuid.UUID(int=1),
}  # fmt: skip


def a_value(kind, null=lambda: False):
    """Return a value of *kind*, as a capability would; None for what *null* says so of."""
    if null():
        return None
    if pa.types.is_struct(kind):
        return {field.name: a_value(field.type, null) for field in kind}
    if pa.types.is_map(kind):
        return {"k": a_value(kind.item_type, null)}
    if hasattr(kind, "value_field"):
        return [a_value(kind.value_type, null) for _ in range(getattr(kind, "list_size", 2))]
    return a_scalar(kind.value_type if pa.types.is_dictionary(kind) else kind)


def has_a_null_too_many(value, field):
    """Return whether *value* is null somewhere where *field* says it is not."""
    if value is None:
        return not field.nullable
    if pa.types.is_struct(field.type):
        return any(has_a_null_too_many(value[inner.name], inner) for inner in field.type)
    if pa.types.is_map(field.type):
        return any(has_a_null_too_many(inner, field.type.item_field) for inner in value.values())
    if hasattr(field.type, "value_field"):
        return any(has_a_null_too_many(inner, field.type.value_field) for inner in value)
    return False


def a_scalar(kind):
    if pa.types.is_timestamp(kind):
        return dt.datetime(2026, 1, 2, tzinfo=kind.tz and zoneinfo.ZoneInfo("UTC"))
    if pa.types.is_fixed_size_binary(kind):
        return b"x" * kind.byte_width
    return VALUES[re.match("[a-z_]+?(?=[0-9<(]|$)|[a-z]+", str(kind))[0]]


def can_be_filled(kind):
    """Return whether Python has values for *kind*: no JSON, no zones but UTC, no keys but text."""
    text = str(kind)
    keys = re.findall(r"map<([a-z0-9_]+)", text)
    return not re.search(r"json|bool8|\+01:00|Berlin|Etc", text) and set(keys) <= {"string"}


@given(types())
def test_values_of_python_fill_every_type(kind):
    """A type that no row can have would set all of them aside."""
    assume(can_be_filled(kind))
    schema = declared_schema({"x": str(kind)})
    table = rows_to_table([{"x": a_value(kind)}, {"x": None}, {}], hints=[schema], lenient=True)

    made = conform(table, as_written(schema))

    made.validate(full=True)
    check_nulls(made, schema)
    assert made.schema == as_written(schema)
    assert made.to_pylist(maps_as_pydicts="strict") == [{"x": a_value(kind)}, *[{"x": None}] * 2]


@given(types(), st.booleans(), st.data())
def test_a_null_costs_its_row_just_where_the_schema_has_none(kind, nullable, data):
    """And what is written comes back, however deep its nulls are."""
    assume(can_be_filled(kind) and str(kind) != "null")
    field = pa.field("x", kind, nullable=nullable)
    schema = declared_schema(SinkSpec(uri="/out", schema=pa.schema([field])).schema_)
    rows = [{"x": a_value(kind, lambda: data.draw(st.integers(0, 4)) == 0)} for _ in range(3)]
    table = conform(rows_to_table(rows, hints=[schema], lenient=True), as_written(schema))

    if any(has_a_null_too_many(row["x"], field) for row in rows):
        with pytest.raises(SchemaError, match="null here, but"):
            check_nulls(table, schema)
        return
    check_nulls(table, schema)
    file = io.BytesIO()
    pq.write_table(table, file)
    assert pq.read_table(file).to_pylist(maps_as_pydicts="strict") == rows
