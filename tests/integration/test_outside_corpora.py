"""Files that others made: those that installed packages ship, and collections made to break parsers.

The collections are not ours to ship. OUTSIDE_CORPORA names a folder with clones of them: of
`https://github.com/` nst/JSONTestSuite, apache/arrow-testing, apache/parquet-testing,
max-mapper/csv-spectrum and sineemore/csv-test-data. Those that are not there are not read.
"""

from __future__ import annotations

import contextlib
import csv
import importlib.util
import io
import json
import os
import tarfile
from itertools import groupby
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import exact
from batchrunner.errors import ShardFailedError
from batchrunner.formats.contract import RecordReader, Sharding
from batchrunner.formats.csv_format import Csv
from batchrunner.formats.registry import file_kind, format_named
from batchrunner.shard import Slice, Slicing
from forks import in_child

ROOT = Path(os.environ.get("OUTSIDE_CORPORA", "/nowhere"))


def files_of(folder, *patterns):
    return sorted(path for pattern in patterns for path in ROOT.joinpath(folder).glob(pattern))


def shipped(package, pattern):
    """Return the files that an installed *package* came with."""
    found = importlib.util.find_spec(package)
    folder = Path(found.submodule_search_locations[0])
    return sorted(path for path in folder.rglob(pattern) if path.stat().st_size < 1 << 20)


def read(path, made=None, compression=None):
    """Rows and bad rows of a file, by position; a string if it fails."""
    data = path.read_bytes()
    made = made or format_named(file_kind(path.name).format)
    piece = Slice(path.name, Slicing.FILE, 0, len(data), len(data), "1")
    how = {"compression": compression, "columns": None, "partition": ()}
    found = []
    try:
        chunks = made.read(io.BytesIO(data), piece, **how)
        for chunk in chunks:
            found += zip(chunk.positions(), chunk.rows(0, len(chunk)), strict=True)
            found += [(bad.position.at, None) for bad in chunk.bad]
    except ShardFailedError as error:
        return str(error)
    reader = made.second_reader()
    assert isinstance(reader, RecordReader)
    records = reader.records(io.BytesIO(data), piece, wanted=None, compression=compression)
    assert [at for some in records for at, _ in some] == sorted(at for at, _ in found)
    return [row for _, row in sorted(found, key=lambda item: item[0])]


def parsed(path):
    """What the standard library makes of a file: strictly, as the rules of rows say."""

    def unique(pairs):
        assert len(dict(pairs)) == len(pairs)
        return dict(pairs)

    def refused(name):
        raise ValueError(name)

    text = path.read_bytes().decode().removeprefix("\ufeff")
    return json.loads(text, object_pairs_hook=unique, parse_constant=refused)


def rows_of(value):
    """A row for each object, None for another value."""
    values = value if isinstance(value, list) else [value]
    return [each if isinstance(each, dict) else None for each in values]


JSON_PACKAGES = ["boto3", "cfnlint", "jsonschema_specifications", "openapi_spec_validator", "ray"]
HOSTILE_JSON = files_of("JSONTestSuite", "test_parsing/*", "test_transform/*")


@pytest.mark.parametrize("package", JSON_PACKAGES)
def test_documents_of_packages_are_rows_as_the_standard_library_reads_them(package):
    """Indented, of many lines, with keys in any order: none of them was written for us."""
    paths = shipped(package, "*.json")[:300]

    assert paths
    for path in paths:
        assert repr(read(path)) == repr(rows_of(parsed(path))), path


@pytest.mark.parametrize("path", HOSTILE_JSON or shipped("ray", "*.json")[:1], ids=lambda p: p.name)
def test_json_that_breaks_parsers_is_rows_or_refused(path):
    """What a strict parser takes comes out as it was; what it refuses is never a file of good rows."""
    found = read(path)
    try:
        want = rows_of(parsed(path))
    except (ValueError, AssertionError, RecursionError):
        assert isinstance(found, str) or None in found, found
    else:
        assert repr(found) == repr(want)


ARROW = "arrow-testing/data/arrow-ipc-"
FEATHERS = shipped("pyarrow", "*version.2*.feather")
GOLDEN = [*FEATHERS, *files_of(f"{ARROW}stream/integration", "*/*.stream", "*/*.arrow_file")]
FUZZED = [*FEATHERS, *files_of(".", f"{ARROW}file/c*", f"{ARROW}stream/c*")]
WHOLE = Sharding("files", 1)
REFUSED = ("duplicate_fieldnames", "interval.")
"""Names that stand twice, and types that pyarrow has no values for."""


def tables_of(path, sharding=WHOLE):
    data = path.read_bytes()
    made, how = format_named("arrow"), {"compression": None, "columns": None, "partition": ()}
    cuts = made.cut(
        len(data), compression=None, sharding=sharding, limit=None, opened=lambda: io.BytesIO(data)
    )
    return [
        chunk
        for cut in cuts
        for chunk in made.read(
            io.BytesIO(data),
            Slice(path.name, cut.slicing, cut.start, cut.stop, len(data), "1", cut.rows),
            **how,
        )
    ]


