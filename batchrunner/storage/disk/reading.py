"""Reads a disk: lists folders, and opens files pinned to the bytes that were listed."""

# pathlib costs more than the system calls it wraps, and this runs once per object.
# ruff: noqa: PTH116

from __future__ import annotations

import errno
import io
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from batchrunner.errors import ObjectChangedError, ObjectNotFoundError, StorageError
from batchrunner.storage.contract import MAX_DOCUMENT_BYTES, Entry
from batchrunner.storage.disk.errors import disk_error, reading_error
from batchrunner.storage.keys import STAGING

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer


def entry_of(key: str, status: os.stat_result) -> Entry | None:
    """Return the entry of a regular file, None for anything else."""
    if not stat.S_ISREG(status.st_mode):
        return None
    return Entry(key, status.st_size, str(status.st_mtime_ns))


def walk(folder: str, prefix: str, *, recursive: bool) -> Iterator[Entry]:
    """Yield the regular files in *folder* as entries under *prefix*, sorted by key.

    Follows links to files, not to folders: a link upwards would never end.

    Raises:
        StorageError: The folder cannot be read.
    """
    try:
        with os.scandir(folder) as items:
            inside = sorted((_place(item), item) for item in items)
    except FileNotFoundError:
        return
    except OSError as error:
        # A file in place of a folder holds no keys. In place of the root it is an error: it hides all keys.
        if isinstance(error, NotADirectoryError) and Path(folder.removesuffix(prefix)).is_dir():
            return
        raise disk_error(error, folder, doing="list") from error
    for place, item in inside:
        if not place.endswith("/"):
            yield from _entry(item, prefix)
        elif recursive and item.name != STAGING:
            yield from walk(item.path, prefix + place, recursive=True)


def _place(item: os.DirEntry[str]) -> str:
    """Return what to sort *item* by: a folder sorts as the keys in it, since "a-b" < "a/b"."""
    return f"{item.name}/" if item.is_dir(follow_symlinks=False) else item.name


def _entry(item: os.DirEntry[str], prefix: str) -> Iterator[Entry]:
    try:
        entry = entry_of(prefix + item.name, item.stat())
    except FileNotFoundError:  # removed since, or a link to nothing
        return
    except OSError as error:
        raise disk_error(error, item.path, doing="list") from error
    if entry is not None:
        yield entry


def read_document(path: str) -> bytes:
    """Return the bytes of the regular file at *path*.

    Raises:
        ObjectNotFoundError: There is no such file.
        StorageError: The file is larger than `MAX_DOCUMENT_BYTES`, or cannot be read.
    """
    try:
        with io.FileIO(path, "rb", opener=_open_at_once) as file:
            size = _regular(file).st_size
            if size <= MAX_DOCUMENT_BYTES:
                return file.readall()
    except OSError as error:
        raise reading_error(error, path) from error
    raise StorageError(
        f"{path}: {size} bytes are too many for a document (at most {MAX_DOCUMENT_BYTES}); batchrunner "
        "did not write it, move it away"
    )


def holds(path: str, data: bytes) -> bool:
    """Return whether the file at *path* is there and is exactly *data*.

    Raises:
        StorageError: The file cannot be read.
    """
    try:
        with io.FileIO(path, "rb", opener=_open_at_once) as file:
            return _regular(file).st_size == len(data) and file.readall() == data
    except OSError as error:
        reason = reading_error(error, path)
        if isinstance(reason, ObjectNotFoundError):
            return False
        raise reason from error


def _open_at_once(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)  # else a named pipe would wait for its writer


def _regular(file: io.FileIO) -> os.stat_result:
    status = os.fstat(file.fileno())
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.ENXIO, "not a regular file")
    return status


class PinnedFile(io.FileIO):
    """The file of one entry; raises when its bytes are not, or no longer, those of the entry.

    It checks when it is opened, at its end and when it is closed: the last check also serves readers
    that open `name` by themselves. A file removed meanwhile is no error: all its bytes were there.

    Raises:
        ObjectNotFoundError: There is no such file.
        ObjectChangedError: The file was replaced or rewritten. Raised by `close`, too.
    """

    def __init__(self, path: str, *, entry: Entry) -> None:
        self._entry = entry
        try:
            super().__init__(path, "rb", opener=_open_at_once)
            self._compare(_regular(self))
        except StorageError:
            super().close()
            raise
        except OSError as error:
            super().close()
            raise reading_error(error, path) from error

    def _compare(self, status: os.stat_result) -> None:
        # As `entry_of` would, without making an entry: this runs five times for each small file.
        have = (status.st_size, str(status.st_mtime_ns)) if stat.S_ISREG(status.st_mode) else None
        if have != (self._entry.size, self._entry.identity):
            raise ObjectChangedError(
                f"{self.name}: it is not the file that was listed ({self._entry.size} bytes then, "
                f"{status.st_size} now); run the same line again, which lists anew"
            )

    def _look_again(self) -> None:
        self._compare(os.fstat(self.fileno()))
        try:
            status = os.stat(self.name)
        except FileNotFoundError:
            return
        self._compare(status)

    def read(self, size: int | None = -1, /) -> bytes:
        # A buffer is made before it is read into: for a small file, a megabyte costs more than all else.
        if size is not None and size > self._entry.size:
            size = self._entry.size + 1
        data = super().read(size)
        if size is None or len(data) < size or size < 0:
            self._look_again()
        return data

    def readall(self) -> bytes:
        return self.read()

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        count = super().readinto(buffer)
        if count < memoryview(buffer).nbytes:
            self._look_again()
        return count

    def close(self) -> None:
        if self.closed:
            return
        try:
            self._look_again()
        finally:
            super().close()
