"""Objects as files below a folder, published with hard links."""

# pathlib costs more than the system calls it wraps, and this runs once per object.
# ruff: noqa: PTH100, PTH105, PTH112, PTH116, PTH120

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import BinaryIO, TypeVar, cast

from batchrunner.errors import ObjectNotFoundError, UnsafeStorageError
from batchrunner.storage.contract import Entry, Staged
from batchrunner.storage.disk.durability import DurableFolders
from batchrunner.storage.disk.errors import disk_error
from batchrunner.storage.disk.exact import delete, is_still, take
from batchrunner.storage.disk.reading import PinnedFile, entry_of, holds, read_document, walk
from batchrunner.storage.disk.staging import StagingFolder, remove
from batchrunner.storage.keys import plain_folder, plain_key
from batchrunner.storage.staging import StagedFile

T = TypeVar("T")

_NO_HARD_LINKS = frozenset({errno.EXDEV, errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS})
_CLEANS = 3
"""How often to try one write that `clean` interferes with each time."""


class LocalStorage:
    """A `Storage` below folder *root* of a file system with hard links.

    Bytes are staged in `<root>/.staging`, so to publish them is to make a hard link: one step, seen
    whole or not at all, and refused when the name is taken.
    """

    def __init__(self, root: str) -> None:
        self._root = os.path.abspath(root)
        self._base = self._root.rstrip("/") + "/"
        self._folders = DurableFolders(self._root)
        self._staging = StagingFolder(self._root, self._folders)

    @property
    def uri(self) -> str:
        return self._root

    def list(self, prefix: str = "", *, recursive: bool = False) -> Iterator[Entry]:
        folder = plain_folder(prefix)
        yield from walk(self._base + folder, folder, recursive=recursive)

    def head(self, key: str) -> Entry | None:
        path = self._path(key)
        try:
            return entry_of(key, os.stat(path))
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise disk_error(error, path, doing="look at it") from error

    def get(self, key: str) -> bytes:
        return read_document(self._path(key))

    def open(self, entry: Entry) -> BinaryIO:
        return PinnedFile(self._path(entry.key), entry=entry)

    def put(self, key: str, data: bytes) -> None:
        _despite_cleaning(lambda: self._put(key, data))

    def put_if_absent(self, objects: Mapping[str, bytes]) -> frozenset[str]:
        return _despite_cleaning(lambda: self._put_if_absent(objects))

    def stage(self) -> StagedFile:
        return self._staging.stage()

    def publish(self, objects: Mapping[str, tuple[Staged, bytes]]) -> frozenset[str]:
        if not objects:
            return frozenset()
        parts = {key: cast(StagedFile, part) for key, (part, _) in objects.items()}
        staged = list(parts.values())
        try:
            intents = self._staging.stage_intents(
                {key: intent for key, (_, intent) in objects.items()}
            )
            staged.append(intents)
            self._staging.sync(staged)
            # Before the first link: an object that a reader can see must have its intent.
            path = self._staging.keep_intents(intents)
            won = self._link_all(parts)
        finally:
            _discard(staged)
        self._staging.need_intents(path, keys=won)
        return won

    def intents(self, key: str) -> tuple[bytes, ...]:
        # The caller is about to record the object, which must not be lost after that.
        self._sync_folders([self._path(key)])
        return self._staging.intents_on(key)

    def remove_intents(self, keys: Iterable[str]) -> None:
        self._staging.remove_intents(keys)

    def delete(self, keys: Iterable[str]) -> None:
        paths = [self._path(key) for key in keys]
        remove(paths)
        self._sync_folders(paths)

    def delete_exactly(self, entries: Iterable[Entry]) -> frozenset[str]:
        paths = {self._path(entry.key): entry for entry in entries}
        aside = self._staging.make_path
        others = frozenset(e.key for path, e in paths.items() if not delete(e, path, aside=aside))
        self._sync_folders(paths)
        return others

    def move(self, entry: Entry, target: str) -> bool:
        old, new = self._path(entry.key), self._path(target)
        if not is_still(entry, old):
            return False
        self._folders.make(os.path.dirname(new))
        moved = take(entry, old, aside=new)
        self._sync_folders([new, old])
        return moved

    def garbage(self, *, intents: bool = False) -> Sequence[Entry]:
        return self._staging.garbage(intents=intents)

    def clean(self, *, intents: bool = False) -> None:
        self._staging.clean(intents=intents)

    def check_conditional_writes(self) -> None:
        # In the staging folder: it is on the same file system as the sink, and is never listed.
        probe = self._staging.unused_path()
        staged = [self._staging.stage_bytes(data) for data in (b"first", b"second")]
        try:
            if [_link(str(one.path), probe) for one in staged] != [True, False]:
                raise UnsafeStorageError(
                    f"{self._root}: this file system lets a second writer replace a published "
                    "file; use a local disk, NFS or S3"
                )
        finally:
            _discard(staged)
            remove([probe])

    def _path(self, key: str) -> str:
        return self._base + plain_key(key)

    def _put(self, key: str, data: bytes) -> None:
        target = self._path(key)
        staged = self._staging.stage_bytes(data)
        try:
            self._staging.sync([staged])
            self._name(_replace, staged, target=target)
            staged.keep()
            self._folders.sync(os.path.dirname(target))
        finally:
            staged.discard()

    def _put_if_absent(self, objects: Mapping[str, bytes]) -> frozenset[str]:
        staged: dict[str, StagedFile] = {}
        try:
            for key, data in objects.items():
                staged[key] = self._staging.stage_bytes(data)
            self._staging.sync(staged.values())
            won = self._link_all(staged)
        finally:
            _discard(staged.values())
        # A call that is repeated because its answer was lost finds its own bytes, and has won.
        lost = objects.keys() - won
        return won | {key for key in lost if holds(self._path(key), objects[key])}

    def _link_all(self, staged: Mapping[str, StagedFile]) -> frozenset[str]:
        won = frozenset(
            key for key, one in staged.items() if self._name(_link, one, target=self._path(key))
        )
        # Also for keys that another attempt won: a driver that adopts that object records it as durable.
        self._sync_folders(self._path(key) for key in staged)
        return won

    def _name(self, how: Callable[[str, str], T], staged: StagedFile, *, target: str) -> T:
        source, folder = str(staged.path), os.path.dirname(target)
        # Between making the folder and naming the file in it, a user may remove the folder, and another
        # driver may clean the staged file away. The folder is made again, the staged file cannot be.
        for _ in range(_CLEANS):
            try:
                self._folders.make(folder)
                return how(source, target)
            except FileNotFoundError:
                self._folders.clear()  # one of them was removed from outside, or the source was
                if not os.path.lexists(source):
                    break
        raise ObjectNotFoundError(
            f"{target}: what was staged for it is gone: another driver cleaned {self._staging.path}; run "
            "the same line again"
        )

    def _sync_folders(self, paths: Iterable[str]) -> None:
        for folder in {os.path.dirname(path) for path in paths}:
            if os.path.isdir(folder):
                self._folders.sync(folder)


