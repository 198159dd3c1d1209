"""Columns in the names of folders: added to the rows of both formats, never over what they hold."""

import datetime as dt
import io
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from batchrunner.formats.jsonl_reader import read_jsonl
from batchrunner.formats.parquet_reader import read_parquet
from batchrunner.shard import Slice, Slicing

DATE = (("date", "2026-01-01"),)


def jsonl(rows, partition, *, columns=None):
    data = b"".join(json.dumps(row).encode() + b"\n" for row in rows)
    shard = Slice("x.jsonl", Slicing.FILE, 0, len(data), len(data), "")
    reading = {"compression": None, "columns": columns, "partition": partition}
    [chunk] = read_jsonl(io.BytesIO(data), shard, **reading)
    return chunk


def parquet(table, partition, *, columns=None):
    if isinstance(table, list):
        names = dict.fromkeys(name for row in table for name in row)
        table = pa.table({name: [row.get(name) for row in table] for name in names})
    file = io.BytesIO()
    pq.write_table(table, file)
    shard = Slice("x.parquet", Slicing.FILE, 0, 0, len(file.getvalue()), "")
    [chunk] = read_parquet(file, shard, columns=columns, partition=partition)
    return chunk


both = pytest.mark.parametrize("read", [jsonl, parquet])


def rows(chunk):
    found = chunk.rows(0, len(chunk))
    assert found == chunk.reread(0, len(chunk)) == chunk.table(0, len(chunk)).to_pylist()
    assert len(found) == len(chunk.positions())
    return found


@both
def test_the_columns_of_the_folders_stand_behind_the_others_as_text(read):
    """As Ray Data gives them; without them a table that moves over loses them in silence."""
    chunk = read([{"n": 1}, {"n": 2}], (("date", "2026-01-01"), ("lang", None)))

    assert rows(chunk) == [{"n": n, "date": "2026-01-01", "lang": None} for n in (1, 2)]
    assert chunk.table(0, 2).column_names == ["n", "date", "lang"]
    assert chunk.table(0, 2).schema.field("date").type == pa.string()


@both
def test_columns_of_the_folders_can_be_asked_for_and_left_out(read):
    """By `source.columns`, as those of the file."""
    table = [{"n": 1, "x": 2}]

    assert rows(read(table, DATE, columns=("n", "date"))) == [{"n": 1, "date": "2026-01-01"}]
    assert rows(read(table, DATE, columns=("n",))) == [{"n": 1}]
    assert rows(read(table, DATE, columns=("date",))) == [{"date": "2026-01-01"}]


@both
@pytest.mark.parametrize(
    ("own", "text"), [("a", "a"), (7, "07"), (1.5, "1.50"), (True, "true"), (-1, "-1")]
)
def test_a_value_of_the_file_stays_what_it_is_when_the_folder_says_the_same(read, own, text):
    """Its type is the file's; the folder has only text."""
    assert rows(read([{"k": own, "n": 1}], (("k", text),))) == [{"k": own, "n": 1}]


@both
@pytest.mark.parametrize(
    ("own", "text"),
    [("a", "b"), (7, "8"), (7, "x"), (True, "x"), ([1], "1"), (0, None), ("", None)],
)
def test_a_row_that_contradicts_its_folder_is_a_bad_row(read, own, text):
    """Either may be wrong: taking one of them in silence would be a guess. Its neighbours stay."""
    chunk = read([{"n": 0}, {"k": own, "n": 1}, {"n": 2}], (("k", text),))

    assert [row["n"] for row in rows(chunk)] == ([0, 2] if len(chunk) else [])
    bad = next(b for b in chunk.bad if json.loads(b.position.raw)["n"] == 1)
    assert "column 'k' is " in bad.reason
    assert f"the folder of the file says {text!r}" in bad.reason
    positions = [b.position.at for b in chunk.bad] + list(chunk.positions())
    assert len(set(positions)) == 3


@both
def test_a_missing_value_is_the_folders(read):
    """A column may be there in some rows only."""
    assert rows(read([{"k": "7", "n": 1}, {"k": None, "n": 2}], (("k", "7"),))) == [
        {"k": "7", "n": 1},
        {"k": "7", "n": 2},
    ]


def test_typed_columns_of_parquet_are_held_against_the_text_of_the_folder():
    """Dates, and words of a dictionary."""
    day = dt.date(2026, 1, 1)
    table = pa.table(
        {
            "date": [day, None, day],
            "word": pa.array(["a", "a", None]).dictionary_encode(),
            "none": pa.nulls(3),
        }
    )

    chunk = parquet(table, (*DATE, ("word", "a"), ("none", "x")))

    assert rows(chunk) == [{"date": day, "word": "a", "none": "x"}] * 3
    assert chunk.content.schema.field("date").type == pa.date32()
    assert parquet(table, (("word", "b"),)).positions() == [2]
