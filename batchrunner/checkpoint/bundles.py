"""Files that follow from their part: published from its bundle, each if absent.

A bundle has the bytes of all files that one part lists, one after the other, in the order of its lines.
It is durable before the part can win, so any worker or driver can publish what a dead one did not.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import BinaryIO

from batchrunner.checkpoint.documents import Sentinel, lines_in, sha256_of
from batchrunner.checkpoint.store import Checkpoint
from batchrunner.errors import (
    DamagedOutputError,
    ObjectNotFoundError,
    StorageError,
    TakenPathError,
)
from batchrunner.formats.file_paths import folders_of
from batchrunner.formats.listing import Listed, listed_in
from batchrunner.storage import Entry, Staged, Storage

_GROUP_FILES, _GROUP_BYTES = 256, 8 << 20
_FEW = 2
"""Of so few files in a folder, each is looked up by itself: the folder may have millions."""
_SHOWN = 5


@dataclass(frozen=True, slots=True)
class Bundle:
    """The bundle of one attempt, and what to publish it from without reading it back.

    Attributes:
        staged: Its bytes, staged; closed.
        size: How many there are.
        lines: The part, open for reading; None to read it from the sink.
        data: The bundle, likewise; None to read it from the checkpoint.
        paths: The paths of the files, staged; closed. They stay once the bundle is dropped. None for none.
    """

    staged: Staged
    size: int
    lines: BinaryIO | None = None
    data: BinaryIO | None = None
    paths: Staged | None = None

    def discard(self) -> None:
        """Discard what is staged, and close both files. Idempotent."""
        self.staged.discard()
        if self.paths is not None:
            self.paths.discard()
        self.close()

    def close(self) -> None:
        for file in (self.lines, self.data):
            if file is not None:
                file.close()


def reopened(file: BinaryIO) -> BinaryIO | None:
    """Return a staged *file* opened again, to be read after it was published; None if it cannot be."""
    try:
        return os.fdopen(os.dup(file.fileno()), "rb")
    except (OSError, AttributeError):  # a store that stages elsewhere: it is read back
        return None


def publish_files(
    sentinel: Sentinel, *, sink: Storage, checkpoint: Checkpoint, bundle: Bundle | None = None
) -> None:
    """Publish each file that the part of *sentinel* lists, if absent: durable, idempotent.

    Call it only once the part is published, and before its sentinel is. A file that is there with the
    same bytes is no conflict. With *bundle*, of the attempt that made the part, nothing is read back.

    Raises:
        TakenPathError: Other bytes have a path; all other files are published.
        DamagedOutputError: The bundle is gone or damaged, and a file is not there yet.
        ObjectNotFoundError: The part is gone, or the run was started over.
    """
    if not sentinel.files:
        return
    with contextlib.ExitStack() as stack:
        part = _there(sink, sentinel.part)
        lines = None if bundle is None else bundle.lines
        if lines is None:
            lines = stack.enter_context(sink.open(part))
        lines.seek(0)
        pieces = list(_placed(_listed(lines)))
        if (
            bundle is None or bundle.data is None
        ):  # most files may be there, of the attempt that died
            pieces = _absent(pieces, sink)
        data = _Data(sentinel, lambda: _bundle_of(sentinel, checkpoint, bundle, stack))
        taken: list[str] = []
        for group in _groups(pieces):
            # A worker that lives on after `--fresh`, or whose part was moved away, stops here: the driver ends
            # the run before it clears the sink, and moves a part after its files.
            _check_still(sink, part)
            checkpoint.check_not_ended()
            taken += _put(group, data, sink)
        _check_still(sink, part)  # else a sentinel would follow that is of no part
    if taken:
        raise TakenPathError(_taken(sink.uri, sentinel.part, taken))


def check_files(sentinel: Sentinel, *, sink: Storage, checkpoint: Checkpoint) -> None:
    """Check that `publish_files` finds each file in the sink or in the bundle. Writes nothing.

    Raises:
        DamagedOutputError: The bundle is gone or damaged, and a file is not there yet.
        ObjectNotFoundError: The part is gone.
    """
    if not sentinel.files:
        return
    with contextlib.ExitStack() as stack:
        lines = stack.enter_context(sink.open(_there(sink, sentinel.part)))
        data = _Data(sentinel, lambda: _bundle_of(sentinel, checkpoint, None, stack))
        for piece in _absent(list(_placed(_listed(lines))), sink):
            if sink.head(piece.file.path) is None:
                data.of(piece)


def _bundle_of(
    sentinel: Sentinel,
    checkpoint: Checkpoint,
    bundle: Bundle | None,
    stack: contextlib.ExitStack,
) -> BinaryIO:
    if bundle is not None and bundle.data is not None:
        return bundle.data
    return stack.enter_context(checkpoint.open_bundle(sentinel.files))


@dataclass(frozen=True, slots=True)
class _Piece:
    """A listed file, and where its bytes begin in the bundle."""

    file: Listed
    at: int


class _Data:
    """The bytes of a bundle. It is opened for the first file that is not there yet."""

    def __init__(self, sentinel: Sentinel, opened: Callable[[], BinaryIO]) -> None:
        self._sentinel, self._opened = sentinel, opened
        self._file: BinaryIO | None = None

    def of(self, piece: _Piece) -> bytes:
        """Return the bytes of a file, which are those that its line was written for.

        Raises:
            DamagedOutputError: The bundle is gone, or has other bytes.
        """
        try:
            if self._file is None:
                self._file = self._opened()
            self._file.seek(piece.at)
            data = self._file.read(piece.file.size)
        except ObjectNotFoundError as error:
            raise DamagedOutputError(self._fault("is gone")) from error
        if hashlib.sha256(data).hexdigest() != piece.file.sha256:
            raise DamagedOutputError(self._fault(f"has other bytes for {piece.file.path}"))
        return data

    def _fault(self, what: str) -> str:
        return (
            f"{self._sentinel.files}, from which the files of {self._sentinel.part} are published, {what}: "
            "`batchrunner verify --repair SPEC` takes the shard back, then run again"
        )


def _there(sink: Storage, part: str) -> Entry:
    entry = sink.head(part)
    if entry is None:
        raise ObjectNotFoundError(f"{sink.uri}/{part} was there and is gone; run again")
    return entry


def _check_still(sink: Storage, part: Entry) -> None:
    """Check that *part* is still the object that it was: its shard may be made again meanwhile."""
    if _there(sink, part.key) != part:
        raise ObjectNotFoundError(f"{sink.uri}/{part.key} was made again; run again")


def listed_files(sink: Storage, part: Entry) -> Iterator[Listed]:
    """Yield the files that *part* lists; lines that list none, as in a damaged part, are skipped."""
    with sink.open(part) as file:
        yield from _listed(file)


def _listed(file: BinaryIO) -> Iterator[Listed]:
    for line in lines_in(file):
        with contextlib.suppress(ValueError):
            yield listed_in(line)


def _placed(files: Iterable[Listed]) -> Iterator[_Piece]:
    at = 0
    for file in files:
        yield _Piece(file, at)
        at += file.size


def _groups(pieces: Iterable[_Piece]) -> Iterator[list[_Piece]]:
    """Yield *pieces* in groups that are published together; each path once in a group."""
    group: list[_Piece] = []
    paths: set[str] = set()
    size = 0
    for piece in pieces:
        is_full = len(group) >= _GROUP_FILES or size + piece.file.size > _GROUP_BYTES
        if group and (is_full or piece.file.path in paths):
            yield group
            group, paths, size = [], set(), 0
        group.append(piece)
        paths.add(piece.file.path)
        size += piece.file.size
    if group:
        yield group


def _put(group: list[_Piece], data: _Data, sink: Storage) -> Iterator[str]:
    """Publish the files of *group*; yield the paths that other bytes have."""
    files = {piece.file.path: data.of(piece) for piece in group}
    try:
        yield from files.keys() - sink.put_if_absent(files)
    except StorageError:
        blocked = [path for path in files if _is_blocked(path, sink)]
        if not blocked:
            raise
        yield from blocked
        for path in files.keys() - set(blocked):  # one by one: the call above may have written some
            yield from {path} - sink.put_if_absent({path: files[path]})


def _is_blocked(path: str, sink: Storage) -> bool:
    """Return whether a file has the name of a folder of *path*, or a folder that of the file."""
    above = any(sink.head(folder) is not None for folder in folders_of(path))
    return above or next(iter(sink.list(path)), None) is not None


def _absent(pieces: Sequence[_Piece], sink: Storage) -> list[_Piece]:
    """Return *pieces* without those whose file is there already, with its bytes."""
    there = entries_of((piece.file.path for piece in pieces), sink)
    return [
        piece
        for piece in pieces
        if (entry := there.get(piece.file.path)) is None or not is_listed(sink, entry, piece.file)
    ]


def entries_of(paths: Iterable[str], sink: Storage) -> dict[str, Entry]:
    """Return the objects that have one of *paths*, by path: a listing for each folder of several."""
    by_folder: dict[str, set[str]] = defaultdict(set)
    for path in paths:
        by_folder[path.rpartition("/")[0]].add(path)
    found: dict[str, Entry] = {}
    for folder, wanted in by_folder.items():
        entries = map(sink.head, wanted) if len(wanted) <= _FEW else sink.list(folder)
        found.update({e.key: e for e in entries if e is not None and e.key in wanted})
    return found


def is_listed(sink: Storage, entry: Entry, file: Listed) -> bool:
    """Return whether the object *entry* has the bytes of *file*. Reads it if it has the size."""
    return entry.size == file.size and sha256_of(sink, entry) == file.sha256


def _taken(sink: str, part: str, paths: list[str]) -> str:
    some = ", ".join(sorted(paths)[:_SHOWN])
    more = f" and {len(paths) - _SHOWN:,} more" if len(paths) > _SHOWN else ""
    return (
        f"{part} lists files whose paths have other bytes in {sink}, of another row or from before the run: "
        f"{some}{more}; `batchrunner retry SPEC` makes its rows again, and those whose path is still taken become dead "
        "letters"
    )