@pytest.mark.parametrize("sharding", [WHOLE, Sharding("rows", 3), Sharding("bytes", 1)], ids=str)
@pytest.mark.parametrize("path", GOLDEN, ids=lambda p: f"{p.parent.name}/{p.name}")
def test_files_that_all_of_arrows_libraries_agree_on_are_read_as_they_are(path, sharding):
    """Of each version since 0.14, in both orders of bytes, with dictionaries shared and compressed."""
    data = path.read_bytes()
    new = pa.ipc.open_file if data.startswith(b"ARROW1") else pa.ipc.open_stream
    with new(io.BytesIO(data)) as reader:
        want = reader.read_all()
    if any(name in path.name for name in REFUSED) or len(set(want.column_names)) < want.num_columns:
        with pytest.raises(ShardFailedError):
            tables_of(path)
        return
    chunks = tables_of(path, sharding)
    good = {number for chunk in chunks for number in chunk.positions()}
    bad = {row.position.at for chunk in chunks for row in chunk.bad}
    assert good | bad == set(range(want.num_rows))
    for number in bad:
        with pytest.raises(pa.ArrowInvalid):
            pa.concat_tables([want.slice(number, 1)]).combine_chunks().validate(full=True)
    if not bad and chunks:
        assert pa.concat_tables([chunk.content for chunk in chunks]).equals(want)


@pytest.mark.parametrize("path", FUZZED, ids=lambda p: p.name)
def test_files_that_broke_arrow_are_read_or_refused(path):
    """None of them ends the process, or is taken for something that it is not."""

    def read_all():
        for sharding in (WHOLE, Sharding("rows", 3)):
            with contextlib.suppress(ShardFailedError):
                for chunk in tables_of(path, sharding):
                    chunk.content.to_string()

    assert not in_child(read_all)


PARQUET = [
    *shipped("pyarrow", "*.parquet"),
    *files_of(
        "parquet-testing", "data/[!l]*.parquet*", "data/l[!a]*.parquet*"
    ),  # not 2 GiB of text
    *files_of("parquet-testing", "bad_data/*.parquet", "data/*/*.parquet*"),
    *files_of("parquet-testing", "shredded_variant/*.parquet"),
    *files_of("arrow-testing/data/parquet", "*.parquet", "*/*c*"),
]


@pytest.mark.parametrize("path", PARQUET, ids=lambda p: p.name)
def test_parquet_of_other_writers_is_read_as_it_is_or_refused(path):
    """No file ends the process; what is read has the values that pyarrow reads, and DuckDB's count."""
    assert not in_child(lambda: holds_parquet(path))


def holds_parquet(path):
    try:
        found = [parquet_tables(path, Sharding(unit, 1)) for unit in ("files", "row_groups")]
    except ShardFailedError:
        return
    try:
        want = pq.read_table(path, coerce_int96_timestamp_unit="us")
    except (OSError, pa.ArrowException):  # it may look at less: a table of no rows has no pages
        assert not any(chunk.content.num_rows for chunks in found for chunk in chunks)
        return
    for chunks in found:
        good = [number for chunk in chunks for number in chunk.positions()]
        bad = [row.position.at for chunk in chunks for row in chunk.bad]
        assert sorted(good + bad) == list(range(want.num_rows))
        if chunks and not bad:
            assert exact.rows(pa.concat_tables([c.content for c in chunks])) == exact.rows(want)
    if "fuzz" in str(path):  # DuckDB takes a count of the footer for granted
        return
    with contextlib.suppress(duckdb.Error):
        counted = duckdb.execute("SELECT count(*) FROM read_parquet(?)", [str(path)]).fetchone()
        assert counted == (want.num_rows,)


def parquet_tables(path, sharding):
    data, made = path.read_bytes(), format_named("parquet")
    how = {"compression": None}
    cuts = made.cut(
        len(data), sharding=sharding, limit=None, opened=lambda: io.BytesIO(data), **how
    )
    pieces = [
        Slice(path.name, cut.slicing, cut.start, cut.stop, len(data), "1", cut.rows) for cut in cuts
    ]
    how |= {"columns": None, "partition": ()}
    return [chunk for piece in pieces for chunk in made.read(io.BytesIO(data), piece, **how)]


OTHERWISE = {"all-empty.csv", "location_coordinates.csv"}
"""Empty lines are neither a header nor a row here; and another phone number stands in the JSON."""
FOUND = files_of(".", "csv-spectrum/csvs/*.csv", "csv-test-data/csv/*.csv")
CSV = [path for path in FOUND if path.name not in OTHERWISE]
PYTHONS = shipped("numpy", "*.csv")[:3]


@pytest.mark.parametrize("path", [*PYTHONS, *CSV], ids=lambda p: p.name)
def test_csv_that_libraries_test_themselves_with_is_read_as_they_say(path):
    """Some have beside them, as JSON, what is in them; of the others, Python's strict reader says it."""
    found, said = read(path, Csv(nulls=[])), path.parents[1] / "json" / f"{path.stem}.json"
    if said.exists():
        want = json.loads(said.read_text())
        want = want if isinstance(want, list) else [want]
        if want and isinstance(want[0], list):
            want = [dict(zip(want[0], each, strict=True)) for each in want[1:]]
        assert found == want
    elif not isinstance(found, str):
        assert [row for row in found if row] == by_python(path)


def by_python(path):
    """The rows with as many fields as the first line, as far as Python's reader comes."""
    rows = []
    with contextlib.suppress(csv.Error), path.open(newline="") as file:
        lines = csv.reader(file, strict=True)
        names = next(lines, [])
        rows += [dict(zip(names, line, strict=True)) for line in lines if len(line) == len(names)]
    return rows


def test_a_tar_of_a_package_has_each_member_in_a_row_or_in_a_dead_letter():
    """Of time zones, which are files without an extension."""
    for path in shipped("dateutil", "*.tar.gz"):
        with tarfile.open(path) as file:
            names = [m.name for m in file if not m.isdir()]
        keys = [key for key, _ in groupby(name.partition(".")[0] for name in names)]
        found = read(path, compression="gz")

        assert len(found) == len(keys) > 500
        assert {row["__key__"] for row in found if row} <= set(keys)
