"""Every value over every border between two batch formats: as it was, or a dead letter of the stage that refuses it.

The files are those of `corpus`, compared by `exact`: neither shares code with the product.
"""

from __future__ import annotations

import json
from itertools import pairwise, product

import pyarrow.parquet as pq
import pytest
from test_value_corpus import FORMATS, NOT_READ, read

import corpus
import exact
from batchrunner import BatchRunner
from builders import a_spec, parts, rows_out, write_jsonl

EVERY_BORDER = (
    *("rows", "pyarrow", "rows", "pandas", "rows", "numpy", "pyarrow", "pandas", "pyarrow"),
    *("numpy", "pandas", "numpy", "rows"),
)
WITHOUT_LOSS = ("pandas", "pyarrow", "pandas")
"""These two hold all that Arrow holds."""
STEP = 7
CHAINS = (EVERY_BORDER, WITHOUT_LOSS)
OVER_EVERY_FILE = [
    *((chain, 0) for chain in CHAINS),
    *(
        pytest.param(chain, first, marks=pytest.mark.sweep)
        for chain, first in product(CHAINS, range(1, STEP))
    ),
    *(
        pytest.param(pair, first, marks=pytest.mark.soak)
        for pair, first in product(product(FORMATS, FORMATS), range(STEP))
    ),
]
"""Each over every seventh file, since each file is a run. A pair finds what the chain has found, and says where."""


def test_the_chain_of_this_test_has_every_border():
    """And so does a change of one of them."""
    assert set(pairwise(EVERY_BORDER)) == {(a, b) for a, b in product(FORMATS, FORMATS) if a != b}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return corpus.write(tmp_path_factory.mktemp("corpus"))


def run(folder, source, formats, *, sink="parquet", batch_size=3):
    stages = [
        {
            "target": "capabilities:echo",
            "name": f"s{n}",
            "batch_format": one,
            "version": "1",
            "batch_size": batch_size,
        }
        for n, one in enumerate(formats)
    ]
    spec = a_spec(
        folder,
        capability=stages,
        source={"uri": str(source), "partitioning": "none"},
        sink={"uri": str(folder / "out"), "format": sink},
        errors={"max_row_errors": 1.0, "retry": {"max_attempts": 1}},
    )
    assert BatchRunner(spec).run().ok
    found = (folder / "out/_checkpoint/errors").glob("*")
    lines = [json.loads(line) for path in found for line in path.read_text().splitlines()]
    return {line["at"]: line for line in lines}


@pytest.mark.parametrize(("formats", "first"), OVER_EVERY_FILE)
def test_parquet_through_stages_is_exact_in_value_and_type(tmp_path, files, formats, first):
    """A column that all stages pass on is the column that was there."""
    for path in files[first::STEP]:
        dead = run(tmp_path / path.stem, path, formats)
        source, written = read(path), pq.read_table(parts(tmp_path / path.stem / "out")[0])
        beyond = set().union(*(exact.beyond(source, one) for one in formats))
        assert set(dead) == beyond | NOT_READ.get(path.stem, set()), (path.stem, dead)
        assert exact.rows(written) == [
            r for at, r in enumerate(exact.rows(source)) if at not in dead
        ], path.stem
        assert len(dead) == source.num_rows or written.schema == exact.stored(source.schema), (
            path.stem
        )


NULL_OR_ABSENT = [{"id": 0, "b": None}, {"id": 1, "b": "x"}, {"id": 2}, {"id": 3, "b": "y"}]
"""Two batches, between which only what null means differs."""

RAGGED = [
    {"id": 0, "a": 1},
    {"id": 1, "a": None},
    {"id": 2},
    {"id": 3, "a": 2.5, "b": {"c": [1, None, 3]}},
    {"id": 4, "b": {}},
    {"id": 5, "b": {"c": []}},
    {"id": 6, "b": None, "s": "ä€𝄞"},
    {"id": 7, "a": 9007199254740993},
    {"id": 8, "l": [{"x": 1}, {"y": "2"}]},
    {"id": 9, "l": [], "t": True},
    {"id": 10, "only": "here"},
    {"id": 11, "a": -0.0},
]


@pytest.mark.parametrize("formats", [EVERY_BORDER, WITHOUT_LOSS, ("numpy", "rows")], ids="-".join)
def test_json_rows_of_any_shape_come_out_as_they_went_in(tmp_path, formats):
    """A key that is absent stays absent, and null stays null, whatever formats lie between."""
    rows = [*NULL_OR_ABSENT, *RAGGED]
    write_jsonl(tmp_path / "in/a.jsonl", rows)

    assert run(tmp_path, tmp_path / "in", ("rows", *formats), sink="jsonl", batch_size=100) == {}
    found = rows_out(tmp_path / "out")
    assert list(map(json.dumps, found)) == list(map(json.dumps, rows))
