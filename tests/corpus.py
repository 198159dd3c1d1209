"""Files with every type that the writers of Parquet have: no value in them was written by batchrunner.

Each file has one type, so that one which some format cannot hold is seen by itself. Values are those
at the edges of a type: its least and its greatest, and what is next to nothing.
"""

from __future__ import annotations

import datetime as dt
import math
import uuid
import warnings
from collections.abc import Sequence
from decimal import Context, Decimal
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

Columns = dict[str, pa.Array]

OTHER_NAN = np.array([0x7FF8_0000_0000_0123], np.uint64).view(np.float64)[0]
FLOATS = [0.1, -0.0, 0.0, math.inf, -math.inf, math.nan, None]
WORDS = ["", "a", "ä€𝄞", "\x00", " a ", "NaN", "null", None]
REPEATED = ["b", None, "a", "b", None]
DAY = 86_400
YEAR_1, YEAR_9999_END = -62_135_596_800, 253_402_300_799
INSTANTS = [0, -1, 1, 1_700_000_000, 4_102_444_800, None]
ZONES = (None, "UTC", "+05:30", "-11:59", "Asia/Kathmandu", "America/St_Johns", "Etc/GMT+12")
UNITS = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}


def write(folder: Path) -> list[Path]:
    """Write the corpus into *folder*; return its files, in the order of their names."""
    folder.mkdir(parents=True, exist_ok=True)
    flat = {**integers(), **reals(), **texts(), **times(), **decimals(), **others()}
    for name, array in {**flat, **nested(), **nested_of(flat)}.items():
        pq.write_table(pa.table({"id": _ids(array), "v": array}), folder / f"arrow-{name}.parquet")
    for name, (table, options) in odd_tables().items():
        pq.write_table(table, folder / f"odd-{name}.parquet", **options)
    for name, frame in pandas_frames().items():
        frame.to_parquet(folder / f"pandas-{name}.parquet", engine="pyarrow")
    for name, column in polars_columns().items():
        pl.DataFrame({"v": column}).write_parquet(folder / f"polars-{name}.parquet")
    for name, rows in DUCKDB_ROWS.items():
        query = f"select * from (values {rows}) t(v, w)"  # noqa: S608 - rows of this module
        duckdb.execute(f"copy ({query}) to '{folder}/duckdb-{name}.parquet' (format parquet)")
    _write_by_fastparquet(folder)
    return sorted(folder.iterdir())


def _ids(array: Sequence[Any]) -> pa.Array:
    return pa.array(range(len(array)), pa.int64())


def integers() -> Columns:
    found = {}
    for width in (8, 16, 32, 64):
        most = 2 ** (width - 1)
        signed, unsigned = pa.type_for_alias(f"int{width}"), pa.type_for_alias(f"uint{width}")
        found[f"int{width}"] = pa.array([-most, -1, 0, 1, most - 1], signed)
        found[f"int{width}-null"] = pa.array([-most, None, most - 1, 0], signed)
        found[f"uint{width}"] = pa.array([0, 1, most, 2 * most - 1], unsigned)
        found[f"uint{width}-null"] = pa.array([None, 0, 2 * most - 1], unsigned)
    found["int64-beyond-double"] = pa.array([2**53 + 1, None, -(2**53) - 1])
    found["int64-only-null"] = pa.array([None, None], pa.int64())
    return found


def reals() -> Columns:
    half = [None if x is None else np.float16(x) for x in (0.1, 65504.0, 6e-8, *FLOATS)]
    return {
        "float16": pa.array(half, pa.float16()),
        "float32": pa.array([3.4028235e38, 1e-45, 16777217.0, *FLOATS], pa.float32()),
        "float64": pa.array([1.7976931348623157e308, 5e-324, *FLOATS], pa.float64()),
        "float64-whole": pa.array([1.0, 2.0, -0.0, 1e300]),
        "float64-nan": pa.array([math.nan, OTHER_NAN, 1.0]),
        "float32-full": pa.array([0.1, 1.0, -0.0, 1e-45], pa.float32()),
        "bool": pa.array([True, False]),
        "bool-null": pa.array([True, None, False]),
    }


