"""A generator may fill one buffer again and again: each piece counts as it was when it was yielded."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from batchrunner import BatchRunner
from builders import a_spec, rows_out, write_jsonl


def one_list(rows):
    buffer = []
    for row in rows:
        buffer.append({"id": row["id"]})
        if len(buffer) == 4:
            yield buffer
            buffer.clear()
    if buffer:
        yield buffer


def one_row(rows):
    buffer = [{"id": None, "nested": []}]
    for row in rows:
        buffer[0]["id"] = row["id"]
        buffer[0]["nested"][:] = [row["id"]]
        yield buffer


async def later(rows):
    for piece in one_list(rows):
        yield piece


def one_array(batch):
    buffer = np.zeros(4, dtype=np.int64)
    ids = np.asarray(batch["id"])
    for start in range(0, len(ids), 4):
        size = len(ids[start : start + 4])
        buffer[:size] = ids[start : start + 4]
        yield {"id": buffer[:size]}


def one_frame(batch):
    buffer = pd.DataFrame({"id": [0]})
    for number in batch["id"]:
        buffer.loc[0, "id"] = int(number)
        yield buffer


def same(rows):
    return rows


CASES = [
    (one_list, "rows"),
    (one_row, "rows"),
    (later, "rows"),
    (one_array, "numpy"),
    (one_frame, "pandas"),
]


@pytest.mark.parametrize("in_stages", [False, True], ids=["alone", "stages"])
@pytest.mark.parametrize(("function", "batch_format"), CASES)
def test_a_generator_may_fill_its_buffer_again(tmp_path, function, batch_format, in_stages):
    """Otherwise rows are lost or doubled without a word."""
    write_jsonl(tmp_path / "in" / "a.jsonl", [{"id": n} for n in range(50)])
    execution = {"engine": "local", "batch_size": 16, "batch_format": batch_format}
    spec = a_spec(tmp_path, execution=execution)

    BatchRunner(spec, capability=[function, same] if in_stages else function).run()

    assert [row["id"] for row in rows_out(tmp_path / "out")] == list(range(50))
