"""Blocks through Ray's object store: every value as it was, and a batch that its stage may change."""

from __future__ import annotations

import pickle
from dataclasses import replace

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from ray import cloudpickle

import corpus
import exact
from batchrunner.errors import BatchRunnerError
from batchrunner.execute.stage_blocks import pack, unpack
from batchrunner.formats.schema_error import SchemaError
from batchrunner.worker.batch import InputTypes, in_format
from batchrunner.worker.block_inputs import inputs_of
from batchrunner.worker.blocks import Block, Part
from batchrunner.worker.returned import to_rows

FORMATS = ["rows", "numpy", "pandas", "pyarrow"]


def stored(packed):
    """As Ray stores it: what can lie outside of the pickle does, and is read only."""
    buffers = []
    data = cloudpickle.dumps(packed, protocol=5, buffer_callback=buffers.append)
    return pickle.loads(data, buffers=[memoryview(bytes(b.raw())).toreadonly() for b in buffers])


def a_block(table, batch_format):
    content = table.to_pylist() if batch_format == "rows" else in_format(table, batch_format)
    return Block((Part.of(content, InputTypes((table.schema,))),))


def tables(block):
    """The rows as a stage gets them that takes tables."""
    return [one.argument for one in inputs_of(block, "pyarrow")]


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    files = corpus.write(tmp_path_factory.mktemp("corpus"))
    found = []
    for path in files:
        try:
            found.append((path.stem, pq.read_table(path)))
        except (pa.ArrowException, OSError, NotImplementedError):
            continue
    return found


@pytest.mark.parametrize("batch_format", FORMATS)
def test_every_value_comes_out_of_the_store_as_it_went_in(sources, batch_format):
    """Whole, and cut: a call gets some rows of what another one made."""
    compared = 0
    for name, table in sources:
        try:
            block = a_block(table, batch_format)
            wanted = tables(block)
        except (SchemaError, BatchRunnerError, ValueError, OverflowError, pa.ArrowException):
            continue  # no batch in this format holds it: a stage could not have made it
        there = stored(pack(block))
        for start, stop in ((0, len(block)), (1, len(block)), (0, len(block) // 2)):
            found = tables(unpack(there, start, stop))
            expected = tables(block.slice(start, stop)) if stop > start else []
            assert [t.schema for t in found] == [t.schema for t in expected], name
            assert [exact.rows(t) for t in found] == [exact.rows(t) for t in expected], name
        compared += bool(wanted)
    assert compared > len(sources) // 2


@pytest.mark.parametrize("batch_format", ["rows", "numpy", "pandas"])
def test_a_batch_out_of_the_store_can_be_changed(batch_format):
    """Ray maps what it stores for several readers; a stage may change what it is called with."""
    table = pa.table({"n": list(range(300)), "f": [0.5] * 300})
    [given] = inputs_of(unpack(stored(pack(a_block(table, batch_format))), 10, 200), batch_format)
    batch = given.argument

    if batch_format == "rows":
        batch[0]["n"] = -1
        assert batch[1]["n"] == 11
    elif batch_format == "numpy":
        batch["n"][0] = -1
        assert batch["n"][:2].tolist() == [-1, 11]
    else:
        batch.iloc[0, 0] = -1
        assert batch["n"].tolist()[:2] == [-1, 11]


def test_arrays_in_rows_can_be_changed_too():
    """As they could where they were made."""
    rows = [{"id": n, "a": np.full(1000, n)} for n in range(200)]
    block = unpack(stored(pack(Block((Part.of(rows, InputTypes()),)))), 150, 152)
    [given] = inputs_of(block, "rows")

    given.argument[0]["a"][0] = 7

    assert given.argument[0]["a"][:2].tolist() == [7, 150]
    assert len(given.argument) == 2


def test_few_rows_of_a_block_cost_few_rows():
    """A call with 128 rows of 10,000 unpickles these: what else there is may as well be no pickle."""
    rows = [{"id": n} for n in range(10_000)]
    packed = pack(Block((Part.of(rows, InputTypes()),)))
    others = tuple(
        run if number in {1, 2} else replace(run, data=b"") for number, run in enumerate(packed)
    )

    assert [row["id"] for row in unpack(others, 64, 192).parts[0].content] == list(range(64, 192))
    with pytest.raises(EOFError):
        unpack(others, 63, 192)


WORDS = [["a", None, "b"], [["a"], [], None], [{"x": "a"}, {"x": None}, None]]


@pytest.mark.parametrize("batch_format", FORMATS)
def test_words_of_polars_go_to_a_stage_of_any_format(batch_format):
    """Arrow could not convert the views that polars has for words, inside of categories and lists."""
    columns = {
        "categories": pl.Series(WORDS[0], dtype=pl.Categorical),
        "choice": pl.Series(WORDS[0], dtype=pl.Enum(["b", "a"])),
        "lists": pl.Series(WORDS[1]),
        "objects": pl.Series(WORDS[2], dtype=pl.Struct({"x": pl.String})),
    }
    block = Block((Part.of(pl.DataFrame(columns), InputTypes()),))

    [given] = inputs_of(unpack(stored(pack(block)), 0, 3), batch_format)
    [types] = given.types

    rows = to_rows(Part.of(given.argument, types).content, types)
    values = {
        name: [list(v) if name == "lists" and v is not None else v for v in column]
        for name, column in ((name, [row[name] for row in rows]) for name in columns)
    }
    assert values == dict(zip(columns, [WORDS[0], *WORDS], strict=True))
