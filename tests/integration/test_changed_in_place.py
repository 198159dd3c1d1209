"""Stages that change what they get, in place: only the row that a call was made with is another one by it."""

from __future__ import annotations

import numpy as np
import pytest

from batchrunner import BatchRunner
from builders import a_spec, rows_out, write_jsonl


def as_objects(batch):
    """A column of lists among Python's objects, as `str.split` makes it."""
    batch["li"] = [[*map(int, one)] for one in batch["li"]]
    return batch


def as_read(batch):
    return batch


def twice(batch):
    out = {name: np.repeat(column, 2) for name, column in batch.items()}
    out["j"] = np.arange(len(out["id"])) % 2
    return out


def scale(rows):
    """Ten times each number; fails for the row 3, once the others are changed."""
    for row in rows:
        row["li"][:] = [10 * one for one in row["li"]]
    if any(row["id"] == 3 for row in rows):
        raise ValueError("row 3")
    return rows


def scale_columns(batch):
    for cells in batch["li"]:
        cells[:] = [10 * one for one in cells]
    if 3 in np.asarray(batch["id"]):
        raise ValueError("row 3")
    return batch


def number(row):
    row["li"][0] += 100 * (row["j"] + 1)
    return row


def run(folder, stages, **execution):
    write_jsonl(folder / "in" / "a.jsonl", [{"id": n, "li": [n, n + 1]} for n in range(6)])
    wanted = [
        {"target": f"{__name__}:{function.__name__}", **fields} for function, fields in stages
    ]
    spec = a_spec(
        folder,
        capability=wanted if len(wanted) > 1 else wanted[0],
        execution={"engine": "local", **execution},
        errors={"max_row_errors": 1},
    )
    functions = [function for function, _ in stages]
    assert BatchRunner(spec, capability=functions if len(wanted) > 1 else functions[0]).run().ok
    return rows_out(folder / "out")


@pytest.mark.parametrize(
    ("first", "made"), [(as_objects, "pandas"), (as_read, "pandas"), (as_read, "numpy")]
)
@pytest.mark.parametrize(("change", "taken"), [(scale, "rows"), (scale_columns, "numpy")])
def test_a_call_that_is_made_again_does_not_see_what_the_failed_one_did(
    tmp_path, first, made, change, taken
):
    """Rows beside one that fails came out a hundred times what they were, without a word."""
    before = {"batch_format": made, "one_to_one": True}
    after = {"batch_format": taken, "one_to_one": True}

    found = run(tmp_path, [(first, before), (change, after)])

    assert found == [{"id": n, "li": [10 * n, 10 * n + 10]} for n in range(6) if n != 3]


def test_rows_made_of_one_row_do_not_share_its_lists(tmp_path):
    """`np.repeat` has one list in two rows."""
    found = run(tmp_path, [(twice, {"batch_format": "numpy"}), (number, {"mode": "row"})])

    assert found == [
        {"id": n, "li": [n + 100 * (j + 1), n + 1], "j": j} for n in range(6) for j in range(2)
    ]


def test_lists_in_columns_of_the_source_can_be_changed(tmp_path):
    """They were read only, which no page says."""
    found = run(tmp_path, [(scale_columns, {})], batch_format="numpy")

    assert found == [{"id": n, "li": [10 * n, 10 * n + 10]} for n in range(6) if n != 3]
