"""Taking a file away only if it is the one that was seen."""

# pathlib costs more than the system calls it wraps, and this runs once per object.
# ruff: noqa: PTH104, PTH108, PTH116

from __future__ import annotations

import os
from collections.abc import Callable

from batchrunner.errors import ObjectChangedError
from batchrunner.storage.contract import Entry
from batchrunner.storage.disk.errors import disk_error
from batchrunner.storage.disk.reading import entry_of
from batchrunner.storage.disk.staging import remove


def is_still(entry: Entry, path: str) -> bool | None:
    """Return whether the file at *path* is that of *entry*; None when there is no file.

    Raises:
        StorageError: The disk does not say.
    """
    try:
        return entry_of(entry.key, os.stat(path)) == entry
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise disk_error(error, path, doing="look at it") from error


def take(entry: Entry, path: str, *, aside: str) -> bool:
    """Rename the file at *path* to *aside* if it is that of *entry*; return whether it was.

    No system call removes a name on a condition. So the file is looked at, renamed, and looked at
    again where no other process can replace it; one that slipped in between gets its name back.

    Raises:
        ObjectChangedError: Its name was taken by a third file before it could be given back.
        StorageError: The disk refuses.
    """
    if not is_still(entry, path):
        return False
    try:
        os.rename(path, aside)
    except FileNotFoundError:
        return False
    except OSError as error:
        raise disk_error(error, path, doing=f"move to {aside}") from error
    if is_still(entry, aside):
        return True
    _put_back(aside, path)
    return False


def delete(entry: Entry, path: str, *, aside: Callable[[], str]) -> bool:
    """Remove the file at *path* if it is that of *entry*; return whether no other one is there.

    Raises:
        StorageError: The disk refuses.
    """
    still = is_still(entry, path)
    if not still:
        return still is None
    taken = aside()
    if not take(entry, path, aside=taken):
        return is_still(entry, path) is None
    remove([taken])
    return True


def _put_back(aside: str, path: str) -> None:
    try:
        os.link(aside, path)
    except FileExistsError as error:
        raise ObjectChangedError(
            f"other processes replaced {path} twice while it was being moved; the first of the two is "
            f"now {aside}: compare them, and keep one as {path}"
        ) from error
    except OSError as error:
        raise disk_error(error, path, doing=f"move back from {aside}") from error
    os.unlink(aside)
