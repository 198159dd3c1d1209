"""One open file under several scans at once."""

from __future__ import annotations

import os
import threading
from typing import BinaryIO


class SharedFile:
    """A file for Arrow, in which each thread has a position of its own.

    Arrow asks for its size by seeking to its end and back, and does not keep out the reads of
    other scans meanwhile: with one position they would read from the wrong place.

    Args:
        file: Seekable. It is closed with this one.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file, self._lock, self._own = file, threading.Lock(), threading.local()
        self._size = file.seek(0, os.SEEK_END)

    @property
    def closed(self) -> bool:
        """Whether it is."""
        return self._file.closed

    def tell(self) -> int:
        """Return the position of this thread."""
        return getattr(self._own, "position", 0)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move the position of this thread."""
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self.tell(), os.SEEK_END: self._size}[whence]
        self._own.position = start + offset
        return self.tell()

    def read(self, size: int = -1) -> bytes:
        """Return up to *size* bytes from the position of this thread on."""
        with self._lock:
            self._file.seek(self.tell())
            data = self._file.read(size)
        self._own.position = self.tell() + len(data)
        return data

    def close(self) -> None:
        """Close it. Raises what its file raises."""
        self._file.close()
