"""Every value, in every batch format, to every sink: as it was, or a dead letter that names its column.

The files are made by pyarrow, pandas, polars, duckdb and fastparquet, and compared by `exact`, which
shares no code with the product. The capability changes nothing, so whatever differs was altered.
"""

from __future__ import annotations

import json
from functools import cache
from itertools import islice
from pathlib import Path

import fastparquet
import pandas as pd
import pyarrow.parquet as pq
import pytest

import corpus
import exact
from batchrunner import BatchRunner
from builders import a_spec, parts
from exact import REFUSED

FORMATS = ("rows", "numpy", "pandas", "pyarrow")
ONE_QUICKLY = [
    "pandas",
    *(pytest.param(f, marks=pytest.mark.sweep) for f in FORMATS if f != "pandas"),
]
"""Each of them over the whole corpus; the one that alters most by itself in `make test`."""
NOT_READ = {"fastparquet-int96-finer": {0}}
"""Rows with an instant of INT96 that is none of whole microseconds, refused when they are read."""


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return corpus.write(tmp_path_factory.mktemp("corpus"))


@cache
def read(path):
    """Read as Spark means it: INT96 in microseconds."""
    return pq.ParquetFile(path, coerce_int96_timestamp_unit="us").read()


def identity(batch):
    return batch


def run(folder, source, sink, *, capability=identity, **execution):
    """Run over *source*; return each shard's part, and the dead letters by file and row."""
    spec = a_spec(
        folder,
        capability={"target": "in:memory", "version": "1"},
        source={"uri": str(source), "partitioning": "none"},
        sink={"uri": str(folder / "out"), "format": sink},
        execution={"engine": "local", **execution},
        errors={"max_row_errors": 1.0, "retry": {"max_attempts": 1}},
    )
    report = BatchRunner(spec, capability=capability).run()
    assert report.ok, report.failures
    return parts(folder / "out"), dead_letters(folder / "out/_checkpoint/errors")


def dead_letters(folder):
    lines = [line for path in folder.glob("*") for line in path.read_text().splitlines()]
    found = map(json.loads, lines)
    return {(Path(each["source"]).name, each["at"]): each["message"] for each in found}


def one_by_one(tmp_path, files, **options):
    """Run each file into a Parquet sink of its own; yield it with its part and its dead letters."""
    for path in files:
        made, dead = run(tmp_path / path.stem, path, "parquet", **options)
        yield path, made[0], {at: message for (_, at), message in dead.items()}


@pytest.mark.parametrize("batch_format", ONE_QUICKLY)
def test_parquet_to_parquet_is_exact_in_value_and_type(tmp_path, files, batch_format):
    """A column that is passed on is the column that was there, whatever wrote the file."""
    for path, part, dead in one_by_one(tmp_path, files, batch_format=batch_format):
        source, written = read(path), pq.read_table(part)
        kept = [row for at, row in enumerate(exact.rows(source)) if at not in dead]
        assert exact.rows(written) == kept, path.stem
        assert not kept or written.schema == exact.stored(source.schema), path.stem
        assert set(dead) == beyond(path, batch_format), (path.stem, dead)
        assert all(names_a_column(message, source) for message in dead.values()), dead


def beyond(path, batch_format):
    """Say which rows are to be refused, because no value of the format is what Arrow's is."""
    return exact.beyond(read(path), batch_format) | NOT_READ.get(path.stem, set())


def names_a_column(message, table):
    return any(f"column {name!r}"[:-1] in message for name in table.column_names)


@pytest.mark.parametrize("batch_format", ONE_QUICKLY)
def test_parquet_to_json_is_exact_and_the_same_in_every_format(tmp_path, files, batch_format):
    """What JSON has a word for is written by the one rule for its type; the rest is refused by name."""
    made, dead = run(tmp_path, files[0].parent, "jsonl", batch_format=batch_format)
    lines = iter([line for part in made for line in part.read_text().splitlines()])

    assert 1 < len(made) < len(files)  # a part has the rows of several files, one after another
    for path in files:
        refused = NOT_READ.get(path.stem, set())
        want = [
            REFUSED if at in refused else row for at, row in enumerate(exact.objects(read(path)))
        ]
        kept = [row for row in want if row is not REFUSED]
        letters_of_file = {at: message for (name, at), message in dead.items() if name == path.name}
        assert repr([json.loads(line) for line in islice(lines, len(kept))]) == repr(kept), (
            path.stem
        )
        assert set(letters_of_file) == {at for at, row in enumerate(want) if row is REFUSED}, (
            path.stem
        )
        assert all(names_a_value(each, read(path)) for each in letters_of_file.values())
    assert list(lines) == []


