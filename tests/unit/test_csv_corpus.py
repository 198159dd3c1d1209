"""CSV of other programs: what their writers write, and files that packages ship, held against their readers."""

import csv
import io
from pathlib import Path

import duckdb
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.csv
import pytest

from batchrunner.formats.csv_format import Csv
from batchrunner.shard import Slice, Slicing

TEXTS = [
    "a",
    "",
    'q"uo"te',
    "two\nlines",
    "two\r\nlines",
    "a,b",
    " ",
    "ä€𝄞",
    "NA",
    "null",
    '5" x',
    None,
]
NUMBERS = [1, -2, 0, 2**53, 4, 5, 6, 7, 8, 9, 10, None]
FLOATS = [0.1, -0.0, 1e300, 5e-324, 1 / 3, 2.5, float("inf"), 7.0, 8.0, 9.0, 1e-7, None]
TABLE = pa.table({"t": TEXTS, "n": NUMBERS, "f": FLOATS})
SCHEMA = {"n": "int64", "f": "double"}
NUMPYS = sorted(Path(np.__file__).parent.rglob("tests/data/*.csv"))


def by_pyarrow(path):
    pyarrow.csv.write_csv(TABLE, path)


def by_polars(path):
    pl.from_arrow(TABLE).write_csv(path, quote_style="non_numeric")


def by_duckdb(path):
    duckdb.from_arrow(TABLE).write_csv(str(path))


def by_pandas(path):
    TABLE.to_pandas(types_mapper=pd.ArrowDtype).to_csv(path, index=False)


def by_python(path):
    with path.open("w", newline="") as file:
        csv.writer(file, quoting=csv.QUOTE_MINIMAL).writerows(
            [TABLE.column_names, *zip(*TABLE.to_pydict().values(), strict=True)]
        )


def rows(data, made):
    piece = Slice("a.csv", Slicing.BYTES, 0, len(data), len(data), "1")
    how = {"compression": None, "columns": None, "partition": ()}
    chunks = list(made.read(io.BytesIO(data), piece, **how))
    assert not any(chunk.bad for chunk in chunks)
    return [row for chunk in chunks for row in chunk.rows(0, len(chunk))]


def again(data, made):
    reader = made.second_reader()
    piece = Slice("a.csv", Slicing.BYTES, 0, len(data), len(data), "1")
    records = reader.records(io.BytesIO(data), piece, wanted=None, compression=None)
    return [reader.row_of(record) for some in records for _, record in some]


@pytest.mark.parametrize("write", [by_pyarrow, by_polars, by_duckdb, by_pandas, by_python])
def test_what_other_programs_write_is_read(write, tmp_path):
    """Each value; the empty text too, where the program tells it from null."""
    write(tmp_path / "a.csv")
    data = (tmp_path / "a.csv").read_bytes()
    expected = TABLE.to_pylist()
    found = rows(data, Csv(schema=SCHEMA))
    if write in (by_pandas, by_python):
        expected = [{**row, "t": row["t"] or None} for row in expected]

    assert list(map(repr, found)) == list(map(repr, expected))
    assert list(map(repr, again(data, Csv(schema=SCHEMA)))) == list(map(repr, expected))


@pytest.mark.skipif(not NUMPYS, reason="numpy came without its tests")
@pytest.mark.parametrize("path", NUMPYS, ids=lambda path: path.name)
def test_files_that_a_package_ships_are_read_as_pandas_reads_them(path):
    """None of them was written for us."""
    text = "".join(
        line for line in path.read_text().splitlines(keepends=True) if not line.startswith("#")
    )
    frame = pd.read_csv(io.StringIO(text), dtype=str, keep_default_na=False)
    if frame.index.nlevels > 1 or len(frame.columns) != len(text.partition("\n")[0].split(",")):
        pytest.skip("its lines have more fields than its first one")
    found = rows(text.encode(), Csv(nulls=[]))

    assert found == again(text.encode(), Csv(nulls=[])) == frame.to_dict("records")
