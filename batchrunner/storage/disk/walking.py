"""Walks over many files of a disk as lists, without an object for each: a source may have a million.

`storage.list` yields the same files; this one leaves out hidden names, and finds links on its way.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from itertools import groupby
from operator import attrgetter
from pathlib import Path
from stat import S_ISREG

from batchrunner.storage.disk.errors import disk_error
from batchrunner.storage.disk.links import Link

_AT_ONCE = 1 << 16
_NAME = attrgetter("name")


@dataclass(slots=True)
class FolderFiles:
    """Files of one folder, sorted by name among all those of the walk.

    Attributes:
        prefix: The folder, relative to the root of the walk; empty or with a slash at its end.
        names: Their names.
        sizes: Their sizes, in bytes.
        times: When they were written, in nanoseconds since 1970 UTC.
        second_names: Those that have other names: links, and files with several hard links.
    """

    prefix: str
    names: list[str] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)
    times: list[int] = field(default_factory=list)
    second_names: list[str] = field(default_factory=list)


class Walk:
    """Walks over the regular files below a folder, in the order of their keys. Used once.

    Follows links to files, not to folders, as `storage.list` does. Names that begin with "." or "_" are
    left out, and folders with such names are not read.

    Attributes:
        links: The symbolic links found so far.
        noticed: Keys of the files left out so far whose names are among those to notice.
    """

    def __init__(self, root: str, *, notices: Collection[str] = ()) -> None:
        self.links: list[Link] = []
        self.noticed: list[str] = []
        self._root, self._notices = root, notices

    def __iter__(self) -> Iterator[FolderFiles]:
        """Yield the files of each folder, at most some ten thousand at a time.

        Raises:
            StorageError: A folder cannot be read.
        """
        return self._below(self._root, "")

    def _below(self, folder: str, prefix: str) -> Iterator[FolderFiles]:
        inside = self._inside(folder, prefix)
        if not any(map(_is_folder, inside)):
            inside.sort(key=_NAME, reverse=True)
            yield from self._files(inside, prefix)
            return
        # A folder sorts as the keys in it, since "a-b" < "a/b".
        inside.sort(key=lambda item: f"{item.name}/" if _is_folder(item) else item.name)
        for is_folder, items in groupby(inside, key=_is_folder):
            if not is_folder:
                yield from self._files(list(items)[::-1], prefix)
                continue
            for item in items:
                yield from self._below(item.path, f"{prefix}{item.name}/")

    def _inside(self, folder: str, prefix: str) -> list[os.DirEntry[str]]:
        try:
            with os.scandir(folder) as items:
                return [i for i in items if i.name[0] not in "._" or self._notice(i, prefix)]
        except FileNotFoundError:
            return []
        except OSError as error:
            # A file in place of a folder holds no files. In place of the root it is an error.
            if isinstance(error, NotADirectoryError) and Path(self._root).is_dir():
                return []
            raise disk_error(error, folder, doing="list") from error

    def _notice(self, item: os.DirEntry[str], prefix: str) -> bool:
        """Notice a hidden *item*; return False, which leaves it out."""
        if item.name in self._notices:
            self.noticed.append(prefix + item.name)
        return False

    def _files(self, items: list[os.DirEntry[str]], prefix: str) -> Iterator[FolderFiles]:
        """Yield the files among *items*, the last first; each is let go, since it keeps its status."""
        while items:
            files = FolderFiles(prefix)
            names, sizes, times = files.names, files.sizes, files.times
            for _ in range(min(len(items), _AT_ONCE)):
                item = items.pop()
                is_link = item.is_symlink()
                try:
                    status = item.stat()
                    is_file = S_ISREG(status.st_mode)
                except FileNotFoundError:  # removed since, or a link to nothing
                    is_file = False
                except OSError as error:
                    raise disk_error(error, item.path, doing="list") from error
                if is_link:
                    self.links.append(Link(prefix + item.name, is_file))
                if not is_file:
                    continue
                names.append(item.name)
                sizes.append(status.st_size)
                times.append(status.st_mtime_ns)
                if is_link or status.st_nlink > 1:
                    files.second_names.append(item.name)
            yield files


def _is_folder(item: os.DirEntry[str]) -> bool:
    return item.is_dir(follow_symlinks=False)
