"""Staged bytes, in a file that only this process has open."""

from __future__ import annotations

import contextlib
import io
import os
import tempfile
from typing import TYPE_CHECKING, BinaryIO

from batchrunner.storage.disk.errors import disk_error

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer


class WholeWrites(io.FileIO):
    """A raw file whose `write` writes everything or raises.

    The kernel may take less than it is given: beyond 2 GiB, on a disk that is nearly full, at a
    quota. A writer that ignores the count, as pyarrow does, would publish a part that is cut short.
    """

    def __init__(self, fd: int, *, where: str) -> None:
        super().__init__(fd, "r+b", closefd=False)
        self._where = where

    def write(self, data: ReadableBuffer) -> int:
        """Write all of *data*.

        Raises:
            StorageError: There is no space, or a quota or limit is reached; the message names the path.
        """
        try:
            written = super().write(data)
            size = memoryview(data).nbytes
            while written < size:
                written += super().write(memoryview(data).cast("B")[written:])
        except OSError as error:
            raise disk_error(error, self._where, doing="write") from error
        return size


class StagedFile:
    """A staged object in a file. The file stays open here until it is published or discarded.

    So a sync uses the same descriptor as the writes: the kernel reports every failed write to it.
    """

    __slots__ = ("_owner", "_view", "path")

    def __init__(self, owner: io.FileIO, *, path: str | None = None) -> None:
        self._owner = owner
        self._view = WholeWrites(owner.fileno(), where=path or tempfile.gettempdir())
        self.path = path

    @property
    def file(self) -> BinaryIO:
        return self._view

    @property
    def fd(self) -> int:
        """The descriptor of the open file; its position is undefined.

        Raises:
            ValueError: The object was discarded or published, or `file` is not closed yet.
        """
        if not self._view.closed:
            raise ValueError("close the staged file before it is published")
        return self._owner.fileno()

    def keep(self) -> None:
        """Close the file and leave it where it is."""
        self._view.close()
        self._owner.close()

    def discard(self) -> None:
        self._view.close()
        if self._owner.closed:
            return
        with contextlib.suppress(OSError):  # `clean` removes what this cannot
            self._owner.close()
            if self.path is not None:
                os.unlink(self.path)  # noqa: PTH108 -- once per object: pathlib is slower


def stage_anonymously() -> StagedFile:
    """Open a file without a name in the temporary folder: the kernel removes it with this process.

    Raises:
        StorageError: The temporary folder is full or cannot be written.
    """
    try:
        owner = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115 -- the `StagedFile` closes it
    except OSError as error:
        raise disk_error(error, tempfile.gettempdir(), doing="stage an object") from error
    return StagedFile(owner)
