"""What a capability may return, however awkward: as it is, into every sink, or refused by name.

Each case is what a batch function returns, and what is to be in a JSON and in a Parquet sink: rows,
or a part of the error that the dead letter has.
"""

from __future__ import annotations

import collections
import dataclasses
import datetime as dt
import enum
import itertools
import json
import math
from decimal import Decimal
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from batchrunner import BatchRunner
from builders import a_spec, parts, read_part, write_jsonl

NAN = math.nan
NEW_YORK = ZoneInfo("America/New_York")
INSTANTS = np.array(["2020-01-01T00:00:00.123456789", "NaT"], "M8[ns]")
INSTANT_ROWS = [{"t": "2020-01-01T00:00:00.123456789"}, {"t": None}]
WORDS = pa.array([0, 1, None], pa.int8())


@dataclasses.dataclass
class Point:
    x: float


class Level(enum.Enum):
    HIGH = 1
    NONE = NAN


class Floats(list): ...


class Text(str):
    __slots__ = ()


def outcome(folder, returned, sink):
    """Run a capability that returns *returned*; return its rows, or the text of its dead letter."""
    write_jsonl(folder / "in/a.jsonl", [{"id": 1}])
    spec = a_spec(
        folder,
        capability={"target": "in:memory", "version": "1"},
        sink={"uri": str(folder / "out"), "format": sink},
        errors={"max_row_errors": 1.0, "retry": {"max_attempts": 1}},
    )
    report = BatchRunner(spec, capability=lambda _: returned()).run()
    if report.failures:
        return "shard failed: " + report.failures[0].reason
    errors = list((folder / "out/_checkpoint/errors").glob("*"))
    if errors:
        return json.loads(errors[0].read_text())["message"]
    return [row for part in parts(folder / "out") for row in read_part(part)]


def instants(folder):
    """Return the one column `t` of the sink, to the nanosecond."""
    (part,) = parts(folder / "out")
    column = pq.read_table(part).column("t")
    assert column.type == pa.timestamp("ns")
    return column.cast(pa.int64()).to_pylist()


NO_COLUMNS = {
    "a string": lambda: {"a": "yes"},
    "a number": lambda: {"a": 3},
    "an object": lambda: {"a": {"x": 1}},
    "bytes": lambda: {"a": b"ab"},
    "a bytearray": lambda: {"a": bytearray(b"ab")},
    "a memoryview": lambda: {"a": memoryview(b"ab")},
    "a set": lambda: {"a": {1, 2}},
    "a generator": lambda: {"a": (n for n in range(2))},
    "an array of no rows": lambda: {"a": np.array(3)},
    "a row a piece": lambda: iter([{"a": "x"}, {"a": "y"}]),
    "unequal columns": lambda: {"a": [1], "b": [1, 2]},
    "numpy's records": lambda: {"a": np.array([(1, 2)], [("x", "i4"), ("y", "i4")])},
    "polars' objects": lambda: pl.DataFrame({"a": pl.Series([object()], dtype=pl.Object)}),
    "two of one name": lambda: pa.table([[1], [2]], names=["a", "a"]),
    "two of one name, pandas": lambda: pd.DataFrame([[1, 2]], columns=["a", "a"]),
    "an index of that name": lambda: pd.DataFrame({"a": [1]}, pd.Index([5], name="a")),
}


@pytest.mark.parametrize("sink", ["jsonl", "parquet"])
@pytest.mark.parametrize("case", NO_COLUMNS)
def test_what_is_no_table_is_refused_and_never_cut_up(tmp_path, case, sink):
    """A string would be cut into letters, an object into its keys, one of two columns would go."""
    found = outcome(tmp_path, NO_COLUMNS[case], sink)

    assert isinstance(found, str)
    assert "'a'" in found


