"""The work: one function of one row, of a fixed cost, that notes each of its calls.

A contestant has no part in the counting, so what is computed twice is seen for all in one way.
"""

from __future__ import annotations

import os
import struct
import time
from functools import cache

VERSION = 1
"""Of this code: a scenario changes it."""

COST = 50e-6
"""Seconds of CPU a row."""

STEP = 1_000_000
"""What one version adds to the next one's result."""


def length(row_id: int, text: str) -> int:
    """Return how long *text* is, in the way of this version.

    Raises:
        ValueError: It is the bad row.
    """
    os.write(_calls(os.getpid()), struct.pack("<q", row_id))
    until = time.thread_time() + COST
    while time.thread_time() < until:
        pass
    if text.startswith("!"):
        raise ValueError(f"row {row_id}: a text must not start with '!'")
    return len(text) + (VERSION - 1) * STEP


@cache
def _calls(process: int) -> int:
    """Return the open file that a process notes its calls in."""
    path = f"{os.environ['COMPARISON_CALLS']}/{process}"
    return os.open(path, os.O_CREAT | os.O_APPEND | os.O_WRONLY)
