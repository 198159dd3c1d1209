"""What a capability returns for the rows of several shards is divided among them as it was returned."""

from __future__ import annotations

from collections import deque

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchrunner.formats.contract import RowFormat
from batchrunner.formats.registry import format_named
from batchrunner.worker.batch import InputTypes
from batchrunner.worker.dividing import RowCountError, divided
from batchrunner.worker.returned import to_bytes, to_table

IDS = list(range(7))
TEXTS = ["a", None, "c", "d", "e", None, "g"]
TABLE = pa.table({"id": IDS, "text": TEXTS})

KINDS = {
    "rows": [{"id": i, "text": t} for i, t in zip(IDS, TEXTS, strict=True)],
    "lists": {"id": IDS, "text": tuple(TEXTS)},
    "arrays": {"id": np.array(IDS), "text": np.array(TEXTS, dtype=object)},
    "matrix": {"id": np.array(IDS), "v": np.arange(14).reshape(7, 2)},
    "masked": {"id": np.ma.masked_array(np.arange(7.0), mask=[0, 1, 0, 0, 0, 1, 0])},
    "series": {"id": pd.Series(IDS, index=range(10, 17)), "text": pd.Series(TEXTS)},
    "chunked": {"id": TABLE["id"], "text": TABLE["text"].combine_chunks()},
    "polars columns": {"id": pl.Series(IDS), "text": pl.Series(TEXTS)},
    "other columns": {"id": range(7), "text": deque(TEXTS)},
    "frame": pd.DataFrame({"id": IDS, "text": TEXTS}, index=range(10, 17)),
    "arrow frame": TABLE.to_pandas(types_mapper=pd.ArrowDtype),
    "categories": pd.DataFrame({"text": pd.Categorical(TEXTS)}),
    "table": TABLE,
    "dictionary": pa.table({"text": TABLE["text"].dictionary_encode()}),
    "record batch": TABLE.to_batches()[0],
    "reader": TABLE.to_reader,
    "polars": pl.DataFrame({"id": IDS, "text": TEXTS}),
}


def returned(kind):
    value = KINDS[kind]
    return value() if callable(value) else value


def as_lines(value):
    jsonl = format_named("jsonl")
    assert isinstance(jsonl, RowFormat)
    return to_bytes(value, InputTypes(), encode=jsonl.encode)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("counts", [[7], [3, 4], [1, 5, 1], [1] * 7])
def test_each_kind_is_divided_without_a_change(kind, counts):
    """Values, types and nulls are those of the whole; each shard has its own rows, in order."""
    lines = [as_lines(piece) for [piece] in divided([returned(kind)], counts)]
    tables = [to_table(piece, InputTypes())[0] for [piece] in divided([returned(kind)], counts)]

    assert [count for _, count in lines] == counts == [table.num_rows for table in tables]
    assert b"".join(data for data, _ in lines) == as_lines(returned(kind))[0]
    whole = to_table(returned(kind), InputTypes())[0]
    rows = [row for table in tables for row in table.to_pylist()]
    assert rows == whole.to_pylist()


IN_ARROW = {
    "table": lambda batch: pa.Table.from_batches([batch]),
    "record batch": lambda batch: batch,
    "reader": lambda batch: pa.RecordBatchReader.from_batches(batch.schema, [batch]),
    "chunked rows": lambda batch: pa.chunked_array([batch.to_struct_array()]),
}


@pytest.mark.parametrize("kind", IN_ARROW)
def test_names_of_arrow_are_kept_whole(kind):
    """At any depth: pyarrow's interface for other libraries ends a name at its first NUL."""
    inner = pa.StructArray.from_arrays([pa.array([1, 2])], names=["c\0d"])
    batch = pa.RecordBatch.from_arrays([inner, pa.array(["x", "y"])], names=["a\0b", "a"])
    make, expected = IN_ARROW[kind], pa.Table.from_batches([batch])

    assert to_table(make(batch), InputTypes())[0].equals(expected)
    assert as_lines(make(batch))[0] == (
        b'{"a\\u0000b":{"c\\u0000d":1},"a":"x"}\n{"a\\u0000b":{"c\\u0000d":2},"a":"y"}\n'
    )
    shares = [to_table(piece, InputTypes())[0] for [piece] in divided([make(batch)], [1, 1])]
    assert pa.concat_tables(shares).equals(expected)


@given(data=st.data(), counts=st.lists(st.integers(1, 5), min_size=2, max_size=6))
def test_pieces_are_divided_wherever_they_end(data, counts):
    """A generator yields what it likes: a row at a time, or the rows of two shards and a half."""
    ids, pieces = iter(range(sum(counts))), []
    rest = sum(counts)
    while rest:
        size = data.draw(st.integers(1, rest))
        rest -= size
        some = [next(ids) for _ in range(size)]
        pieces.append(
            data.draw(
                st.sampled_from(
                    [[{"id": n} for n in some], {"id": np.array(some)}, pa.table({"id": some}), []]
                )
            )
        )
        if not pieces[-1]:
            pieces.append({"id": some})

    shares = divided(pieces, counts)

    tables = [[to_table(piece, InputTypes())[0] for piece in share] for share in shares]
    found = [[n for table in some for n in table["id"].to_pylist()] for some in tables]
    starts = [sum(counts[:n]) for n in range(len(counts))]
    assert found == [list(range(a, a + n)) for a, n in zip(starts, counts, strict=True)]


@pytest.mark.parametrize("counts", [[1, 1], [3, 3], [4, 4]])
@pytest.mark.parametrize("kind", ["rows", "lists", "frame", "table", "polars"])
def test_another_number_of_rows_is_never_shared_out(kind, counts):
    """Whose row is missing cannot be known: no row may go to a shard by chance."""
    with pytest.raises(RowCountError, match=f"returned 7 rows for {sum(counts)}; .*one_to_one"):
        divided([returned(kind)], counts)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (7, "returned int for a batch"),
        ("text", "returned str for a batch"),
        ({"id": "abcdefg"}, "returned str for the column 'id'"),
        ({"id": [1], "text": [1, 2]}, "differ in length"),
        (pl.DataFrame({"o": [object()]}), "holds Python objects"),
    ],
)
def test_what_is_no_batch_is_refused_in_the_same_words(wrong, message):
    """As for the rows of one shard."""
    for counts in ([1, 1], [2]):
        with pytest.raises((TypeError, ValueError), match=message):
            [to_table(p, InputTypes()) for share in divided([wrong], counts) for p in share]
