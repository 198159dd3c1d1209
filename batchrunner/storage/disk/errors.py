"""Typed errors for what a disk refuses, with the way out of each."""

from __future__ import annotations

import errno

from batchrunner.errors import ObjectNotFoundError, StorageAccessError, StorageError

_FREE_SPACE = "free some space, then run the same line again"
_PERMISSION = "check its owner and mode, and how it is mounted"
_DISK = "check what stands there, and the disk"
_WAY_OUT = {
    errno.ENOSPC: f"no space left, or no inodes; {_FREE_SPACE}",
    errno.EDQUOT: f"the disk quota is used up; {_FREE_SPACE}",
    errno.EFBIG: "over the limit for the size of a file; raise it (ulimit -f)",
    errno.EMFILE: "too many open files; raise the limit (ulimit -n)",
    errno.EIO: "the disk failed; check the kernel's log before anything else is written there",
    errno.ENAMETOOLONG: "the name is longer than this file system allows; use a shorter one",
}
_REFUSED = {
    errno.EACCES: f"permission denied; {_PERMISSION}",
    errno.EPERM: f"not permitted; {_PERMISSION}",
    errno.EROFS: f"the file system is read-only; {_PERMISSION}",
}
_ABSENT = {
    errno.ENOENT: "there is no such file; check the path",
    errno.ENOTDIR: "a part of the path is a file, not a folder; check the path",
    errno.EISDIR: "it is a folder, not a file; name a file",
    errno.ENXIO: "it is not a regular file (a pipe, or a device); name a file",
}


def disk_error(error: OSError, path: str, *, doing: str) -> StorageError:
    """Return the typed error for *error*, met at *path* while *doing* something (a verb)."""
    code = error.errno or 0
    head = f"{path}: cannot {doing}: "
    if code in _REFUSED:
        return StorageAccessError(head + _REFUSED[code])
    name = errno.errorcode.get(code, type(error).__name__)
    return StorageError(
        head + _WAY_OUT.get(code, f"{error.strerror or 'it failed'} ({name}); {_DISK}")
    )


def reading_error(error: OSError, path: str) -> StorageError:
    """Return the typed error for *error*, met while reading the object at *path*."""
    if error.errno in _ABSENT:
        return ObjectNotFoundError(f"{path}: {_ABSENT[error.errno]}")
    return disk_error(error, path, doing="read")
