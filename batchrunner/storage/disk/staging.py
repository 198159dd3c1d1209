"""The staging folder of a root on a disk: staged bytes, and the intents beside them."""

# pathlib costs more than the system calls it wraps, and this runs once per object.
# ruff: noqa: PTH104, PTH108, PTH208

from __future__ import annotations

import contextlib
import io
import json
import os
import stat
from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet
from typing import cast

from batchrunner.errors import ObjectNotFoundError, StorageError
from batchrunner.storage.contract import Entry
from batchrunner.storage.disk.durability import DurableFolders, sync_files, sync_folder
from batchrunner.storage.disk.errors import disk_error, reading_error
from batchrunner.storage.disk.reading import read_document
from batchrunner.storage.keys import STAGING, plain_intent
from batchrunner.storage.staging import StagedFile

_STAGED = ".tmp"
_INTENTS = ".intents"


class StagingFolder:
    """The folder `<root>/.staging`, which only its owner may read; made when it is first needed.

    The intents of one `publish` share a file, so that they cost one sync and one inode in all.
    """

    def __init__(self, root: str, folders: DurableFolders) -> None:
        self.path = f"{root.rstrip('/')}/{STAGING}"
        self._root, self._folders = root, folders
        self._made = False
        self._needed: dict[str, set[str]] = {}
        """For each file of intents that this object wrote, the keys whose intents are still needed."""

    def stage(self) -> StagedFile:
        """Open a new staged file."""
        path = self.unused_path()
        if not self._made:
            self._make()
        try:
            file = _create(path)
        except FileNotFoundError:  # the folder was removed from outside, perhaps with the root
            self._folders.clear()
            self._make()
            file = _create(path)
        return StagedFile(file, path=path)

    def stage_bytes(self, data: bytes) -> StagedFile:
        """Stage *data*, written and closed but not durable."""
        return _filled(self.stage(), data)

    def stage_intents(self, intents: Mapping[str, bytes]) -> StagedFile:
        """Stage the *intents*, by key, in one file, written and closed but not durable."""
        text = json.dumps({key: plain_intent(intent) for key, intent in intents.items()})
        return self.stage_bytes(text.encode())

    def keep_intents(self, staged: StagedFile) -> str:
        """Rename *staged*, a synced file of intents, so that they count; return its path. Durable.

        Raises:
            ObjectNotFoundError: `clean` removed the file.
        """
        source = str(staged.path)
        target = source.removesuffix(_STAGED) + _INTENTS
        try:
            os.rename(source, target)
        except OSError as error:
            raise reading_error(error, source) from error
        staged.keep()
        sync_folder(self.path)
        # Of all that is staged, only intents must survive a power cut. From now on the folder must, too.
        self._folders.ensure(self.path)
        return target

    def need_intents(self, path: str, *, keys: Iterable[str]) -> None:
        """Keep the file of intents at *path* until the intents on *keys* are removed."""
        self._needed[path] = set(keys)
        self._remove_needless()

    def make_path(self) -> str:
        """Return an unused path in the staging folder, and make the folder if it is missing."""
        if not self._made:
            self._make()
        return self.unused_path()

    def unused_path(self) -> str:
        """Return a path that no other writer uses, and that `clean` removes."""
        return f"{self.path}/{os.urandom(12).hex()}{_STAGED}"

    def sync(self, staged: Iterable[StagedFile]) -> None:
        """Make what was written to *staged* durable.

        Raises:
            StorageError: Some of it is lost; the files can only be discarded.
        """
        try:
            sync_files([one.fd for one in staged])
        except OSError as error:
            raise disk_error(error, self.path, doing="make what was written durable") from error

    def intents_on(self, key: str) -> tuple[bytes, ...]:
        """Return the intents of all attempts at the object under *key*."""
        files = [_read_intents(f"{self.path}/{name}") for name in self._names(_INTENTS)]
        return tuple(intents[key].encode() for intents in files if key in intents)

    def remove_intents(self, keys: Iterable[str]) -> None:
        """Remove the files of intents that hold no needed intents but those of *keys*."""
        done = set(keys)
        own = list(self._needed.values())
        foreign = done.difference(*own)
        for needed in own:
            needed.difference_update(done)
        self._remove_needless()
        if foreign:  # intents of a writer that died: its files have to be listed and read
            self._remove_foreign(done)

    def _remove_needless(self) -> None:
        for path in [path for path, needed in list(self._needed.items()) if not needed]:
            remove([path])
            self._needed.pop(path, None)

    def _remove_foreign(self, done: AbstractSet[str]) -> None:
        paths = [f"{self.path}/{name}" for name in self._names(_INTENTS)]
        foreign = [path for path in paths if path not in self._needed]
        remove([path for path in foreign if _read_intents(path).keys() <= done])

    def garbage(self, *, intents: bool) -> list[Entry]:
        """Return all staged files, of dead and live writers; with *intents*, intent files as well."""
        entries = []
        for name in sorted(self._names(_STAGED, *([_INTENTS] if intents else []))):
            with contextlib.suppress(FileNotFoundError):  # published or discarded since
                status = os.lstat(f"{self.path}/{name}")
                entry = Entry(f"{STAGING}/{name}", status.st_size, str(status.st_mtime_ns))
                entries.append(entry)
        return entries

    def clean(self, *, intents: bool) -> None:
        """Remove all staged files, of dead and live writers; with *intents*, intent files as well."""
        remove(f"{self._root.rstrip('/')}/{entry.key}" for entry in self.garbage(intents=intents))

    def _make(self) -> None:
        self._folders.make(self._root)
        try:
            self._folders.make_unsynced(self.path, mode=0o700)
            status = os.lstat(self.path)
        except OSError as error:
            raise disk_error(error, self.path, doing="make the staging folder") from error
        if not stat.S_ISDIR(status.st_mode):
            raise StorageError(
                f"{self.path} is a file or a link, and batchrunner needs a folder there: move it away"
            )
        self._made = True

    def _names(self, *suffixes: str) -> list[str]:
        try:
            return [name for name in os.listdir(self.path) if name.endswith(suffixes)]
        except FileNotFoundError:
            return []
        except OSError as error:
            raise disk_error(error, self.path, doing="list") from error


def _create(path: str) -> io.FileIO:
    try:
        return io.FileIO(
            path, "x+b"
        )  # exclusive, so never through a link that another user planted
    except FileNotFoundError:
        raise
    except OSError as error:
        raise disk_error(error, path, doing="stage an object") from error


def _filled(staged: StagedFile, data: bytes) -> StagedFile:
    try:
        staged.file.write(data)
    except StorageError:
        staged.discard()
        raise
    staged.file.close()
    return staged


def remove(paths: Iterable[str]) -> None:
    """Remove the files at *paths*. Idempotent: a missing file is no error.

    Raises:
        StorageError: A file cannot be removed.
    """
    for path in paths:
        try:
            os.unlink(path)
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:
            raise disk_error(error, path, doing="remove") from error


def _read_intents(path: str) -> dict[str, str]:
    try:
        return cast(dict[str, str], json.loads(read_document(path)))
    except (ObjectNotFoundError, ValueError):  # removed since, or the disk lost it
        return {}
