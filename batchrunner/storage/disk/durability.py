"""Makes files and folders survive a power cut, many at a time."""

# pathlib costs more than the system calls it wraps, and this runs once per object.
# ruff: noqa: PTH102, PTH112, PTH120

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Collection, Sequence

from batchrunner.errors import StorageError
from batchrunner.storage.disk.errors import disk_error

_THREADS = 8
"""How many threads sync files: the kernel groups the journal commits of calls that wait together."""

_CANNOT_SYNC_FOLDERS = frozenset({errno.EINVAL, errno.EBADF})
"""Errors of a file system that has nothing to sync in a folder."""


def sync_files(files: Collection[int]) -> None:
    """Make the open *files* durable, together.

    Never call it again for a file it failed on: the kernel reports a lost write once, then forgets.

    Raises:
        OSError: At least one is not durable.
    """
    files = list(files)
    if len(files) < _THREADS:
        _sync_each(files)
        return
    from concurrent.futures import ThreadPoolExecutor

    # A pool per call: threads do not survive a fork, and eight cost less than one fsync.
    with ThreadPoolExecutor(_THREADS) as pool:
        list(pool.map(_sync_each, [files[start::_THREADS] for start in range(_THREADS)]))


def _sync_each(files: Sequence[int]) -> None:
    for fd in files:
        os.fsync(fd)


def sync_folder(path: str) -> None:
    """Make the names in folder *path* durable.

    Raises:
        StorageError: The folder cannot be synced.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
    except OSError as error:
        if error.errno not in _CANNOT_SYNC_FOLDERS:
            raise disk_error(error, path, doing="sync the folder") from error


class DurableFolders:
    """Makes folders below a root whose names survive a power cut. Each is synced once per process.

    A folder that exists already is synced, too: the process that made it may have died before that.
    """

    def __init__(self, root: str) -> None:
        self._root = root
        self._durable: set[str] = set()
        self._there: set[str] = set()
        """Folders that exist, but that a power cut may still remove."""

    def make(self, path: str) -> None:
        """Make folder *path*, and those above it, durably.

        Raises:
            StorageError: A folder cannot be made.
        """
        with contextlib.suppress(FileNotFoundError):
            self._make(path)
            return
        self.clear()  # a folder above was removed from outside since it was made
        try:
            self._make(path)
        except FileNotFoundError as error:
            raise disk_error(error, path, doing="make the folder") from error

    def _make(self, path: str) -> None:
        if path in self._durable:
            return
        parent = os.path.dirname(path)
        is_above = len(path) <= len(self._root)
        if is_above and (os.path.isdir(path) or parent == path):
            self._durable.add(path)  # the user made it: its durability is the user's concern
            return
        self._make(parent)
        is_new = _make_one(path)
        # All folders that exist before the sync are durable after it, so a resume syncs the root once.
        named = {path} if is_new or is_above else _folders_in(parent)
        self.sync(parent)
        self._durable |= named

    def make_unsynced(self, path: str, *, mode: int) -> None:
        """Make folder *path* without a sync: until `ensure`, a power cut may remove it.

        Its parent must be durable.

        Raises:
            OSError: The folder cannot be made.
        """
        try:
            os.mkdir(path, mode)
        except FileExistsError:
            is_durable = path in self._durable
        else:
            is_durable = False
            self._durable.discard(path)
        if not is_durable:
            self._there.add(path)

    def ensure(self, path: str) -> None:
        """Make the name of the existing folder *path* durable. Does nothing if it already is.

        Raises:
            StorageError: Its parent cannot be synced.
        """
        if path not in self._durable:
            self.sync(os.path.dirname(path))

    def sync(self, path: str) -> None:
        """Make all names in folder *path* durable, including those of folders made without a sync.

        Raises:
            StorageError: The folder cannot be synced.
        """
        named = {there for there in self._there.copy() if os.path.dirname(there) == path}
        sync_folder(path)
        self._durable |= named
        self._there -= named

    def clear(self) -> None:
        """Treat no folder as durable any more: one of them was removed from outside."""
        self._durable.clear()


def _make_one(path: str) -> bool:
    """Make folder *path*; return whether it is new."""
    try:
        os.mkdir(path)
    except FileExistsError as error:
        if not os.path.isdir(path):
            raise StorageError(f"{path}: a folder is needed here; move that file away") from error
        return False
    except OSError as error:
        if isinstance(error, FileNotFoundError) and not os.path.isdir(os.path.dirname(path)):
            raise  # for `make`, which begins again at the root
        raise disk_error(error, path, doing="make the folder") from error
    return True


def _folders_in(path: str) -> set[str]:
    try:
        with os.scandir(path) as items:
            return {f"{path.rstrip('/')}/{item.name}" for item in items if item.is_dir()}
    except OSError as error:
        raise disk_error(error, path, doing="list") from error
