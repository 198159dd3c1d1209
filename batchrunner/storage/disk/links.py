"""Finds links on a disk: second names of a file, and names that lead elsewhere."""

# pathlib costs more than the system calls it wraps, and this runs once per file.
# ruff: noqa: PTH113, PTH116

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass

from batchrunner.storage.opening import is_path


@dataclass(frozen=True, slots=True)
class Link:
    """A symbolic link below a folder.

    Attributes:
        key: Where the link is, relative to the folder.
        leads_to_file: False if it leads to a folder, which is not followed, or to nothing.
    """

    key: str
    leads_to_file: bool


def real_uri(uri: str) -> str:
    """Return the path *uri* with all links in it resolved; return the URI of a bucket unchanged."""
    return os.path.realpath(uri) if is_path(uri) else uri


def file_number(uri: str) -> tuple[int, int] | None:
    """Return device and inode of a file, which all its names share; None when there is no file."""
    try:
        status = os.stat(uri)
    except OSError:
        return None
    return status.st_dev, status.st_ino


def links_below(folder: str) -> Iterator[Link]:
    """Yield the symbolic links below *folder*, in no order; none if it is in a bucket.

    Names that begin with "." or "_" are skipped, as are folders that cannot be read: listing these
    raises the error.
    """
    if is_path(folder):
        yield from _links(folder, "")


def _links(folder: str, prefix: str) -> Iterator[Link]:
    try:
        with os.scandir(folder) as inside:
            items = [item for item in inside if item.name[0] not in "._"]
    except OSError:
        return
    for item in items:
        if item.is_symlink():
            yield Link(prefix + item.name, os.path.isfile(item.path))
        elif item.is_dir(follow_symlinks=False):
            yield from _links(item.path, f"{prefix}{item.name}/")
