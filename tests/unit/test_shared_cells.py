"""What a stage is called with is its own, down to the last list: no other call, and no other cell, is changed with it."""

from __future__ import annotations

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from batchrunner.execute.stage_blocks import pack, unpack
from batchrunner.worker.batch import InputTypes
from batchrunner.worker.block_inputs import inputs_of
from batchrunner.worker.blocks import Block, Part, own

LISTS = [[1, 2], [3], [], [4, 5, 6]]
NESTED = [[{"x": [1]}], [{"x": [2, 3]}], [], [{"x": []}]]


def objects(values):
    return np.fromiter(values, object, count=len(values))


def masked():
    return np.ma.MaskedArray(objects([[*one] for one in LISTS]), mask=[False, False, True, False])


def frame(**columns):
    return pd.DataFrame({name: objects(values) for name, values in columns.items()})


def frozen(n):
    array = np.arange(3) + n
    array.flags.writeable = False
    return array


RETURNED = {
    "rows": lambda: [
        {"li": [*a], "n": [{"x": [*d["x"]]} for d in b]} for a, b in zip(LISTS, NESTED, strict=True)
    ],
    "rows of arrays": lambda: [{"a": np.arange(3) + n, "o": [np.ones(2)]} for n in range(4)],
    "rows of frozen arrays": lambda: [{"a": frozen(n), "id": n} for n in range(4)],
    "rows of tuples": lambda: [{"t": ([n], [n + 1])} for n in range(4)],
    "lists": lambda: {"li": [[*one] for one in LISTS], "w": [*"abcd"]},
    "arrays": lambda: {"f": np.arange(4.0), "m": np.ones((4, 2)), "w": np.array([*"abcd"])},
    "arrays of objects": lambda: {"li": objects([[*one] for one in LISTS]), "id": np.arange(4)},
    "arrays of arrays": lambda: {"a": objects([np.arange(len(one)) for one in LISTS])},
    "masked objects": lambda: {"li": masked()},
    "columns of pandas": lambda: {"li": frame(li=[[*one] for one in LISTS])["li"]},
    "a frame": lambda: frame(
        id=[*range(4)], li=[[*one] for one in LISTS], n=[[{"x": [n]}] for n in range(4)]
    ),
    "a frame of arrays": lambda: frame(a=[np.arange(2) for _ in range(4)], w=[*"abcd"]),
    "polars": lambda: pl.DataFrame({"li": LISTS, "n": NESTED}),
    "Arrow": lambda: pa.table({"li": LISTS, "n": NESTED}),
}


def told(value):
    """All that *value* holds, with its types, as it is now."""
    if isinstance(value, pd.DataFrame):
        return {name: (str(c.dtype), told([*c])) for name, c in value.items()}
    if isinstance(value, np.ndarray):
        return str(value.dtype), told(value.tolist())
    if isinstance(value, dict):
        return {name: told(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return type(value), [told(one) for one in value]
    return type(value), str(value)


def spoil(value):
    """Change *value* in place, the innermost first."""
    if isinstance(value, pd.DataFrame):
        for name in value.columns:
            spoil([*value[name]])
            value[name] = None
    elif isinstance(value, np.ndarray):
        if value.dtype == object:
            spoil([*np.asarray(value)])
        value[:] = value[::-1].copy() if value.dtype == object else 0
    elif isinstance(value, dict):
        spoil([*value.values()])
        value["spoilt"] = True
    elif isinstance(value, list | tuple):
        for one in value:
            spoil(one)
        if isinstance(value, list):
            value.append("spoilt")


def given(block, batch_format):
    return [one.argument for one in inputs_of(block, batch_format)]


@pytest.mark.parametrize("on_ray", [False, True], ids=["local", "ray"])
@pytest.mark.parametrize("batch_format", ["rows", "numpy", "pandas", "pyarrow"])
@pytest.mark.parametrize("returned", RETURNED)
def test_a_call_that_is_made_again_gets_what_it_got_first(returned, batch_format, on_ray):
    """Whatever the first did with it before it failed: the output would be wrong, without a word."""
    block = Block((Part.of(RETURNED[returned](), InputTypes()),))
    block = unpack(pack(block), 0, 4) if on_ray else block
    first = given(block, batch_format)
    before = told(first)

    spoil(first)

    assert told(given(block, batch_format)) == before


def spread():
    """One list in two rows of each form, as a fan-out makes it."""
    twice = [one for one in [[1, 2], [3]] for _ in range(2)]
    arrays = [one for one in (np.arange(2), np.arange(1)) for _ in range(2)]
    return {
        "rows": [{"li": one, "a": array} for one, array in zip(twice, arrays, strict=True)],
        "one row twice": [{"li": [1, 2]}] * 4,
        "lists": {"li": twice},
        "arrays": {"li": np.repeat(objects([[1, 2], [3]]), 2), "a": objects(arrays)},
        "a frame": frame(li=twice, a=arrays),
    }


@pytest.mark.parametrize("on_ray", [False, True], ids=["local", "ray"])
@pytest.mark.parametrize("batch_format", ["rows", "numpy", "pandas"])
@pytest.mark.parametrize("returned", spread())
def test_rows_share_no_cell(returned, batch_format, on_ray):
    """A row that the next stage changes would change others, which no one asked for."""
    block = Block((Part.of(spread()[returned], InputTypes()),))
    block = unpack(pack(block), 0, 4) if on_ray else block
    [batch] = given(block, batch_format)
    rows = batch if batch_format == "rows" else [*zip(*map(batch.get, batch), strict=True)]
    before = told(rows[1:])

    spoil(rows[0])

    assert told(rows[1:]) == before


def test_a_frame_of_polars_that_is_filled_again_keeps_what_was_copied():
    """A generator may yield it once more, as any buffer."""
    buffer = pl.DataFrame({"id": [0, 1]})
    pieces = []
    for n in range(3):
        buffer[0, "id"] = n
        pieces.append(own(buffer))

    assert [piece["id"].to_list() for piece in pieces] == [[0, 1], [1, 1], [2, 1]]