def _despite_cleaning(write: Callable[[], T]) -> T:
    """Call *write*, and repeat it if `clean` removed its staged bytes: they are still in memory."""
    for _ in range(_CLEANS - 1):
        with contextlib.suppress(ObjectNotFoundError):
            return write()
    return write()


def _discard(staged: Collection[StagedFile]) -> None:
    for one in staged:
        one.discard()


def _replace(source: str, target: str) -> None:
    try:
        os.replace(source, target)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise disk_error(error, target, doing="write") from error


def _link(source: str, target: str) -> bool:
    """Link *source* to *target*; return whether *target* is now a name of this file."""
    try:
        os.link(source, target)
    except FileExistsError:
        # NFS also raises this for a link that this very call made, if the first answer was lost.
        return _is_one_file(source, target)
    except FileNotFoundError:
        raise
    except OSError as error:
        if error.errno in _NO_HARD_LINKS:
            raise UnsafeStorageError(
                f"{target}: this file system has no hard links ({error.strerror}), so nothing can "
                "be published there exactly once; use a local disk, NFS or S3"
            ) from error
        raise disk_error(error, target, doing="publish") from error
    return True


def _is_one_file(source: str, target: str) -> bool:
    try:
        return os.path.samestat(os.lstat(source), os.lstat(target))
    except FileNotFoundError:
        return False