def texts() -> Columns:
    data = [b"", b"a", b"\xff\x00", None]
    unused = pa.DictionaryArray.from_arrays(
        pa.array([2, None, 0, 2], pa.int8()), pa.array(["x", "unused", "y"])
    )
    twice = pa.DictionaryArray.from_arrays(
        pa.array([0, 1, 2, None], pa.int32()), pa.array(["x", "y", "x"])
    )
    return {
        "string": pa.array(WORDS),
        "large-string": pa.array(WORDS, pa.large_string()),
        "string-view": pa.array(WORDS, pa.string_view()),
        "binary": pa.array(data),
        "large-binary": pa.array(data, pa.large_binary()),
        "binary-view": pa.array(data, pa.binary_view()),
        "fixed-binary": pa.array([b"abc", b"\xff\xfe\x00", None], pa.binary(3)),
        "dictionary": pa.array(REPEATED).dictionary_encode(),
        "dictionary-unused": unused,
        "dictionary-twice": twice,
        "dictionary-int": pa.array([5, None, 7, 5]).dictionary_encode(),
        "dictionary-float": pa.array([0.5, None, -0.0]).dictionary_encode(),
        "dictionary-large": pa.array(REPEATED, pa.large_string()).dictionary_encode(),
    }


def times() -> Columns:
    found: Columns = {
        "date32": pa.array([0, -1, 19_000, None], pa.date32()),
        "date64": pa.array([0, -DAY * 1000, 19_000 * DAY * 1000, None], pa.date64()),
        "date32-far": pa.array([YEAR_1 // DAY, YEAR_9999_END // DAY, 1], pa.date32()),
        "date32-outside": pa.array([YEAR_1 // DAY - 1, 0, YEAR_9999_END // DAY + 1], pa.date32()),
        "time32-s": pa.array([0, 1, DAY - 1, None], pa.time32("s")),
        "time32-ms": pa.array([0, 1, DAY * 1000 - 1, None], pa.time32("ms")),
        "time64-us": pa.array([0, 1, DAY * 10**6 - 1, None], pa.time64("us")),
        "time64-ns": pa.array([0, 1, DAY * 10**9 - 1, None, 1000], pa.time64("ns")),
        "time64-ns-whole": pa.array([0, 1000, (DAY - 1) * 10**9, None], pa.time64("ns")),
    }
    for unit, scale in UNITS.items():
        counts = [n if n is None else n * scale + scale // 7 for n in INSTANTS]
        for zone in ZONES if unit in ("us", "ns") else ZONES[:2]:
            name = f"timestamp-{unit}-{zone or 'naive'}".replace("/", "-").replace(":", "")
            found[name] = pa.array(counts, pa.timestamp(unit, zone))
        found[f"duration-{unit}"] = pa.array([0, -1, 1, 10**13 // 7, None], pa.duration(unit))
    return {**found, **_far_times()}


def _far_times() -> Columns:
    most = 2**63 - 1
    # Until 1883, New York was 4 h 56 min 2 s behind.
    old = pa.array([-3 * 10**15, -(10**15), 0], pa.timestamp("us", "America/New_York"))
    found = {
        "timestamp-ns-far": pa.array([-most, most, 0], pa.timestamp("ns")),
        "timestamp-us-old-zone": old,
        "duration-us-far": pa.array([10**18, -(10**18), 0], pa.duration("us")),
        "duration-s-far": pa.array([10**14, -(10**14), 0], pa.duration("s")),
    }
    for unit in ("s", "ms", "us"):
        first, last = YEAR_1 * UNITS[unit], YEAR_9999_END * UNITS[unit]
        found[f"timestamp-{unit}-far"] = pa.array([first, last, 0], pa.timestamp(unit))
        outside = [first - 1, 0, last + UNITS[unit]]
        found[f"timestamp-{unit}-outside"] = pa.array(outside, pa.timestamp(unit))
    return found


def decimals() -> Columns:
    found = {}
    kinds = {32: pa.decimal32, 64: pa.decimal64, 128: pa.decimal128, 256: pa.decimal256}
    for digits, bits in ((9, 32), (18, 64), (38, 128), (76, 256)):
        counts = [0, 1, -1, 10**digits - 1, 1 - 10**digits]
        for scale in (0, 2, digits):
            values = [Decimal(n).scaleb(-scale, Context(prec=digits)) for n in counts]
            found[f"decimal{bits}-{scale}"] = pa.array([None, *values], kinds[bits](digits, scale))
    return found


def others() -> Columns:
    least, most = uuid.UUID(int=1).bytes, uuid.UUID(int=2**128 - 1).bytes
    text = pa.array(['{"a": 1}', None, "[]"])
    return {
        "null": pa.nulls(3),
        "uuid": pa.array([least, None, most], pa.uuid()),
        "json": pa.ExtensionArray.from_storage(pa.json_(), text),
    }


def nested_of(flat: Columns) -> Columns:
    """Return lists and structs of each flat column."""
    found = {}
    for name, array in flat.items():
        ends = pa.array([0, 0, None, len(array) // 2, len(array)], pa.int32())
        found[f"list-{name}"] = pa.ListArray.from_arrays(ends, array)
        second = pa.array([i == 1 for i in range(len(array))])
        found[f"struct-{name}"] = pa.StructArray.from_arrays([array], names=["x"], mask=second)
    return found


def nested() -> Columns:
    numbers = [[1, 2], [], None, [None, 3]]
    deep = [[[1], None, []], None, [], [[None, 2], [3]]]
    pairs = [[("a", 1), ("b", None)], [], None, [("a", 2), ("a", 3)]]
    inner = pa.struct([("c", pa.string()), ("d", pa.list_(pa.int8()))])
    shape = pa.struct([("a", pa.int32()), ("b", inner)])
    objects = [
        {"a": 1, "b": {"c": "x", "d": None}},
        None,
        {"a": None, "b": None},
        {"a": 2, "b": {"c": None, "d": [1]}},
    ]
    small = pa.struct([("a", pa.int8()), ("b", pa.string())])
    words = pa.array(["a", None, "a", "b"]).dictionary_encode()
    counts = pa.map_(pa.string(), pa.int8())
    return {
        "list-plain": pa.array(numbers, pa.list_(pa.int32())),
        "large-list": pa.array(numbers, pa.large_list(pa.int64())),
        "list-full": pa.array([[0.1, 0.5], [-0.0], []], pa.list_(pa.float32())),
        "fixed-list": pa.array([[1, 2], [None, 3], None], pa.list_(pa.int64(), 2)),
        "fixed-list-full": pa.array([[0.5, 2], [1.5, 3]], pa.list_(pa.float32(), 2)),
        "fixed-list-of-structs": pa.array([[{"a": 1}, None], None], pa.list_(small, 2)),
        "list-of-lists": pa.array(deep, pa.list_(pa.list_(pa.int16()))),
        "list-of-null": pa.array([[], [None], None], pa.list_(pa.null())),
        "list-of-structs": pa.array([objects, [], None, [None]], pa.list_(shape)),
        "list-of-maps": pa.array([[[("a", 1)], [], None], None, []], pa.list_(counts)),
        "list-of-words": pa.ListArray.from_arrays(pa.array([0, 0, None, 2, 4], pa.int32()), words),
        "struct": pa.array(objects, shape),
        "struct-of-null": pa.array([{"n": None}, None], pa.struct([("n", pa.null())])),
        "struct-absent": pa.array([{"a": 1}, {"b": "x"}, {}, None], small),
        "struct-of-map": pa.array(
            [{"m": [("a", 1)]}, {"m": None}, None], pa.struct([("m", counts)])
        ),
        "struct-odd-names": pa.array([{"": 1, "a.b": 2}], pa.struct([("", "i1"), ("a.b", "i1")])),
        "map": pa.array(pairs, pa.map_(pa.string(), pa.int64())),
        "map-int": pa.array([[(1, "a")], [], None], pa.map_(pa.int32(), pa.string())),
        "map-text": pa.array([[("k", "a")], None], pa.map_(pa.string(), pa.large_string())),
        "map-of-maps": pa.array([[("a", [("b", 1)])], None], pa.map_(pa.string(), counts)),
        "map-of-structs": pa.array([[("a", {"a": 1})], []], pa.map_(pa.string(), small)),
    }


def odd_tables() -> dict[str, tuple[pa.Table, dict[str, Any]]]:
    names = ["", " ", "a.b", "a", "A", "ä", "x y", "`q`", "0", "id\n", "__index_level_0__"]
    x = pa.field("x", pa.int8(), nullable=False)
    item = pa.field("item", pa.int16(), nullable=False)
    strict = pa.schema(
        [
            pa.field("id", pa.int64(), nullable=False, metadata={"unit": "m"}),
            pa.field("v", pa.struct([x]), nullable=False),
            pa.field("w", pa.list_(item), nullable=False),
            pa.field("m", pa.map_(pa.string(), pa.field("value", pa.int8(), nullable=False))),
        ],
        metadata={"k": "v"},
    )
    strict_rows = [[1, 2], [{"x": 1}, {"x": 2}], [[1], []], [[("a", 1)], None]]
    words = [pa.array(some).dictionary_encode() for some in (["a", "b"], ["b", None])]
    several = pa.table({"id": range(50), "v": [f"{n % 3}" for n in range(50)]})
    return {
        "empty": (pa.table({"id": pa.array([], pa.int64()), "v": pa.array([], pa.string())}), {}),
        "groups": (several, {"row_group_size": 3}),
        "names": (pa.table([pa.array([n, None]) for n in range(len(names))], names=names), {}),
        "strict": (pa.table(strict_rows, schema=strict), {}),
        "wide": (pa.table({f"c{n}": pa.array([n, None], pa.int16()) for n in range(300)}), {}),
        "words": (pa.table({"v": pa.chunked_array(words)}), {"row_group_size": 2}),
    }


def pandas_frames() -> dict[str, pd.DataFrame]:
    frame = pd.DataFrame({"text": ["a", "b"], "n": [1, 2]})
    pairs = pd.MultiIndex.from_tuples([("x", 1), ("y", 2)], names=["a", "b"])
    instants = pd.to_datetime(["2020-01-01 00:00:00.123456789", None])
    kinds = pd.Categorical(["cat", "dog", None], ["dog", "cat", "cow"], ordered=True)
    nullable = {
        "i": pd.array([1, None], "Int64"),
        "b": pd.array([True, None], "boolean"),
        "f": pd.array([1.5, None], "Float32"),
        "s": pd.array(["a", None], "string"),
    }
    return {
        "named-index": frame.set_index(pd.Index(["x", "y"], name="doc")),
        "multi-index": frame.set_index(pairs),
        "nameless-index": frame.set_index(pd.Index([7, 3])),
        "range-index": frame.set_index(pd.RangeIndex(5, 9, 2, name="r")),
        "categorical": pd.DataFrame({"c": kinds}),
        "nullable": pd.DataFrame(nullable),
        "times": pd.DataFrame({"t": instants, "z": instants.tz_localize("Europe/Berlin")}),
        "durations": pd.DataFrame({"d": pd.to_timedelta([1, None], "ns")}),
        "period": pd.DataFrame({"p": pd.period_range("2020-01", periods=2, freq="M")}),
        "interval": pd.DataFrame({"p": pd.interval_range(0, 2)}),
        "nan": pd.DataFrame({"f": [1.5, math.nan], "o": ["a", None]}),
    }


def polars_columns() -> dict[str, pl.Series]:
    when = dt.datetime(2020, 1, 2, 3, 4, 5, 678901)  # noqa: DTZ001
    return {
        "uint64": pl.Series([0, 2**64 - 1, None], dtype=pl.UInt64),
        "float32": pl.Series([0.1, math.nan, None, -0.0], dtype=pl.Float32),
        "string": pl.Series(["", "ä", None]),
        "categorical": pl.Series(["a", None, "b", "a"], dtype=pl.Categorical),
        "enum": pl.Series(["a", None, "b"], dtype=pl.Enum(["b", "a", "c"])),
        "date": pl.Series([dt.date(1, 1, 1), dt.date(9999, 12, 31), None]),
        "time": pl.Series([dt.time(1, 2, 3, 4), None]),
        "ms": pl.Series([when, None], dtype=pl.Datetime("ms")),
        "us": pl.Series([when, None], dtype=pl.Datetime("us", "Asia/Tokyo")),
        "ns": pl.Series([when, None], dtype=pl.Datetime("ns")),
        "duration": pl.Series([dt.timedelta(1, 2, 3), None]),
        "decimal": pl.Series([Decimal("1.20"), Decimal("-99.99"), None], dtype=pl.Decimal(10, 2)),
        "binary": pl.Series([b"", b"\xff", None]),
        "list": pl.Series([["a"], [], None, [None]]),
        "array": pl.Series([[1, 2], None, [3, None]], dtype=pl.Array(pl.Int16, 2)),
        "struct": pl.Series([{"a": 1, "b": [1.5]}, {"a": None, "b": None}, None]),
        "null": pl.Series([None, None], dtype=pl.Null),
    }


DUCKDB_ROWS = {
    "integers": "(1::tinyint, 255::utinyint), (-128, null)",
    "uint64": "(18446744073709551615::ubigint, 1::uinteger), (null, 4294967295)",
    "hugeint": "(170141183460469231731687303715884105727::hugeint, 1), (null, 2)",
    "micros": "('2020-01-01 01:02:03.123456'::timestamp, 1), (null, 2)",
    "nanos": "('2020-01-01 01:02:03.123456789'::timestamp_ns, 1), (null, 2)",
    "seconds": "('2020-01-01 01:02:03'::timestamp_s, '2020-01-01 01:02:03.123'::timestamp_ms)",
    "zoned": "('2020-01-01 01:02:03.5+05:30'::timestamptz, 1), (null, 2)",
    "infinite-date": "('infinity'::date, 1), ('2020-01-01', 2), ('-infinity', 3)",
    "infinite-time": "('infinity'::timestamp, 1), ('2020-01-01', 2)",
    "times": "('01:02:03.123456'::time, '00:00:00'::time), (null, null)",
    "interval": "('1 month 2 days'::interval, 1), (null, 2)",
    "decimals": "(1.25::decimal(4,2), -123456789012345678.5::decimal(38,1)), (null, null)",
    "uuid": "('00000000-0000-0000-0000-000000000001'::uuid, 1), (null, 2)",
    "blob": "('\\xFF\\x00'::blob, ''::blob), (null, null)",
    "nested": "([1, null], {'a': 1, 'b': [{'c': 'x'}]}), (null, null)",
    "map": "(map {'a': 1, 'b': null}, map {1: {'x': [1.5]}}), (null, null)",
    "array": "([1.5, 2]::float[2], 1), ([0, -1], 2)",
    "json": "('{\"a\": 1}'::json, 1), (null, 2)",
    "enum": "('x'::enum('x', 'y'), 1), (null, 2)",
    "bits": "('0101'::bit, 1), (null, 2)",
    "floats": "('nan'::float, '-infinity'::double), ('-0.0', 1e308)",
    "bool": "(true, null), (false, null)",
}


def _write_by_fastparquet(folder: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of its imports
        import fastparquet

        for name, (columns, options) in _fastparquet_columns().items():
            path = folder / f"fastparquet-{name}.parquet"
            fastparquet.write(str(path), pd.DataFrame(columns), **options)


def _fastparquet_columns() -> dict[str, tuple[dict[str, Any], dict[str, Any]]]:
    whole = ["2020-01-02 03:04:05.678901", "1970-01-01 00:00:00.000001", None]
    instants = pd.to_datetime(whole).as_unit("ns")
    finer = pd.to_datetime(["2020-01-02 03:04:05.678901234", "2020-01-02"], format="ISO8601")
    mixed = {"i": [1, 2], "f": [0.5, math.nan], "s": ["a", "b"], "b": [True, False]}
    return {
        "mixed": (mixed, {}),
        "int96": ({"t": instants}, {"times": "int96"}),
        "int96-finer": ({"t": finer.as_unit("ns")}, {"times": "int96"}),
        "int64": ({"t": instants}, {}),
        "categories": ({"c": pd.Categorical(["x", None, "y"])}, {}),
        "json": ({"o": [{"a": 1}, None]}, {"object_encoding": "json"}),
        "bytes": ({"o": [b"\xff", None]}, {"object_encoding": "bytes"}),
        "nullable": ({"i": pd.array([1, None], "Int32")}, {}),
        "deltas": ({"d": pd.to_timedelta([1, 2], "s")}, {}),
    }