NOT_FINITE = {
    "subclass of dict": lambda: [{"s": collections.defaultdict(float, a=NAN)}],
    "row that is a subclass": lambda: [collections.OrderedDict(s=NAN)],
    "subclass of list": lambda: [{"s": Floats([math.inf])}],
    "dataclass": lambda: [{"s": Point(NAN)}],
    "enum": lambda: [{"s": Level.NONE}],
    "tuple": lambda: [{"s": (1.0, NAN), "n": None}],
    "deep": lambda: [{"s": [{"a": [-math.inf]}], "n": None}],
    "numpy scalar": lambda: [{"s": np.float32("nan")}],
    "numpy array": lambda: [{"s": np.array([1, NAN])}],
    "numpy column": lambda: {"s": np.array([[1, NAN]])},
    "pandas": lambda: pd.DataFrame({"s": [NAN]}),
    "polars": lambda: pl.DataFrame({"s": [NAN]}),
    "arrow": lambda: pa.table({"s": [[NAN]]}),
}


@pytest.mark.parametrize("case", NOT_FINITE)
def test_nan_is_never_null_in_json_wherever_it_hides(tmp_path, case):
    """The JSON library writes null for NaN and infinity in whatever it knows."""
    assert "'s' is no JSON: Out of range" in outcome(tmp_path, NOT_FINITE[case], "jsonl")


NANOSECONDS = {
    "a column": lambda: {"t": INSTANTS},
    "a list": lambda: {"t": list(INSTANTS)},
    "rows": lambda: [{"t": each} for each in INSTANTS],
    "pandas": lambda: pd.DataFrame({"t": INSTANTS}),
    "pandas' own": lambda: [{"t": pd.Timestamp(INSTANTS[0])}, {"t": pd.NaT}],
    "pandas' column": lambda: {"t": pd.Series(INSTANTS)},
    "arrow": lambda: pa.table({"t": INSTANTS}),
    "arrow's column": lambda: {"t": pa.array(INSTANTS)},
    "polars": lambda: pl.DataFrame({"t": INSTANTS}),
}


@pytest.mark.parametrize("case", NANOSECONDS)
def test_nanoseconds_are_one_text_and_one_type(tmp_path, case):
    """datetime64[ns] had three ways into JSON: a number, microseconds, and an error."""
    assert outcome(tmp_path / "j", NANOSECONDS[case], "jsonl") == INSTANT_ROWS
    outcome(tmp_path / "p", NANOSECONDS[case], "parquet")
    assert instants(tmp_path / "p") == [1577836800123456789, None]


def in_zone(zone):
    return dt.datetime(2020, 1, 1, tzinfo=zone)


MIXED = {
    "date and time": lambda: [{"t": dt.date(2020, 1, 2)}, {"t": in_zone(None)}],
    "with a zone and without": lambda: [{"t": in_zone(None)}, {"t": in_zone(dt.UTC)}],
    "two zones": lambda: [{"t": in_zone(NEW_YORK)}, {"t": in_zone(dt.UTC)}],
    "time of day in a zone": lambda: [{"t": dt.time(1, 2, tzinfo=dt.UTC)}],
    "text and bytes": lambda: [{"t": "a"}, {"t": b"a"}],
    "truth and number": lambda: [{"t": True}, {"t": 1}],
    "number and numpy's truth": lambda: [{"t": 1}, {"t": np.bool_(1)}],
    "integer and float": lambda: [{"t": {"t": [1]}}, {"t": {"t": [1.5]}}],
    "integers of two widths": lambda: [
        {"t": np.array([2**64 - 1], "u8")},
        {"t": np.array([-1], "i8")},
    ],
    "float and text": lambda: {"t": np.array(["x", NAN], object)},
    "beyond 64 bits": lambda: [{"t": 2**70}],
    "too many places": lambda: [{"t": Decimal("1E-40")}],
    "more places than before": lambda: [{"t": Decimal(1)}, {"t": Decimal("1.123")}],
    "below zero places": lambda: pa.table({"t": pa.array([Decimal("1E3")], pa.decimal128(5, -3))}),
    "interval": lambda: pa.table({"t": pa.array([(1, 2, 3)], pa.month_day_nano_interval())}),
    "seconds of an offset": lambda: [{"t": in_zone(dt.timezone(dt.timedelta(seconds=7)))}],
    "picoseconds": lambda: [{"t": np.datetime64(1, "ps")}],
    "lone surrogate": lambda: [{"t": "\ud800"}],
    "keys that are no strings": lambda: [{"t": {1: 2}}],
    "complex": lambda: [{"t": 1j}],
}


