"""The runs that a checkpoint has seen: the first, and one more for each `--fresh`.

Each has a record and a folder of its own. A worker of an earlier one may live on for seconds, or
wake up after days: it writes where no later run looks.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from batchrunner.storage.contract import Storage

CLEARING = "clearing.json"
"""Left by an earlier version that died while it started over: the next run starts over again."""

_RECORD = re.compile(r"run(?:-(\d{4,}))?\.json")
_FOLDERS = (
    "sentinels",
    "sentinel_index",
    "quarantine",
    "attempts",
    "errors",
    "recorded",
    "changes",
    "plan",
)


@dataclass(frozen=True, slots=True)
class Incarnations:
    """What a listing of a checkpoint's root says.

    Attributes:
        numbers: Of the runs that are remembered, ascending: the last one counts.
        is_half_cleared: An earlier version died while it started over.
    """

    numbers: tuple[int, ...]
    is_half_cleared: bool


def incarnations_in(storage: Storage) -> Incarnations:
    """Return the runs of the checkpoint at *storage*: one listing."""
    keys = [entry.key for entry in storage.list()]
    numbers = sorted(int(match[1] or 0) for match in map(_RECORD.fullmatch, keys) if match)
    return Incarnations(tuple(numbers), CLEARING in keys)


def record_key(number: int) -> str:
    """Return the key of a run's record, which claims that number for it."""
    return f"run-{number:04d}.json" if number else "run.json"


def is_record_key(key: str) -> bool:
    """Return whether *key* is that of a run's record."""
    return _RECORD.fullmatch(key) is not None


def folder(number: int) -> str:
    """Return the folder of a run's other records; "" for the root."""
    return f"run-{number:04d}" if number else ""


def remove_records(storage: Storage, number: int) -> None:
    """Remove what is stored of a run, its own record last: until then the next driver finds it again.

    What `verify --repair` moved away holds rows, and stays.
    """
    above = f"{folder(number)}/" if number else ""
    for name in _FOLDERS:
        storage.delete([entry.key for entry in storage.list(above + name)])
    storage.delete([f"{above}schema.arrow"])
    storage.delete([record_key(number)])
