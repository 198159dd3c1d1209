"""What is mapped over the rows: always `n = len(text)`, in the words of each contestant.

Imports nothing heavy: batchrunner's workers import it, and time it.
"""

from __future__ import annotations

import os
import time
from typing import Any

PAUSE = "BATCHRUNNER_BENCH_PAUSE"


def add_length(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """For batchrunner's `batch_format: rows`."""
    for row in rows:
        row["n"] = len(row["text"])
    return rows


def add_length_noted(rows: list[dict[str, Any]], calls: str) -> list[dict[str, Any]]:
    """As `add_length`; the file *calls* grows by a byte with each call."""
    with open(calls, "ab") as file:  # noqa: PTH123 - imports nothing
        file.write(b".")
    return add_length(rows)


def echo(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return *rows*, those with row 10 only after as many seconds as PAUSE in the environment says.

    Not an argument: the fingerprint of a run holds those, and a resumed run has to have the same.
    """
    if any(row["id"] == 10 for row in rows):
        time.sleep(float(os.environ.get(PAUSE, "0")))
    return rows


def add_length_column(table: Any) -> Any:
    """For batchrunner's `batch_format: pyarrow`."""
    import pyarrow.compute as pc

    return table.append_column("n", pc.utf8_length(table["text"]))


def add_length_array(batch: dict[str, Any]) -> dict[str, Any]:
    """For Ray Data's default, a dict of numpy arrays; batchrunner's `batch_format: numpy`."""
    import numpy as np

    batch["n"] = np.array([len(text) for text in batch["text"]], dtype=np.int32)
    return batch


def burn(seconds: float) -> None:
    """Use so many *seconds* of this thread's CPU."""
    until = time.thread_time() + seconds
    while time.thread_time() < until:
        pass


def burn_rows(rows: list[dict[str, Any]], seconds: float) -> list[dict[str, Any]]:
    """As `add_length`, with so many *seconds* of CPU a row."""
    for row in rows:
        burn(seconds)
        row["n"] = len(row["text"])
    return rows


def burn_array(batch: dict[str, Any], seconds: float) -> dict[str, Any]:
    """As `add_length_array`, with so many *seconds* of CPU a row."""
    for _ in batch["text"]:
        burn(seconds)
    return add_length_array(batch)


class _Model:
    """Takes *load* seconds to build and *call* seconds for each batch, as a GPU would: asleep."""

    def __init__(self, load: float, call: float) -> None:
        time.sleep(load)
        self._call = call


class RowsModel(_Model):
    def __call__(self, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        time.sleep(self._call)
        return add_length(rows)


class ArrayModel(_Model):
    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        time.sleep(self._call)
        return add_length_array(batch)
