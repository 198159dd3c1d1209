"""Files with every type that four writers of Parquet have: nothing in them is made by batchrunner.

Each file has a column `id` and one column `v`, so that a type which some format cannot hold is seen by
itself. Values are those at the edges of a type: its least and its greatest, and what is next to nothing.
"""

from __future__ import annotations

import datetime as dt
import math
import uuid
import warnings
from collections.abc import Iterator, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

Columns = dict[str, pa.Array]

NAN_OF_ANOTHER_KIND = np.array([0x7FF8_0000_0000_0123], np.uint64).view(np.float64)[0]
FLOATS = [0.1, -0.0, 0.0, math.inf, -math.inf, math.nan, None]
WORDS = ["", "a", "ä€𝄞", "\x00", " a ", "NaN", "null", None]
DAY = 86_400
YEAR_1, YEAR_9999_END = -62_135_596_800, 253_402_300_799
INSTANTS = [0, -1, 1, 1_700_000_000, 4_102_444_800, None]


def write(folder: Path) -> list[Path]:
    """Write the corpus into *folder*; return its files."""
    folder.mkdir(parents=True, exist_ok=True)
    makers = (_by_pyarrow, _by_pandas, _by_polars, _by_duckdb, _by_fastparquet)
    return [path for maker in makers for path in maker(folder)]


def _by_pyarrow(folder: Path) -> Iterator[Path]:
    flat = {**integers(), **reals(), **texts(), **times(), **decimals(), **others()}
    for name, array in {**flat, **nested(), **nested_of(flat)}.items():
        try:
            yield put(folder / f"pyarrow-{name}.parquet", pa.table({"id": ids(array), "v": array}))
        except Exception as e:
            print("SKIP", name, str(e)[:100]); (folder / f"pyarrow-{name}.parquet").unlink(missing_ok=True)
            continue
    yield from _odd_tables(folder)


def ids(array: Sequence[Any]) -> pa.Array:
    return pa.array(range(len(array)), pa.int64())


def put(path: Path, table: pa.Table, **options: Any) -> Path:
    pq.write_table(table, path, **options)
    return path


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
        "float64-nan": pa.array([math.nan, NAN_OF_ANOTHER_KIND, 1.0]),
        "float32-whole": pa.array([0.1, 1.0, -0.0, 1e-45], pa.float32()),
        "bool": pa.array([True, False]),
        "bool-null": pa.array([True, None, False]),
    }


