"""Finds the objects in a sink, and in folders below it, that a reader would take for output."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

from batchrunner.checkpoint import PlanFacts
from batchrunner.driver.sink_state import MANIFEST, SUCCESS, parts_in
from batchrunner.formats.registry import file_kind, format_named
from batchrunner.storage import Entry
from batchrunner.storage.keys import is_hidden

_OF_CHECKPOINTS = (
    "answers/",
    "errors/",
    "files/",
    "paths/",
    "sentinel_index/",
    "plan/",
    "quarantine/",
    "sentinels/",
    "sessions/",
)
"""Folders of a checkpoint with files that look like data."""

_PLAN = re.compile(r"(?P<root>.+/)??(?P<run>run-\d{4,}/)?plan/0000\.parquet")
"""The first plan of a run, which every checkpoint has: in its root, or in a later run's folder."""


def sorted_out(
    entries: Mapping[str, Entry], *, beside: Sequence[str], facts: PlanFacts
) -> tuple[dict[str, Entry], dict[str, Entry]]:
    """Return the entries that look like data, as of `data_in`, and the files that rows may have named.

    Where parts list files, these have any name, so that only a part looks like data.
    """
    if not facts.part_format.publishes_files:
        return data_in(entries, beside=beside, parts=facts.format), {}
    others = _others(entries, beside)
    data = parts_in(entries.values())
    return data, {
        key: entry
        for key, entry in entries.items()
        if key not in data and not is_hidden(key) and not f"{key}/".startswith(others)
    }


def data_in(entries: Mapping[str, Entry], *, beside: Sequence[str], parts: str) -> dict[str, Entry]:
    """Return the entries that look like data, by key; *parts* is the format of the run's parts.

    Leaves out those in the folders *beside*, in checkpoints and in the output of other runs: they do
    not belong to this run's output, and `--repair` must not move them.
    """
    others = _others(entries, beside)
    return {
        key: entry
        for key, entry in entries.items()
        if _looks_like_data(key, others=others, parts=parts)
    }


def _others(entries: Mapping[str, Entry], beside: Sequence[str]) -> tuple[str, ...]:
    return (*beside, *_checkpoints(entries), *(f"{run}/" for run in other_runs(entries)))


def other_runs(entries: Iterable[str]) -> list[str]:
    """Return the folders below the sink that are the output of another run."""
    # The slash before each name excludes the sink itself. A run that is not finished has only its
    # checkpoint.
    signs = tuple(f"/{name}" for name in (SUCCESS, MANIFEST, "_checkpoint/run.json"))
    folders = {key.removesuffix(sign) for sign in signs for key in entries if key.endswith(sign)}
    return sorted(folder for folder in folders if not is_hidden(folder))


def _looks_like_data(key: str, *, others: tuple[str, ...], parts: str) -> bool:
    if is_hidden(key) or f"{key}/".startswith(others):
        return False
    name = key.rpartition("/")[2]
    if name.startswith("part-"):
        return True
    kind = file_kind(name)
    return kind is not None and (kind.format == parts or not format_named(kind.format).gives_way)


def _checkpoints(entries: Iterable[str]) -> list[str]:
    """Return the folders of checkpoints, found by their plans: links may hide their URIs."""
    plans = [match for match in map(_PLAN.fullmatch, entries) if match]
    roots = {match["root"] or "" for match in plans}
    later_runs = {f"{match['root'] or ''}{match['run']}" for match in plans if match["run"]}
    return [*later_runs, *(f"{root}{folder}" for root in roots for folder in _OF_CHECKPOINTS)]
