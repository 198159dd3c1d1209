"""The body of an upload: a window of a staged file, of which a megabyte is in memory at a time."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import Any

_CHUNK = 1 << 20


@dataclass(slots=True)
class Window:
    """*size* bytes of the file *fd*, from *start* on, as botocore and aiohttp read a body.

    botocore reads it to compute checksum and signature, and again as a file does; aiohttp iterates over
    it to send it. A plain file or bytes would be copied once more, and sent in small pieces, each from
    another thread.
    """

    fd: int
    start: int
    size: int
    _position: int = field(default=0, init=False)

    def __len__(self) -> int:
        return self.size

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        origin = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self.size}[whence]
        self._position = origin + offset
        return self._position

    def read(self, size: int | None = -1) -> bytes:
        left = self.size - self._position
        length = left if size is None or size < 0 else min(size, left)
        data = os.pread(self.fd, length, self.start + self._position)
        self._position += len(data)
        return data

    # Not a generator: aiohttp leaves one before its end, which then keeps a megabyte for a while.
    def __aiter__(self) -> Window:
        return self

    async def __anext__(self) -> bytes:
        if chunk := self.read(_CHUNK):
            return chunk
        raise StopAsyncIteration


def from_the_start(body: Any) -> Any:
    """Return *body*, at its start if it is a window: an attempt that failed has read it."""
    if isinstance(body, Window):
        body.seek(0)
    return body
