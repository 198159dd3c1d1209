"""Giving up root's right to read and write everything, for tests of what others may not."""

from __future__ import annotations

import os
from contextlib import contextmanager

_NOBODY = 65534


@contextmanager
def as_nobody():
    """Be an ordinary user inside the block, when this is root."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(_NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


def obeying_permissions(command: list[str]) -> list[str]:
    """Return *command* so that a file's mode counts for it, even when this is root."""
    if os.geteuid() != 0:
        return command
    return ["setpriv", "--bounding-set", "-dac_override,-dac_read_search", "--", *command]


def on_a_small_disk(command: list[str], folder: str, *, kilobytes: int) -> list[str]:
    """Return *command* so that *folder* is a disk of its own, of that size."""
    unshare = ["unshare", "-m"] if os.geteuid() == 0 else ["unshare", "-Urm"]
    mount = f"mount -t tmpfs -o size={kilobytes}k small '{folder}'"
    return [*unshare, "sh", "-c", f'{mount} && exec "$@"', "sh", *command]
