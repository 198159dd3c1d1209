"""Removes or renames a file only if it is still the one that was listed."""

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
    """Return whether *entry* still describes the file at *path*; None when there is no file.

    Raises:
        StorageError: The disk refuses.
    """
    try:
        return entry_of(entry.key, os.stat(path)) == entry
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise disk_error(error, path, doing="look at it") from error


def take(entry: Entry, path: str, *, aside: str) -> bool:
    """Rename the file at *path* to *aside* if *entry* still describes it; return whether it did.

    No system call removes a name on a condition. So the file is checked, renamed, and checked again
    where no other process can replace it; a file that slipped in between gets its name back.

    Raises:
        ObjectChangedError: A third file took that name before the second could get it back.
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
    """Remove the file at *path* if *entry* still describes it; return False if another is there.

    *aside* returns an unused path, to which the file is renamed first.

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
