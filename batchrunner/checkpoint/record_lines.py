"""Records that are lines, of any size."""

from __future__ import annotations

from collections.abc import Iterator

from batchrunner.errors import ObjectNotFoundError
from batchrunner.storage.seam import Storage

_BLOCK_BYTES = 1 << 20


def record_lines(records: Storage, key: str) -> Iterator[bytes]:
    """Yield the lines of the object under *key*, in bounded memory.

    Raises:
        ObjectNotFoundError: There is none.
    """
    entry = records.head(key)
    if entry is None:
        raise ObjectNotFoundError(f"{records.uri}/{key} is not there")
    rest = b""
    with records.open(entry) as file:
        while block := file.read(_BLOCK_BYTES):
            *whole, rest = (rest + block).split(b"\n")
            yield from whole
    if rest:
        yield rest
