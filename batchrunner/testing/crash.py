"""Kills the process at a chosen change to a disk, by SIGKILL, and can imitate a power cut.

Patches the functions of `os` that change a disk, counts the calls, and kills the process at one of
them. Use it in a child process.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Any, NoReturn

CHANGES = ("mkdir", "link", "rename", "replace", "unlink", "fsync")


class Death(StrEnum):
    """What is on the disk when the process dies at a change."""

    BEFORE = "before"
    """The change is not made."""
    AFTER = "after"
    """The change is made."""
    TORN = "torn"
    """The file that was about to be synced loses its second half."""
    POWER_CUT = "power cut"
    """Some changes that were not synced are lost: new folders, links and renames."""


class Disk:
    """Counts the changes of this process to a disk, and kills it at one of them.

    Attributes:
        changes: Name of the `os` function of each change so far.
    """

    def __init__(self, *, die_at: int = 0, death: Death = Death.BEFORE, seed: int = 0) -> None:
        """Count changes; at number *die_at*, from 1, die in the way of *death*. 0 never dies."""
        self.changes: list[str] = []
        self._die_at, self._death, self._random = die_at, death, random.Random(seed)  # noqa: S311 - no secret
        self._unsynced: list[tuple[str, Callable[[], None]]] = []
        self._real = {name: getattr(os, name) for name in CHANGES}

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Watch the changes made inside the block."""
        for name in CHANGES:
            setattr(os, name, self._watching(name))
        try:
            yield
        finally:
            for name, real in self._real.items():
                setattr(os, name, real)

    def _watching(self, name: str) -> Callable[..., Any]:
        real = self._real[name]

        def change(*args: Any, **kwargs: Any) -> Any:
            self.changes.append(name)
            fatal = len(self.changes) == self._die_at
            if fatal and self._death is not Death.AFTER:
                self._die(name, args)
            undo = self._undo(name, args)
            result = real(*args, **kwargs)
            self._remember(name, args, undo)
            if fatal:
                self._die(name, args)
            return result

        return change

    def _die(self, name: str, args: tuple[Any, ...]) -> NoReturn:
        if self._death is Death.TORN and name == "fsync" and not _is_folder(args[0]):
            os.ftruncate(args[0], os.fstat(args[0]).st_size // 2)
        if self._death is Death.POWER_CUT:
            for _, undo in reversed(self._unsynced):
                if self._random.random() < 0.5:
                    undo()
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError("still alive")

    def _undo(self, name: str, args: tuple[Any, ...]) -> Callable[[], None] | None:
        """Return a function that undoes the change, as if the disk had not written it yet."""
        if name == "mkdir":
            return lambda: _quietly(os.rmdir, args[0])
        if name == "link":
            return lambda: _quietly(self._real["unlink"], args[1])
        if name in ("rename", "replace"):
            old = Path(args[1]).read_bytes() if Path(args[1]).exists() else None
            return lambda: self._rename_back(args[0], args[1], old)
        return None

    def _rename_back(self, source: str, target: str, old: bytes | None) -> None:
        _quietly(self._real["rename"], target, source)
        if old is not None:
            Path(target).write_bytes(old)

    def _remember(self, name: str, args: tuple[Any, ...], undo: Callable[[], None] | None) -> None:
        if name == "fsync":
            path = str(Path(f"/proc/self/fd/{args[0]}").readlink())
            self._unsynced = [entry for entry in self._unsynced if entry[0] != path]
        elif undo is not None:
            folder = os.path.dirname(args[-1] if name != "mkdir" else args[0])  # noqa: PTH120 - a string
            self._unsynced.append((folder, undo))


def _is_folder(fd: int) -> bool:
    return stat.S_ISDIR(os.fstat(fd).st_mode)


def _quietly(change: Callable[..., Any], *args: Any) -> None:
    with contextlib.suppress(OSError):
        change(*args)
