"""Users' code that fails, for the tests of what is said of it."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from pathlib import Path


def called(path):
    """Note a call, in a file for each process."""
    with open(f"{path}-{os.getpid()}", "a") as file:
        file.write("x")


def calls(folder):
    """How often each process called."""
    return sorted(len(file.read_text()) for file in Path(folder).glob("calls-*"))


def misspelt(rows, path):
    """Code that fails for every row, in the same way, whatever it is given."""
    called(path)
    if isinstance(rows, list):
        rows = rows[0]
    return rows["txt"]


async def misspelt_later(rows, path):
    return misspelt(rows, path)


class MisspeltModel:
    def __init__(self, path):
        self.path = path

    def __call__(self, rows):
        return misspelt(rows, self.path)


def strict(rows, path=None):
    """Fails for rows marked bad, each in its own way."""
    if path:
        called(path)
    for row in rows:
        if row.get("bad") == "seldom":
            raise TypeError("seldom")
        if row.get("bad"):
            raise ValueError(f"row {row['id']} is bad")
    return rows


def fails_once_there_is(rows, path):
    """Mended by the file at *path*."""
    if not Path(path).exists():
        raise ValueError("not yet")
    return rows


def tells_its_secret(rows, api_key):
    """As libraries do that quote what they were given; also what they have of the environment."""
    if any(row.get("bad") for row in rows):
        raise PermissionError(f"401 for {api_key} and {os.environ.get('THE_TOKEN', '')}")
    return rows


async def tells_later(rows, api_key):
    await asyncio.sleep(0)
    return tells_its_secret(rows, api_key)


class TellsWhenBuilt:
    def __init__(self, api_key):
        raise PermissionError(f"401 for {api_key}")

    def __call__(self, rows):
        return rows


def hostile(rows):
    """Quotes the row that it fails for, as libraries do."""
    for row in rows:
        if row.get("bad"):
            raise ValueError(f"cannot read {row['text'][:200]}")
    return rows


def fails_in_kinds(rows):
    """Fails for each row, in one of five ways."""
    for row in rows:
        kinds = (KeyError, ValueError, TypeError, IndexError, OverflowError)
        raise kinds[row["id"] % len(kinds)]("nope")


def deadly_once(rows, folder, at):
    """Kills its process, driver and all, at each of the rows *at*, once.

    Only after a commit, which comes with the 32nd part; fails for rows marked bad.
    """
    for row in rows:
        mark = Path(folder) / f"died-at-{row['id']}"
        if row["id"] in at and not mark.exists():
            while not list(Path(folder).glob("out/_checkpoint/sentinels/*")):
                time.sleep(0.01)
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        if row.get("bad"):
            raise ValueError(f"row {row['id']} is bad")
    return rows
