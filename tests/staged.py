"""Stages for tests: each says what it was called with, if it is asked to, and fails where its rows say so.

A row says by `fails` which stage is to fail for it, and how.
"""

from __future__ import annotations

import os
import threading
import time
from collections import Counter
from pathlib import Path
from typing import ClassVar

from patience import PATIENCE


def _note(path, words):
    if path:
        with Path(path).open("a") as file:
            file.write(" ".join(map(str, words)) + "\n")


def noted(path):
    """What the calls of a stage were called with: the ids of each call."""
    lines = Path(path).read_text().splitlines() if Path(path).exists() else []
    return [[int(word) for word in line.split()] for line in lines]


ERRORS = {
    "raise": lambda: ValueError("a bad row"),
    "exit": lambda: SystemExit(3),
    "memory": lambda: MemoryError("out of memory"),
}


def _fail(rows, name):
    for row in rows:
        stage, _, how = row.get("fails", "").partition(":")
        if stage == name:
            error = ERRORS[how or "raise"]
            raise error()


def first(rows, path=""):
    """Keep the rows as they are, in new dicts."""
    _note(path, [row["id"] for row in rows])
    _fail(rows, "first")
    return [{**row, "first": len(row)} for row in rows]


def second(rows, path=""):
    """As `first`, the second stage."""
    _note(path, [row["id"] for row in rows])
    _fail(rows, "second")
    return [{**row, "second": row["id"] * 2} for row in rows]


def by_row(row, path=""):
    """Keep one row."""
    _note(path, [row["id"]])
    _fail([row], "by_row")
    return {**row, "by_row": True}


class PaidError(ValueError):
    """An answer that was cut off."""

    usage: ClassVar = {"tokens": 1}


def pays(row, path=""):
    """Say what each answer used, and which process had it; one that was cut off has cost as much."""
    _note(path, [row["id"]])
    if row.get("fails") == "pays":
        raise PaidError("cut off")
    return {**row, "pid": os.getpid(), "usage": {"tokens": 1}}


def all_pay(rows):
    """As `pays`, for a batch."""
    return [pays(row) for row in rows]


def three_of_each(row, path=""):
    """Fan each row out."""
    _note(path, [row["id"]])
    _fail([row], "three_of_each")
    return [{**row, "copy": copy} for copy in range(3)]


def fails_for_copy_1(rows):
    """Fail for one of the copies of a row that fails here."""
    _fail([row for row in rows if row["copy"] == 1], "fails_for_copy_1")
    return [{**row, "last": True} for row in rows]


def only_even(rows, path=""):
    """Keep every second row, and fail for some."""
    _note(path, [row["id"] for row in rows])
    _fail(rows, "only_even")
    return [row for row in rows if row["id"] % 2 == 0]


def backwards(rows):
    """Give the rows in the reverse order."""
    return rows[::-1]


def too_few(rows):
    """Give fewer rows than there are, if one says so."""
    return rows[1:] if any(row.get("fails") == "too_few" for row in rows) else rows


def changes_its_rows(rows):
    """Change the rows in place before it fails, as a capability may."""
    for row in rows:
        row["id"] += 1000
    _fail(rows, "changes_its_rows")
    return rows


def unwritable(rows):
    """Give a value that no JSON has, for some rows."""
    return [{**row, "value": float("nan") if row.get("fails") == "sink" else 1.0} for row in rows]


def always_fails(rows):
    """Fail for every row."""
    _note(rows[0].get("path", ""), [row["id"] for row in rows])
    raise RuntimeError("broken code")


def slow_for_the_first(rows):
    """Let later calls overtake the first one."""
    if rows[0]["id"] == 0:
        deadline = time.monotonic() + 60
        while _calls["slow"] < 2 and time.monotonic() < deadline:
            time.sleep(0.01)
    _calls["slow"] += 1
    return rows


_calls = Counter()


def memory_for(rows, most, path=""):
    """Run out of memory above *most* rows."""
    _note(path, [len(rows)])
    if len(rows) > most:
        raise MemoryError("out of memory")
    return rows


class Counts:
    """Says in which thread, and by which instance, a row was done."""

    made = 0

    def __init__(self):
        Counts.made += 1
        self.number = Counts.made

    def __call__(self, rows):
        return [{**row, "instance": self.number, "thread": threading.get_ident()} for row in rows]


def larger(batch, times):
    """Give *times* as many bytes as it gets."""
    return [{**row, "blob": b"x" * (len(row["text"]) * times)} for row in batch]


def without_blob(rows):
    """Give the size of a blob in its place."""
    return [{"id": row["id"], "size": len(row["blob"])} for row in rows]


def waits_for_a_commit(rows, after, folder):
    """Wait, from row *after* on, until a shard is committed."""
    deadline = time.monotonic() + PATIENCE
    while rows[-1]["id"] >= after and not list(Path(folder).glob("**/sentinels/**/*.json*")):
        if time.monotonic() > deadline:
            raise TimeoutError("no shard was committed")
        time.sleep(0.02)
    return rows


def stumbles(rows):
    """Fail twice for some rows, as a service does that is briefly unavailable."""
    for row in rows:
        if row.get("fails") == "stumbles" and _calls[row["id"]] < 2:
            _calls[row["id"]] += 1
            raise TimeoutError("not now")
    return rows


def numbers_its_attempts(batch):
    """Fail for some rows, each time with the number of the call that the row has had alone."""
    rows = [batch] if isinstance(batch, dict) else batch
    if len(rows) == 1:
        _calls["alone", rows[0]["id"]] += 1
    for row in rows:
        if "fails" in row:
            raise ValueError(f"attempt {_calls['alone', row['id']]}")
    return batch


together = []
"""A barrier, if a test has put one there."""


def meets(rows):
    """Wait until as many calls are under way as the barrier in `together` asks for."""
    together[0].wait()
    return rows