@pytest.mark.parametrize("case", MIXED)
def test_values_of_several_kinds_are_refused_by_parquet(tmp_path, case):
    """Arrow's own inference bends them: a date loses its time, text becomes bytes, a zone another."""
    found = outcome(tmp_path, MIXED[case], "parquet")

    assert isinstance(found, str)
    assert "column 't" in found


NOT_JSON = ("time of day in a zone", "text and bytes", "picoseconds", "keys that are no strings")


@pytest.mark.parametrize("case", NOT_JSON)
def test_what_json_has_no_word_for_is_refused(tmp_path, case):
    """The standard library makes text of keys; a picosecond would be cut."""
    assert "the value of 't' is no JSON" in outcome(tmp_path, MIXED[case], "jsonl")


EXACT = {
    "numpy and Python": (
        lambda: [
            {"i": np.int64(1), "f": 1.5, "b": np.bool_(1)},
            {"i": 2, "f": np.float64(2), "b": False},
        ],
        [{"i": 1, "f": 1.5, "b": True}, {"i": 2, "f": 2.0, "b": False}],
    ),
    "numpy's own types": (
        lambda: [{"i": np.int8(3), "u": np.uint64(2**63), "f": np.float32(0.1), "s": np.str_("x")}],
        [{"i": 3, "u": 2**63, "f": 0.10000000149011612, "s": "x"}],
    ),
    "subclasses": (
        lambda: [{"s": Text("x"), "l": Floats([1]), "o": collections.OrderedDict(a=1)}],
        [{"s": "x", "l": [1], "o": {"a": 1}}],
    ),
    "masked": (
        lambda: {"a": np.ma.MaskedArray([1, 2], [False, True])},
        [{"a": 1}, {"a": None}],
    ),
    "masked, two dimensions": (
        lambda: {"a": np.ma.MaskedArray([[1, 2], [3, 4]], [[0, 1], [0, 0]])},
        [{"a": [1, None]}, {"a": [3, 4]}],
    ),
    "masked, in a row": (
        lambda: [{"a": np.ma.MaskedArray([1, 2], [False, True])}],
        [{"a": [1, None]}],
    ),
    "three dimensions": (
        lambda: {"a": np.arange(4).reshape(2, 1, 2)},
        [{"a": [[0, 1]]}, {"a": [[2, 3]]}],
    ),
    "arrays of several lengths": (
        lambda: {"a": [np.array([1, 2]), np.array([]), np.array([3])]},
        [{"a": [1, 2]}, {"a": []}, {"a": [3]}],
    ),
    "the other end first": (lambda: {"a": np.array([1, 2], ">i4")}, [{"a": 1}, {"a": 2}]),
    "missing, pandas": (
        lambda: pd.DataFrame({"i": pd.array([1, None], "Int64"), "c": [None, "x"]}),
        [{"i": 1, "c": None}, {"i": None, "c": "x"}],
    ),
    "missing, in rows": (lambda: [{"a": pd.NA, "b": pd.NaT}], [{"a": None, "b": None}]),
    "missing, among objects": (
        lambda: pd.DataFrame({"a": pd.Series([NAN, "x"], dtype=object)}),
        [{"a": None}, {"a": "x"}],
    ),
    "categories": (
        lambda: pd.DataFrame({"a": pd.Categorical(["x", None], ["y", "x"])}),
        [{"a": "x"}, {"a": None}],
    ),
    "index": (
        lambda: pd.DataFrame({"x": [1]}, pd.Index(["d"], name="doc")),
        [{"doc": "d", "x": 1}],
    ),
    "polars": (
        lambda: pl.DataFrame({"a": ["x", None], "b": [1, 2]}),
        [{"a": "x", "b": 1}, {"a": None, "b": 2}],
    ),
    "polars' categories": (
        lambda: pl.DataFrame({"a": pl.Series(["x", None, "y"], dtype=pl.Categorical)}),
        [{"a": "x"}, {"a": None}, {"a": "y"}],
    ),
    "polars' columns": (
        lambda: {"a": pl.Series(["x", None]), "b": pl.Series([1, 2], dtype=pl.UInt8)},
        [{"a": "x", "b": 1}, {"a": None, "b": 2}],
    ),
    "arrow's columns": (
        lambda: {"a": pa.array([1, None]), "b": pa.chunked_array([["x"], ["y"]])},
        [{"a": 1, "b": "x"}, {"a": None, "b": "y"}],
    ),
    "a word that is null": (
        lambda: pa.table({"a": pa.DictionaryArray.from_arrays(WORDS, pa.array(["x", None]))}),
        [{"a": "x"}, {"a": None}, {"a": None}],
    ),
    "record batch": (lambda: pa.record_batch({"a": [1]}), [{"a": 1}]),
    "ranges and queues": (
        lambda: {"a": range(2), "b": collections.deque([1, 2])},
        [{"a": 0, "b": 1}, {"a": 1, "b": 2}],
    ),
    "rows of no columns among others": (lambda: [{"a": 1}, {"a": None}], [{"a": 1}, {"a": None}]),
    "no rows": (list, []),
}


