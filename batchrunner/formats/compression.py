"""Compression of a whole file, as in `.jsonl.gz`: readers undo it, and parts apply it."""

from __future__ import annotations

import io
from typing import Any, BinaryIO, Protocol

SUFFIXES = {".gz": "gz", ".zst": "zst"}
SHORT = {".tgz": ".tar.gz", ".tzst": ".tar.zst", ".tbz2": ".tar.bz2", ".txz": ".tar.xz"}
"""One suffix that stands for two."""

_CODECS = {"gz": "gzip", "zst": "zstd"}


class ByteStream(Protocol):
    """A binary file of which only `read` is used."""

    def read(self, size: int, /) -> bytes:
        """Return up to *size* bytes, none at the end."""


def open_compressed(file: BinaryIO, compression: str | None) -> ByteStream:
    """Return a stream of the uncompressed *file*, which may have several gzip members or frames."""
    if compression is None:
        return file
    import pyarrow as pa

    stream: ByteStream = pa.CompressedInputStream(file, _CODECS[compression])
    return stream


class RowPart:
    """Writes the encoded rows of one part, compressed or not."""

    def __init__(self, file: io.RawIOBase, *, compression: str) -> None:
        """Write to *file*; *compression* is none, gz or zst."""
        self._out: Any = file
        if compression != "none":
            import pyarrow as pa

            self._out = pa.CompressedOutputStream(pa.PythonFile(file, "w"), _CODECS[compression])

    def append(self, rows: bytes) -> None:
        self._out.write(rows)

    def close(self) -> None:
        self._out.close()
