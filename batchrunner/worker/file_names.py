"""The paths that the rows of a worker give their files: which are taken already, and by which bytes.

Rows are held against the sink as a listing shows it, and against earlier rows of the worker, so that a
conflict costs its row. It is an early notice only: two workers may name a path at the same time, and what
counts is decided when the files are published, where a conflict costs the shard.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from batchrunner.checkpoint.bundles import is_listed
from batchrunner.errors import StorageError
from batchrunner.formats.file_paths import MAX_PATH_BYTES, folded, folders_of
from batchrunner.formats.listing import Listed, frames, listed_in
from batchrunner.storage import Storage
from batchrunner.worker.schema import RowTypes

_log = logging.getLogger(__name__)

_ROOM = len("_damaged/") + 32 + len("/")
"""`verify --repair` may move a file below this folder of the sink, and its key must not be too long."""


class _Named(NamedTuple):
    shard: int
    file: Listed


class FileNames(RowTypes):
    """The paths of files that the rows so far have named. Not safe in several threads."""

    def __init__(self, sink: Callable[[], Storage], *, apart: Sequence[str]) -> None:
        """Hold rows against the sink that *sink* opens; folders *apart* in it are not for files."""
        super().__init__(None)
        self._open_sink, self._apart = sink, tuple(apart)
        self._sink: Storage | None = None
        self._there: set[int] | None = None
        """Hashes of the keys in the sink, as listed once; None before that."""
        self._named: dict[str, _Named] = {}
        self._folders: set[str] = set()

    def begin(self, *, is_final: bool = False) -> None:
        super().begin(is_final=is_final)
        if is_final:  # another attempt: other workers may have published since
            self._there = None
        elif self._there is not None:  # what this worker has published since it listed the sink
            self._there.update(hash(one.file.path) for one in self._named.values())
        self._named, self._folders = {}, set()

    def drop(self, shard: int) -> None:
        super().drop(shard)
        self._named = {path: one for path, one in self._named.items() if one.shard != shard}
        self._folders = {folder for path in self._named for folder in folders_of(path)}

    def accept_all(self, rows: Mapping[int, Sequence[Any]]) -> None:
        """Check the paths of the *rows* of each shard, and remember them; for all or for none.

        Raises:
            ValueError: Other bytes have a path, or a row of the same shard has one that some disks take
                for the same.
        """
        new: dict[str, _Named] = {}
        folders: set[str] = set()
        for shard, pieces in rows.items():
            for file in _files_in(pieces):
                key = folded(file.path)
                self._check(key, _Named(shard, file), new, folders)
                new.setdefault(key, _Named(shard, file))
                folders.update(folders_of(key))
        self._named.update({key: one for key, one in new.items() if key not in self._named})
        self._folders |= folders

    def _check(self, key: str, one: _Named, new: Mapping[str, _Named], folders: set[str]) -> None:
        path = one.file.path
        if earlier := new.get(key) or self._named.get(key):
            _check_same(one, earlier)
            return
        if key in folders or key in self._folders:
            raise ValueError(f"the path {path!r} is a folder of the file of an earlier row")
        above = next((f for f in folders_of(key) if f in new or f in self._named), None)
        if above is not None:
            raise ValueError(f"the path {path!r} lies in {above!r}, the file of an earlier row")
        if why := self._taken(one.file):
            raise ValueError(f"the path {path!r} {why}: give the row another one")

    def _taken(self, file: Listed) -> str:
        """Return why the sink cannot take *file*; "" if it can, or has it already."""
        try:
            return self._taken_in(self._opened(), file)
        except StorageError as error:  # no row's fault: it is met again where files are published
            _log.debug("%s was not looked up: %s", file.path, error)
            return ""

    def _taken_in(self, sink: Storage, file: Listed) -> str:
        if len(f"{sink.uri}/{file.path}".encode()) > MAX_PATH_BYTES - _ROOM:
            return f"is too long below {sink.uri}"
        if file.path.startswith(self._apart):
            return "lies where the source, the checkpoint or the analytics store is"
        there = self._listed(sink)
        if hash(file.path) in there:
            entry = sink.head(file.path)
            if entry is not None and not is_listed(sink, entry, file):
                return f"has other bytes in {sink.uri}"
        for folder in folders_of(file.path):
            if hash(folder) in there and sink.head(folder) is not None:
                return f"lies in {folder!r}, which is a file in {sink.uri}"
        return ""

    def _opened(self) -> Storage:
        if self._sink is None:
            self._sink = self._open_sink()
        return self._sink

    def _listed(self, sink: Storage) -> set[int]:
        """Return the hashes of all keys in the sink: one listing, whatever the folders of the files."""
        if self._there is None:
            self._there = {hash(entry.key) for entry in sink.list(recursive=True)}
        return self._there


def _files_in(pieces: Sequence[Any]) -> Iterator[Listed]:
    for rows in pieces:
        yield from (listed_in(line) for line, _ in frames(rows))


def _check_same(one: _Named, earlier: _Named) -> None:
    path, other = one.file.path, earlier.file.path
    if path == other and one.file != earlier.file:
        raise ValueError(
            f"the path {path!r} has other bytes in an earlier row: give each row a path of its own"
        )
    if path != other and one.shard == earlier.shard:
        raise ValueError(
            f"the path {path!r} is the same file as {other!r}, of an earlier row, on disks that ignore case "
            "or how accents are written: give the row another one"
        )
