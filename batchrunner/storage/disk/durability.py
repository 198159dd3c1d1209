"""Making files and folders survive a power cut, many at a time."""

# pathlib costs more than the system calls it wraps, and this runs once per object.
# ruff: noqa: PTH102, PTH112, PTH120

from __future__ import annotations

import errno
import os
from collections.abc import Collection, Sequence

from batchrunner.errors import StorageError
from batchrunner.storage.disk.errors import disk_error

_THREADS = 8
"""The kernel groups the journal commits of calls that wait together."""

_CANNOT_SYNC_FOLDERS = frozenset({errno.EINVAL, errno.EBADF})
"""What a file system answers that has nothing to sync in a folder."""


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
        StorageError: They are not.
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


def make_folder(path: str, *, above: str) -> None:
    """Make folder *path*, and those above it, durably.

    Below *above* even a folder that is there already is made durable: the one who made it may not
    have come to that yet.

    Raises:
        StorageError: It cannot be made.
    """
    parent = os.path.dirname(path)
    if os.path.isdir(path) and len(path) <= len(above):
        return
    if parent != path:
        make_folder(parent, above=above)
    try:
        os.mkdir(path)
    except FileExistsError as error:
        if not os.path.isdir(path):
            raise StorageError(f"{path}: a folder is needed here; move that file away") from error
    except OSError as error:
        raise disk_error(error, path, doing="make the folder") from error
    sync_folder(parent)