def names_a_value(message, table):
    return names_a_column(message, table) or any(
        f"the value of {n!r}" in message for n in table.column_names
    )


def picky(batch):
    """Fail for the second row of each file that has numbers."""
    if 1 in ids_of(batch):
        raise ValueError("not row 1")
    return batch


def ids_of(batch):
    if isinstance(batch, list):
        return [row.get("id") for row in batch]
    names = getattr(batch, "column_names", batch)
    column = batch["id"] if "id" in names else []
    return [getattr(each, "as_py", lambda each=each: each)() for each in column]


@pytest.mark.parametrize("batch_format", ONE_QUICKLY)
def test_neither_the_size_of_a_batch_nor_a_bad_row_alters_the_others(tmp_path, files, batch_format):
    """What decides nothing in the specification must decide nothing in the output."""
    some = [path for path in files if path.stem.startswith("arrow-") and len(path.stem) % 3 == 0]
    some += [path for path in files if path.stem.startswith(("odd-", "pandas-"))]
    (tmp_path / "in").mkdir()
    for path in some:
        (tmp_path / "in" / path.name).symlink_to(path)

    def lines(name, **options):
        made, dead = run(
            tmp_path / name, tmp_path / "in", "jsonl", batch_format=batch_format, **options
        )
        return [part.read_text().splitlines() for part in made], dead

    whole, refused = lines("1000", batch_size=1000)
    assert lines("1", batch_size=1) == (whole, refused)
    assert lines("7", batch_size=7) == (whole, refused)
    without, failed = lines("picky", batch_size=4, capability=picky)
    kept = [[line for line in part if not line.startswith('{"id":1,')] for part in whole]
    assert without == kept
    assert failed.keys() >= refused.keys()


@pytest.mark.parametrize("batch_format", FORMATS)
def test_rows_without_columns_are_rows(tmp_path, batch_format):
    """Arrow loses them where tables are joined or pickled, and a dict of no columns has none."""
    fastparquet.write(str(tmp_path / "n.parquet"), pd.DataFrame(index=range(3)), write_index=False)
    (part,), dead = run(
        tmp_path, tmp_path / "n.parquet", "jsonl", batch_format=batch_format, batch_size=2
    )

    refused = 3 if batch_format == "numpy" else 0
    assert part.read_text() == "{}\n" * (3 - refused)
    assert len(dead) == refused
    assert all("a row without any column" in message for message in dead.values())


NARROW = ("arrow-map", "arrow-list-float64", "arrow-timestamp-ns-UTC", "arrow-dictionary-unused")
NESTED = ("arrow-struct-uint64-null", "arrow-fixed-list", "arrow-struct-json", "odd-strict")


@pytest.mark.parametrize("batch_format", FORMATS)
@pytest.mark.parametrize("stem", [*NARROW, *NESTED, "odd-groups", "pandas-multi-index"])
def test_a_parquet_part_is_the_same_whatever_the_batches(tmp_path, files, stem, batch_format):
    """Values and types; a batch of one null row has no less of a type than the others."""
    path = files[0].parent / f"{stem}.parquet"
    source = read(path)
    for name, options in {
        "one": {"batch_size": 1},
        "seven": {"batch_size": 7},
        "picky": {"batch_size": 4, "capability": picky},
    }.items():
        made, dead = run(tmp_path / name, path, "parquet", batch_format=batch_format, **options)
        kept = [row for at, row in enumerate(exact.rows(source)) if (path.name, at) not in dead]
        written = pq.read_table(made[0])
        assert exact.rows(written) == kept
        assert written.schema == exact.stored(source.schema)
        assert len(dead) == (name == "picky" and "id" in source.column_names)


@pytest.mark.ray
@pytest.mark.usefixtures("local_ray")
@pytest.mark.parametrize(
    "batch_format",
    ["pandas", *(pytest.param(f, marks=pytest.mark.soak) for f in FORMATS if f != "pandas")],
)
def test_ray_writes_what_the_local_engine_writes(tmp_path, files, batch_format):
    """Nothing depends on the engine: not a byte, and not a refusal."""
    source = files[0].parent
    here, dead = run(tmp_path / "local", source, "jsonl", batch_format=batch_format)
    there, dead_there = run(
        tmp_path / "ray", source, "jsonl", batch_format=batch_format, engine="ray"
    )

    assert [part.read_bytes() for part in there] == [part.read_bytes() for part in here]
    assert dead_there == dead
