"""Compression of a whole file, as in `.jsonl.gz`: readers undo it, and parts apply it."""

from __future__ import annotations

import bz2
import io
import lzma
from typing import Any, BinaryIO, Protocol

SUFFIXES = {".gz": "gz", ".zst": "zst", ".bz2": "bz2", ".xz": "xz"}

SHORT = {".tgz": ".tar.gz", ".tzst": ".tar.zst", ".tbz2": ".tar.bz2", ".txz": ".tar.xz"}
"""One suffix that stands for two."""

OUTER = tuple(SUFFIXES.values())
"""All compressions of a whole file that `open_compressed` undoes."""

_CODECS = {"gz": "gzip", "zst": "zstd"}
_BLOCK_BYTES = 1 << 18
_XZ_PADDING = 4


class ByteStream(Protocol):
    """A binary file of which only `read` is used."""

    def read(self, size: int, /) -> bytes:
        """Return up to *size* bytes, none at the end."""


def open_compressed(file: BinaryIO, compression: str | None) -> ByteStream:
    """Return a stream of the uncompressed *file*, which may have several members or frames.

    Reading raises OSError if the file is damaged, cut short, or goes on with other bytes.
    """
    if compression is None:
        return file
    if compression in {"bz2", "xz"}:
        return _Streams(file, compression)
    import pyarrow as pa

    stream: ByteStream = pa.CompressedInputStream(file, _CODECS[compression])
    return stream


class _Streams:
    """Uncompresses bzip2 or xz streams that follow each other, in bounded memory.

    Not `bz2.BZ2File` and `lzma.LZMAFile`: after the first stream, both take bytes that are no stream
    for the end of the file, and the rows in a damaged second stream would be lost in silence.
    """

    def __init__(self, file: BinaryIO, compression: str) -> None:
        self._file, self._is_xz = file, compression == "xz"
        self._stream = self._next_stream()
        self._waiting = b""

    def _next_stream(self) -> Any:
        return lzma.LZMADecompressor(lzma.FORMAT_XZ) if self._is_xz else bz2.BZ2Decompressor()

    def read(self, size: int, /) -> bytes:
        """Return up to *size* bytes, none at the end."""
        try:
            while self._goes_on():
                data: bytes = self._stream.decompress(self._input(), max_length=size)
                if data:
                    return data
        except (lzma.LZMAError, EOFError) as error:
            raise OSError(str(error)) from error
        return b""

    def _goes_on(self) -> bool:
        """Return whether more bytes may come; begin the next stream where one ended."""
        if not self._stream.eof:
            return True
        self._waiting = self._without_padding(self._stream.unused_data or self._block())
        if self._waiting:
            self._stream = self._next_stream()
        return bool(self._waiting)

    def _without_padding(self, data: bytes) -> bytes:
        """Skip the zeros that may stand between streams of xz, four or a multiple of it."""
        zeros = 0
        while self._is_xz and data[:1] == b"\0":
            rest = data.lstrip(b"\0")
            zeros, data = zeros + len(data) - len(rest), rest or self._block()
        if zeros % _XZ_PADDING:
            raise OSError("bytes that are no stream follow its last one")
        return data

    def _input(self) -> bytes:
        data, self._waiting = self._waiting, b""
        if data or not self._stream.needs_input:
            return data
        if not (data := self._block()):
            raise EOFError("it ends before its last stream does")
        return data

    def _block(self) -> bytes:
        return self._file.read(_BLOCK_BYTES)


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
