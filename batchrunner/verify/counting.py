"""Rows counted without the code that read or wrote them: a second opinion."""

from __future__ import annotations

import gzip
import threading
import zlib
from collections.abc import Iterator
from itertools import accumulate
from typing import Any, Protocol

from batchrunner.errors import ObjectChangedError, ObjectNotFoundError, StorageError
from batchrunner.formats.naming import PARQUET, FileKind, file_kind
from batchrunner.shard import Shard, Slicing
from batchrunner.spec import SourceSpec
from batchrunner.storage import Entry, locate

BLOCK_BYTES = 1 << 20
BOM = b"\xef\xbb\xbf"


class Bytes(Protocol):
    """The part of a binary file that rows are counted in."""

    def read(self, size: int, /) -> bytes:
        """Return up to *size* bytes, none at the end."""


class LineCount:
    """Counts the lines with something in them, fed block by block, however long they are."""

    def __init__(self, *, from_start: bool) -> None:
        """Begin at the first byte of a file, where a byte order mark may stand, or inside it."""
        self.has_text = False
        self._ended = 0
        self._skip_mark = from_start

    def feed(self, block: bytes) -> None:
        """Add the bytes that follow."""
        if self._skip_mark:
            self._skip_mark, block = False, block.removeprefix(BOM)
        first, *others = block.split(b"\n")
        self.has_text = self.has_text or bool(first.strip())
        if others:
            self._ended += self.has_text + sum(map(bool, map(bytes.strip, others[:-1])))
            self.has_text = bool(others[-1].strip())

    @property
    def rows(self) -> int:
        """Lines so far; one that has not ended counts as soon as it has text."""
        return self._ended + self.has_text


def blocks(stream: Bytes) -> Iterator[bytes]:
    """Yield what *stream* still holds."""
    while block := stream.read(BLOCK_BYTES):
        yield block


def count_in_range(file: Any, start: int, stop: int) -> int:
    """Count the lines with text whose first byte lies in [*start*, *stop*) of seekable *file*."""
    at = line_start(file, start)
    lines = LineCount(from_start=at == 0)
    file.seek(at)
    last = b"\n"
    while at < stop and (block := file.read(min(BLOCK_BYTES, stop - at))):
        lines.feed(block)
        at, last = at + len(block), block[-1:]
    if last != b"\n" and not lines.has_text:  # the last line goes on; it may have text there
        for block in blocks(file):
            line, newline, _ = block.partition(b"\n")
            lines.feed(line)
            if newline or lines.has_text:
                break
    return lines.rows


def line_start(file: Any, offset: int) -> int:
    """Return where the first line begins that begins at *offset* or later."""
    if offset == 0:
        return 0
    at: int = file.seek(offset - 1)
    for block in blocks(file):
        if (found := block.find(b"\n")) >= 0:
            return at + found + 1
        at += len(block)
    return at


def count_lines(stream: Bytes, *, most: int | None = None) -> int:
    """Count the lines with text in *stream*; stop at *most*."""
    lines = LineCount(from_start=True)
    for block in blocks(stream):
        lines.feed(block)
        if most is not None and lines.rows >= most:
            return most
    return lines.rows


def uncompressed(file: Any, compression: str | None) -> Any:
    """Return a stream of what is inside *file*."""
    if compression == "gz":
        return gzip.GzipFile(fileobj=file, mode="rb")
    if compression == "zst":
        import pyarrow as pa

        return pa.CompressedInputStream(file, "zstd")
    return file


def unreadable() -> tuple[type[Exception], ...]:
    """Return what reading something damaged may raise."""
    import pyarrow as pa

    return (OSError, EOFError, zlib.error, pa.ArrowException, ValueError)


GONE = (ObjectChangedError, ObjectNotFoundError)
"""What says that the file is not the one that was read, so that nothing can be counted."""


class UncountableError(StorageError):
    """The file is the one that was read, and cannot be read now."""


class SourceRows:
    """Counts in the files of *source*. Safe in several threads."""

    def __init__(self, source: SourceSpec) -> None:
        self._source = source
        self._groups: dict[str, tuple[int, ...]] = {}
        self._lock = threading.Lock()

    def of(self, shard: Shard) -> int:
        """Return the rows of *shard*, which must not be one of dead letters.

        Raises:
            ObjectChangedError: Its file was written since.
            ObjectNotFoundError: Its file is gone.
            UncountableError: Its file cannot be read.
        """
        return self._count(shard, after=False)

    def after(self, shard: Shard) -> int:
        """Return the rows of the file of *shard* that come after it. Raises as `of` does."""
        return self._count(shard, after=True)

    def _count(self, shard: Shard, *, after: bool) -> int:
        kind = file_kind(shard.uri, format=self._source.format) or FileKind("jsonl")
        try:
            if kind.format == PARQUET:
                return _in_groups(self._row_groups(shard), shard, after=after)
            return self._lines(shard, kind, after=after)
        except StorageError:
            raise
        except unreadable() as error:
            raise UncountableError(f"{shard.uri} cannot be read: {error}") from error

    def _lines(self, shard: Shard, kind: FileKind, *, after: bool) -> int:
        if after and shard.slicing is not Slicing.BYTES:
            return 0
        with self._open(shard) as file:
            if shard.slicing is Slicing.BYTES:
                span = (shard.stop, shard.size) if after else (shard.start, shard.stop)
                return count_in_range(file, *span)
            most = shard.stop if shard.slicing is Slicing.HEAD else None
            return count_lines(uncompressed(file, kind.compression), most=most)

    def _row_groups(self, shard: Shard) -> tuple[int, ...]:
        import pyarrow.parquet as pq

        with self._lock:
            if shard.uri not in self._groups:
                with self._open(shard) as file:
                    footer = pq.ParquetFile(file).metadata
                rows = (footer.row_group(i).num_rows for i in range(footer.num_row_groups))
                self._groups[shard.uri] = tuple(rows)
            return self._groups[shard.uri]

    def _open(self, shard: Shard) -> Any:
        storage, key = locate(shard.uri, storage_options=self._source.storage_options)
        return storage.open(Entry(key, shard.size, shard.identity))


def _in_groups(groups: tuple[int, ...], shard: Shard, *, after: bool) -> int:
    """Return the rows of *shard*, or those after it, in a file of row groups of these sizes."""
    ends = [0, *accumulate(groups)]
    if shard.slicing is Slicing.FILE:
        first, end = 0, ends[-1]
    elif shard.slicing is Slicing.ROW_GROUPS:
        first, end = (ends[min(at, len(groups))] for at in (shard.start, shard.stop))
    else:
        first, end = (min(at, ends[-1]) for at in (shard.start, shard.stop))
    return ends[-1] - end if after else end - first
