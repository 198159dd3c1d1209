"""W6's work, the same code for every contestant: prepare on a CPU, run a model, finish on a CPU.

Nothing computes: it sleeps, so that two cores can be as many CPUs as it takes, and an accelerator.
Batches are dicts of numpy arrays, Ray Data's own default.
"""

from __future__ import annotations

import os
import struct
import time
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

PREPARE, MODEL, FINISH = 0.010, 0.002, 0.0002
"""Seconds a row."""

LOAD, BATCH = 2.0, 64

_CALL = struct.Struct("<ddq")


def prepare(batch: dict[str, Any], *, floats: int = 0) -> dict[str, Any]:
    """Add `n`, the length of the text, and, if asked, a tensor of *floats* float32 for each row."""
    import numpy as np

    time.sleep(PREPARE * len(batch["text"]))
    batch["n"] = np.array([len(text) for text in batch["text"]], dtype=np.int32)
    if floats:
        batch["tensor"] = np.repeat(batch["n"].astype(np.float32)[:, None], floats, axis=1)
    return batch


class Model:
    """Takes `LOAD` seconds to build; notes the begin, the end and the rows of each call in *log*."""

    def __init__(self, log: str) -> None:
        time.sleep(LOAD)
        self._log = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        began, rows = time.time(), len(batch["text"])
        time.sleep(MODEL * rows)
        tensor = batch.pop("tensor", None)
        if tensor is not None:
            batch["n"] = tensor[:, -1].astype("int32")
        os.write(self._log, _CALL.pack(began, time.time(), rows))
        return batch


def finish(batch: dict[str, Any]) -> dict[str, Any]:
    """Return the batch, a while later."""
    time.sleep(FINISH * len(batch["text"]))
    return batch


@dataclass(frozen=True, slots=True)
class Calls:
    """What the log of one model says.

    Attributes:
        busy: Share of the time from the begin of its first call to the end of its last.
        rows: Of all calls.
        full: Share of the calls that had `BATCH` rows.
        longest_wait: Between two calls, in seconds.
    """

    busy: float
    rows: int
    full: float
    longest_wait: float

    @classmethod
    def of(cls, log: Path) -> Calls:
        calls = sorted(_CALL.iter_unpack(log.read_bytes()))
        waits = [after[0] - before[1] for before, after in pairwise(calls)]
        return cls(
            busy=_seconds(calls) / (calls[-1][1] - calls[0][0]),
            rows=sum(rows for *_, rows in calls),
            full=sum(rows == BATCH for *_, rows in calls) / len(calls),
            longest_wait=max(waits, default=0.0),
        )


def _seconds(calls: Iterable[tuple[float, float, int]]) -> float:
    return sum(end - begin for begin, end, _ in calls)