def texts() -> Columns:
    data = [b"", b"a", b"\xff\x00", None]
    repeated = ["b", None, "a", "b", None]
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
        "dictionary": pa.array(repeated).dictionary_encode(),
        "dictionary-unused": unused,
        "dictionary-twice": twice,
        "dictionary-int": pa.array([5, None, 7, 5]).dictionary_encode(),
        "dictionary-float": pa.array([0.5, None, -0.0]).dictionary_encode(),
        "dictionary-large": pa.array(repeated, pa.large_string()).dictionary_encode(),
        "dictionary-null-word": pa.DictionaryArray.from_arrays(
            pa.array([0, 1, None], pa.int32()), pa.array(["a", None])
        ),
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
    for unit, scale in (("s", 1), ("ms", 10**3), ("us", 10**6), ("ns", 10**9)):
        counts = [n if n is None else n * scale + scale // 7 for n in INSTANTS]
        for zone in ZONES if unit in ("us", "ns") else ZONES[:2]:
            name = f"timestamp-{unit}-{zone or 'naive'}".replace("/", "-").replace(":", "")
            found[name] = pa.array(counts, pa.timestamp(unit, zone))
        found[f"duration-{unit}"] = pa.array([0, -1, 1, 10**15 // 7, None], pa.duration(unit))
        if unit != "ns":
            far = [YEAR_1 * scale, YEAR_9999_END * scale]
            found[f"timestamp-{unit}-far"] = pa.array([*far, 0], pa.timestamp(unit))
            outside = [far[0] - 1, 0, far[1] + scale]
            found[f"timestamp-{unit}-outside"] = pa.array(outside, pa.timestamp(unit))
    most = 2**63 - 1
    found["timestamp-ns-far"] = pa.array([-most, most, 0], pa.timestamp("ns"))
    found["duration-us-far"] = pa.array([most, -most, 0], pa.duration("us"))
    found["duration-s-far"] = pa.array([10**14, -(10**14), 0], pa.duration("s"))
    found["timestamp-us-old-zone"] = pa.array(
        [-3_000_000_000 * 10**6, -1_000_000_000_000_000, 0], pa.timestamp("us", "America/New_York")
    )
    return found


ZONES = (None, "UTC", "+05:30", "-11:59", "Asia/Kathmandu", "America/St_Johns", "Etc/GMT+12")


def decimals() -> Columns:
    found = {}
    for kind in (pa.decimal32, pa.decimal64, pa.decimal128, pa.decimal256):
        most = kind(1).bit_width * 3 // 10
        digits = min(most, {32: 9, 64: 18, 128: 38, 256: 76}[kind(1).bit_width])
        for scale in (0, 2, digits):
            cents = [None, 0, 1, -1, 10**digits - 1, 1 - 10**digits]
            values = [c if c is None else Decimal(c).scaleb(-scale, _WIDE) for c in cents]
            name = f"decimal{kind(1).bit_width}-{scale}"
            found[name] = pa.array(values, kind(digits, scale))
    found["decimal128-minus"] = pa.array([Decimal("1E+3"), Decimal("-5E+3")], pa.decimal128(5, -3))
    return found


_WIDE = __import__("decimal").Context(prec=80)


def others() -> Columns:
    found = {
        "null": pa.nulls(3),
        "uuid": pa.array([uuid.UUID(int=1).bytes, None, uuid.UUID(int=2**128 - 1).bytes], pa.uuid()),
    }
    text = pa.array(['{"a": 1}', None, "[]"])
    found["json"] = pa.ExtensionArray.from_storage(pa.json_(), text)
    return found


def nested_of(flat: Columns) -> Columns:
    """Return lists, structs and maps of each flat column."""
    found = {}
    for name, array in flat.items():
        if name.startswith(("timestamp", "decimal", "uint", "int")) and "64" not in name and "us" not in name and "ns" not in name:
            continue
        found[f"list-{name}"] = pa.array(
            [None, [], [None], array.to_pylist()], pa.list_(array.type)
        ) if not _needs_care(array) else _listed(array)
        found[f"struct-{name}"] = pa.StructArray.from_arrays(
            [array], names=["x"], mask=pa.array([i == 1 for i in range(len(array))])
        )
    return found


def _needs_care(array: pa.Array) -> bool:
    return True


def _listed(array: pa.Array) -> pa.Array:
    ends = pa.array([0, 0, None, len(array) // 2, len(array)], pa.int32())
    return pa.ListArray.from_arrays(ends, array)


def nested() -> Columns:
    numbers = [[1, 2], [], None, [None, 3]]
    pairs = [[("a", 1), ("b", None)], [], None, [("a", 2)]]
    deep = [[[1], None, []], None, [], [[None, 2], [3]]]
    objects = [{"a": 1, "b": {"c": "x", "d": None}}, None, {"a": None, "b": None}, {"a": 2, "b": {"c": None, "d": [1]}}]
    inner = pa.struct([("c", pa.string()), ("d", pa.list_(pa.int8()))])
    shape = pa.struct([("a", pa.int32()), ("b", inner)])
    words = pa.dictionary(pa.int32(), pa.string())
    return {
        "list-int32": pa.array(numbers, pa.list_(pa.int32())),
        "large-list": pa.array(numbers, pa.large_list(pa.int64())),
        "list-float32-plain": pa.array([[0.1, 0.5], [-0.0], []], pa.list_(pa.float32())),
        "fixed-list": pa.array([[1, 2], [None, 3], None], pa.list_(pa.int64(), 2)),
        "fixed-list-full": pa.array([[0.5, 2], [1.5, 3]], pa.list_(pa.float32(), 2)),
        "fixed-list-of-structs": pa.array([[{"a": 1}, None], None], pa.list_(pa.struct([("a", pa.int8())]), 2)),
        "list-of-lists": pa.array(deep, pa.list_(pa.list_(pa.int16()))),
        "list-of-null": pa.array([[], [None], None], pa.list_(pa.null())),
        "list-of-structs": pa.array([objects, [], None, [None]], pa.list_(shape)),
        "struct": pa.array(objects, shape),
        "struct-of-null": pa.array([{"n": None}, None], pa.struct([("n", pa.null())])),
        "struct-absent": pa.array([{"a": 1}, {"b": "x"}, {}, None], pa.struct([("a", pa.int8()), ("b", pa.string())])),
        "map": pa.array(pairs, pa.map_(pa.string(), pa.int64())),
        "map-int": pa.array([[(1, "a")], [], None], pa.map_(pa.int32(), pa.string())),
        "map-text": pa.array([[("k", "a"), ("k", "b")], None], pa.map_(pa.string(), pa.string())),
        "map-of-maps": pa.array([[("a", [("b", 1)])], [("a", None)], None], pa.map_(pa.string(), pa.map_(pa.string(), pa.int8()))),
        "map-of-structs": pa.array([[("a", {"x": 1.5})], []], pa.map_(pa.string(), pa.struct([("x", pa.float32())]))),
        "list-of-maps": pa.array([[[("a", 1)], [], None], None, []], pa.list_(pa.map_(pa.string(), pa.int8()))),
        "struct-of-map": pa.array([{"m": [("a", 1)]}, {"m": None}, None], pa.struct([("m", pa.map_(pa.string(), pa.int64()))])),
        "list-of-dictionary": _listed(pa.array(["a", None, "a", "b"]).dictionary_encode()),
        "struct-of-dictionary": pa.StructArray.from_arrays([pa.array(["a", None, "a"]).dictionary_encode()], names=["w"]),
        "list-view-less": pa.array([["a"], [], None], pa.list_(pa.large_string())),
        "empty-key": pa.array([{"": 1, "a.b": 2}], pa.struct([("", pa.int8()), ("a.b", pa.int8())])),
    }


def _odd_tables(folder: Path) -> Iterator[Path]:
    def odd(name: str, table: pa.Table, **options: Any) -> Path:
        return put(folder / f"odd-{name}.parquet", table, **options)

    yield odd("empty", pa.table({"id": pa.array([], pa.int64()), "v": pa.array([], pa.string())}))
    yield odd("groups", pa.table({"id": range(50), "v": [f"{n % 3}" for n in range(50)]}), row_group_size=3)
    names = ["", " ", "a.b", "a", "A", "ä", "x y", "`q`", "0", "id\n", "__index_level_0__"]
    yield odd("names", pa.table([pa.array([n, None]) for n in range(len(names))], names=names))
    strict = pa.schema([
        pa.field("id", pa.int64(), nullable=False, metadata={"unit": "m"}),
        pa.field("v", pa.struct([pa.field("x", pa.int8(), nullable=False)]), nullable=False),
        pa.field("w", pa.list_(pa.field("item", pa.int16(), nullable=False)), nullable=False),
    ], metadata={"k": "v"})
    yield odd("strict", pa.table([[1, 2], [{"x": 1}, {"x": 2}], [[1], []]], schema=strict))
    yield odd("strict-map", pa.table({"m": pa.array([[("a", 1)]], pa.map_(pa.string(), pa.field("value", pa.int8(), nullable=False)))}))
    wide = {f"c{n}": pa.array([n, None], pa.int16()) for n in range(300)}
    yield odd("wide", pa.table(wide))
    words = pa.chunked_array([pa.array(["a", "b"]).dictionary_encode(), pa.array(["b", None]).dictionary_encode()])
    yield odd("words", pa.table({"id": [0, 1, 2, 3], "v": words}), row_group_size=2)


def _by_pandas(folder: Path) -> Iterator[Path]:
    frame = pd.DataFrame({"text": ["a", "b"], "n": [1, 2]})
    frames = {
        "named-index": frame.set_index(pd.Index(["x", "y"], name="doc")),
        "multi-index": frame.set_index(pd.MultiIndex.from_tuples([("x", 1), ("y", 2)], names=["a", "b"])),
        "nameless-index": frame.set_index(pd.Index([7, 3])),
        "range-index": frame.set_index(pd.RangeIndex(5, 9, 2, name="r")),
        "categorical": pd.DataFrame({"c": pd.Categorical(["cat", "dog", None], ["dog", "cat", "cow"], ordered=True)}),
        "nullable": pd.DataFrame({"i": pd.array([1, None], "Int64"), "b": pd.array([True, None], "boolean"), "f": pd.array([1.5, None], "Float32"), "s": pd.array(["a", None], "string")}),
        "times": pd.DataFrame({"t": pd.to_datetime(["2020-01-01 00:00:00.123456789", None]), "z": pd.to_datetime(["2020-01-01", None]).tz_localize("Europe/Berlin"), "d": pd.to_timedelta([1, None], "ns")}),
        "period": pd.DataFrame({"p": pd.period_range("2020-01", periods=2, freq="M")}),
        "interval": pd.DataFrame({"p": pd.interval_range(0, 2)}),
        "nan": pd.DataFrame({"f": [1.5, math.nan], "o": ["a", None]}),
    }
    for name, one in frames.items():
        path = folder / f"pandas-{name}.parquet"
        one.to_parquet(path, engine="pyarrow")
        yield path


def _by_polars(folder: Path) -> Iterator[Path]:
    when = dt.datetime(2020, 1, 2, 3, 4, 5, 678901)
    columns = {
        "int128": pl.Series([1, -1, None], dtype=pl.Int64),
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
    for name, column in columns.items():
        path = folder / f"polars-{name}.parquet"
        pl.DataFrame({"v": column}).write_parquet(path)
        yield path


def _by_duckdb(folder: Path) -> Iterator[Path]:
    values = {
        "integers": "(1::tinyint, 255::utinyint), (-128, null)",
        "uint64": "(18446744073709551615::ubigint, 1::uinteger), (null, 4294967295)",
        "hugeint": "(170141183460469231731687303715884105727::hugeint, 1), (null, 2)",
        "timestamps": "('2020-01-01 01:02:03.123456'::timestamp, '2020-01-01 01:02:03.123456789'::timestamp_ns), (null, null)",
        "timestamps-s": "('2020-01-01 01:02:03'::timestamp_s, '2020-01-01 01:02:03.123'::timestamp_ms), (null, null)",
        "zoned": "('2020-01-01 01:02:03.5+05:30'::timestamptz, 1), (null, 2)",
        "infinity": "('infinity'::date, 1), ('2020-01-01', 2), ('-infinity', 3)",
        "infinity-ts": "('infinity'::timestamp, 1), ('2020-01-01', 2)",
        "times": "('01:02:03.123456'::time, '00:00:00'::time), (null, null)",
        "interval": "('1 month 2 days'::interval, 1), (null, 2)",
        "decimals": "(1.25::decimal(4,2), -123456789012345678.5::decimal(38,1)), (null, null)",
        "uuid": "('00000000-0000-0000-0000-000000000001'::uuid, 1), (null, 2)",
        "blob": "('\\xFF\\x00'::blob, ''::blob), (null, null)",
        "nested": "([1, null], {'a': 1, 'b': [{'c': 'x'}]}), (null, null)",
        "map": "(map {'a': 1, 'b': null}, map {1: {'x': [1.5]}}), (null, null)",
        "array": "([1.5, 2]::float[2], 1), (null, 2)",
        "json": "('{\"a\": 1}'::json, 1), (null, 2)",
        "enum": "('x'::enum('x', 'y'), 1), (null, 2)",
        "bits": "('0101'::bit, 1), (null, 2)",
        "floats": "('nan'::float, '-infinity'::double), ('-0.0', 1e308)",
        "bool": "(true, null), (false, null)",
    }
    for name, rows in values.items():
        path = folder / f"duckdb-{name}.parquet"
        _copy(f"select * from (values {rows}) t(v, w)", path)
        yield path


def _copy(query: str, path: Path) -> None:
    duckdb.connect().execute(f"copy ({query}) to '{path}' (format parquet)")


def _by_fastparquet(folder: Path) -> Iterator[Path]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import fastparquet

        when = pd.to_datetime(["2020-01-02 03:04:05.678901", "1970-01-01 00:00:00.000001", None])
        frames = {
            "plain": (pd.DataFrame({"i": [1, 2], "f": [0.5, math.nan], "s": ["a", "b"], "b": [True, False]}), {}),
            "int96": (pd.DataFrame({"t": when}), {"times": "int96"}),
            "int64": (pd.DataFrame({"t": when}), {}),
            "categories": (pd.DataFrame({"c": pd.Categorical(["x", None, "y"])}), {}),
            "index": (pd.DataFrame({"n": [1, 2]}, index=pd.Index(["a", "b"], name="key")), {"write_index": True}),
            "json": (pd.DataFrame({"o": [{"a": 1}, None]}), {"object_encoding": "json"}),
            "bytes": (pd.DataFrame({"o": [b"\xff", None]}), {"object_encoding": "bytes"}),
            "nullable": (pd.DataFrame({"i": pd.array([1, None], "Int32")}), {}),
            "delta": (pd.DataFrame({"d": pd.to_timedelta([1, 2], "s")}), {}),
        }
        for name, (frame, options) in frames.items():
            path = folder / f"fastparquet-{name}.parquet"
            try:
                fastparquet.write(str(path), frame, **options)
            except Exception as error:
                print("SKIP", name, error)
                continue
            yield path
