"""Moves parts out of the way, and before each the files that it lists."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from batchrunner.checkpoint import Sentinel
from batchrunner.checkpoint.bundles import entries_of, is_listed, listed_files
from batchrunner.driver.sink_state import DAMAGED, RETIRED
from batchrunner.formats.listing import Listed
from batchrunner.storage import Entry, Storage

_AT_ONCE = 16


def retire(
    sink: Storage,
    parts: Iterable[str],
    *,
    active: Iterable[Sentinel],
    check: Callable[[], None],
) -> None:
    """Move retired *parts*, which list files, to `_retired/`, each after its files. Idempotent.

    A file that a part of an *active* shard lists as well stays. Parts go last: as long as one is there,
    the next session goes on. *check* raises if another driver has taken over.
    """
    for part, files in _own_files(sink, parts, active):
        check()
        _move_files(sink, files, folder=f"{RETIRED}/{_stem(part.key)}")
        sink.move(part, f"{RETIRED}/{part.key}")


def put_aside(
    sink: Storage,
    parts: Iterable[str],
    *,
    folder: str,
    active: Iterable[Sentinel],
    check: Callable[[], None],
) -> None:
    """Move uncommitted *parts*, which list files, to *folder* in `_damaged/`, each after its files.

    Idempotent. A part goes last, as in `retire`: without it nothing says which files are its, and as long as
    it is there, the next session adopts it, or comes here again. A worker that still publishes its files
    stops, for the part is gone. Files that a part of an *active* shard lists as well stay, and those that
    another uncommitted part lists are published again when that is adopted.
    """
    for part, files in _own_files(sink, parts, active):
        check()
        _move_files(sink, files, folder=f"{DAMAGED}/{folder}")
        check()  # the files may be many, and another driver may have made the shard again meanwhile
        sink.move(part, f"{DAMAGED}/{folder}/{part.key}")


def _own_files(
    sink: Storage, parts: Iterable[str], active: Iterable[Sentinel]
) -> Iterator[tuple[Entry, list[Listed]]]:
    """Yield those *parts* that are there, with the files that no part of *active* lists."""
    there = [entry for part in parts if (entry := sink.head(part)) is not None]
    listed = [{file.path: file for file in listed_files(sink, entry)} for entry in there]
    kept = shared({path for files in listed for path in files}, sink, active)
    for part, files in zip(there, listed, strict=True):
        yield part, [file for path, file in files.items() if path not in kept]


def shared(paths: set[str], sink: Storage, active: Iterable[Sentinel]) -> set[str]:
    """Return those of *paths* that the parts of *active* sentinels list, too."""
    kept: set[str] = set()
    for sentinel in active if paths else ():
        if sentinel.files and (part := sink.head(sentinel.part)) is not None:
            kept |= paths.intersection(file.path for file in listed_files(sink, part))
    return kept


def _move_files(sink: Storage, files: list[Listed], *, folder: str) -> None:
    there = entries_of((file.path for file in files), sink)
    move = partial(_move_file, sink, folder, there)
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        list(pool.map(move, files))  # for the errors that it raises


def _move_file(sink: Storage, folder: str, there: dict[str, Entry], file: Listed) -> None:
    entry = there.get(file.path)
    # Only what the part lists: a file of other bytes is another shard's, or the user's.
    if entry is not None and is_listed(sink, entry, file):
        sink.move(entry, f"{folder}/{file.path}")


def files_of(sink: Storage, part: Entry) -> list[Entry]:
    """Return the files that *part* lists and that are there, with the size that it says.

    Those of a part in `_retired/` are in a folder of its name there.
    """
    folder = f"{_stem(part.key)}/" if part.key.startswith(f"{RETIRED}/") else ""
    sizes = {folder + file.path: file.size for file in listed_files(sink, part)}
    there = entries_of(sizes, sink)
    return [entry for key, entry in there.items() if entry.size == sizes[key]]


def _stem(part: str) -> str:
    return part.removesuffix(".jsonl")