@pytest.mark.parametrize("sink", ["jsonl", "parquet"])
@pytest.mark.parametrize("case", EXACT)
def test_what_is_exact_comes_out_exactly(tmp_path, case, sink):
    """Whichever library it is of, a value is its Python value, and what is missing is null."""
    returned, rows = EXACT[case]

    assert repr(outcome(tmp_path, returned, sink)) == repr(rows)


def test_pieces_of_several_shapes_are_one_part(tmp_path):
    """A generator may yield a table of each library, each with columns of its own."""
    pieces = ([{"a": 1}], pd.DataFrame({"a": [2], "b": ["x"]}), pa.table({"c": [1.5]}), [{}])
    found = outcome(tmp_path / "j", lambda: iter(pieces), "jsonl")
    table = outcome(tmp_path / "p", lambda: iter(pieces), "parquet")

    assert found == [{"a": 1}, {"a": 2, "b": "x"}, {"c": 1.5}, {}]
    assert table == [{key: row.get(key) for key in "abc"} for row in found]


def test_a_piece_of_another_type_fails_the_row_and_not_its_part(tmp_path):
    """The pieces of a call stand or fall together: none of them is written."""
    pieces = ([{"a": 1}], [{"a": "x"}])

    assert "column 'a': string here, but int64" in outcome(
        tmp_path, lambda: itertools.chain(pieces), "parquet"
    )


def test_a_duration_in_a_dictionary_stays_a_duration(tmp_path):
    """Arrow writes a dictionary of durations as mere numbers, and a Parquet reader gives those."""
    column = pa.array([1, None, 1], pa.duration("ns")).dictionary_encode()
    outcome(tmp_path, lambda: pa.table({"t": column}), "parquet")

    (part,) = parts(tmp_path / "out")
    assert pq.read_schema(part).field("t").type == pa.duration("ns")


def test_rows_of_no_columns_alone_are_kept_by_json_and_fail_a_parquet_part(tmp_path):
    """Parquet cannot count rows without a column; they must not vanish."""
    assert outcome(tmp_path / "j", lambda: [{}, {}], "jsonl") == [{}, {}]
    failed = outcome(tmp_path / "p", lambda: [{}, {}], "parquet")
    assert failed.startswith("shard failed: ")
    assert "rows without any column" in failed
    assert not parts(tmp_path / "p/out")
