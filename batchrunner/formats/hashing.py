"""A hash of what a shard was made of, so that the same bytes are the same file, whatever their time.

It covers what the shard's rows depend on, and nothing that they don't:

* a byte range of JSON lines: from the byte before its `start` to its end, which is the first
  newline at or after the byte before `stop`, or the end of the file;
* a compressed file: its bytes from the first to the last one that was read;
* Parquet: the footer, and the column chunks that are read of the shard's row groups; of a shard
  that is a whole file with all its columns, the file.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import TYPE_CHECKING, Any, BinaryIO, cast

import xxhash

from batchrunner.formats.naming import PARQUET, FileKind
from batchrunner.shard import Shard, Slicing

if TYPE_CHECKING:
    import pyarrow.parquet as pq

_BLOCK_BYTES = 128 << 10  # stays in the processor's cache, and in memory that is there already
_HELD_BYTES = 48 << 20
"""A file of Parquet is held as a whole up to this size. Its reader holds row groups of it anyway."""

_TRAILER_BYTES = 8  # length of the footer, "PAR1"


class HashedReads(io.RawIOBase):
    """A file that is read front to back, and hashed on the way. Its owner closes the file."""

    def __init__(self, file: BinaryIO, *, start: int, stop: int | None) -> None:
        """Hash from byte *start* to the end of the line that reaches *stop*, or of what is read."""
        self._file, self._stop = file, stop
        self._at, self._hashed_to, self._start = 0, start, start
        self._hash = xxhash.xxh3_128()
        self._is_whole, self._is_done = True, False

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        self._at = self._file.seek(offset, whence)
        return self._at

    def tell(self) -> int:
        return self._at

    def read(self, size: int | None = -1, /) -> bytes:
        data = self._file.read(-1 if size is None else size)
        self._take(data)
        return data

    def readall(self) -> bytes:
        return self.read()

    def readinto(self, buffer: Any, /) -> int:
        view = memoryview(buffer).cast("B")
        data = self.read(view.nbytes)
        view[: len(data)] = data
        return len(data)

    def _take(self, data: bytes) -> None:
        at, self._at = self._at, self._at + len(data)
        if self._is_done or self._at <= self._hashed_to:
            return
        if at > self._hashed_to:
            self._is_whole = False
            return
        first, last = self._hashed_to - at, len(data)
        if self._stop is not None:
            newline = data.find(b"\n", max(self._stop - 1 - at, first)) + 1
            self._is_done, last = bool(newline), newline or last
        self._hash.update(memoryview(data)[first:last])
        self._hashed_to = at + last

    def digest(self) -> str:
        """Return the hash; empty when bytes were passed over, so that it says nothing."""
        return _told(self._hash, self._hashed_to - self._start) if self._is_whole else ""


class SourceHash:
    """Takes the hash of one shard's source. Call `over` before reading and `finish` after it."""

    def __init__(self, shard: Shard, kind: FileKind, *, columns: Sequence[str] | None) -> None:
        self._shard, self._kind, self._columns = shard, kind, columns
        self._reads: HashedReads | None = None
        self.text = ""

    def over(self, file: BinaryIO) -> BinaryIO:
        """Return *file* as it is to be read."""
        if self._kind.format == PARQUET:
            return self._over_table(file)
        in_lines = self._shard.slicing is Slicing.BYTES
        self._reads = HashedReads(
            file, start=_first_byte(self._shard), stop=self._shard.stop if in_lines else None
        )
        return cast(BinaryIO, self._reads)

    def _over_table(self, file: BinaryIO) -> BinaryIO:
        """Return a whole file that is small as its bytes, hashed: they are then read only once."""
        if not _is_whole(self._shard, self._columns) or self._shard.size > _HELD_BYTES:
            return file
        import pyarrow as pa

        data = file.read(self._shard.size)
        self.text = _told(xxhash.xxh3_128(data), len(data))
        return cast(BinaryIO, pa.BufferReader(data))

    def finish(self, file: BinaryIO) -> None:
        """Make `text` the hash, from what was read; a large *file* of Parquet is read once more.

        Its pages are decoded in an order that is pyarrow's own affair.
        """
        if self._reads is not None:
            self.text = self._reads.digest()
        elif not self.text:
            self.text = _parquet_hash(file, self._shard, self._columns)


def holds_still(
    file: BinaryIO, shard: Shard, kind: FileKind, *, columns: Sequence[str] | None, hashed: str
) -> bool:
    """Tell whether *file* still has the bytes whose hash was *hashed* when *shard* was read."""
    if kind.format == PARQUET:
        return _still_parquet(file, shard, columns, hashed)
    count = int(hashed.rpartition("-")[2])
    digest = xxhash.xxh3_128()
    _update(digest, file, [(_first_byte(shard), count)])
    return _told(digest, count) == hashed


def _first_byte(shard: Shard) -> int:
    """The byte before a range decides whether a line begins right at it."""
    return max(shard.start - 1, 0) if shard.slicing is Slicing.BYTES else 0


def _told(digest: xxhash.xxh3_128, count: int) -> str:
    return f"{digest.hexdigest()}-{count}"


def _update(
    digest: xxhash.xxh3_128, file: BinaryIO, extents: Sequence[tuple[int, int]]
) -> xxhash.xxh3_128:
    block = memoryview(bytearray(_BLOCK_BYTES))
    for start, count in extents:
        file.seek(start)
        left = count
        while left and (got := cast(io.RawIOBase, file).readinto(block[: min(left, len(block))])):
            digest.update(block[:got])
            left -= got
    return digest


def _parquet_hash(file: BinaryIO, shard: Shard, columns: Sequence[str] | None) -> str:
    if _is_whole(shard, columns):
        return _extents_hash(file, [(0, shard.size)])
    return f"{_footer_hash(file, shard)}+{_chunks_hash(file, shard, columns)}"


def _still_parquet(
    file: BinaryIO, shard: Shard, columns: Sequence[str] | None, hashed: str
) -> bool:
    if _is_whole(shard, columns):
        return _extents_hash(file, [(0, shard.size)]) == hashed
    footer, _, chunks = hashed.partition("+")
    # The footer first: one of other bytes may be none, and Arrow aborts the process over some.
    return _footer_hash(file, shard) == footer and _chunks_hash(file, shard, columns) == chunks


def _is_whole(shard: Shard, columns: Sequence[str] | None) -> bool:
    return shard.slicing is Slicing.FILE and columns is None


def _extents_hash(file: BinaryIO, extents: Sequence[tuple[int, int]]) -> str:
    digest = _update(xxhash.xxh3_128(), file, extents)
    return _told(digest, sum(count for _, count in extents))


def _footer_hash(file: BinaryIO, shard: Shard) -> str:
    file.seek(max(shard.size - _TRAILER_BYTES, 0))
    length = int.from_bytes(file.read(4), "little") + _TRAILER_BYTES
    return _extents_hash(file, [(max(shard.size - length, 0), min(length, shard.size))])


def _chunks_hash(file: BinaryIO, shard: Shard, columns: Sequence[str] | None) -> str:
    return _extents_hash(file, list(_column_chunks(file, shard, columns)))


def _column_chunks(
    file: BinaryIO, shard: Shard, columns: Sequence[str] | None
) -> Iterator[tuple[int, int]]:
    import pyarrow.parquet as pq

    file.seek(0)
    metadata = pq.read_metadata(file)
    for group in _groups(metadata, shard):
        row_group = metadata.row_group(group)
        for number in range(row_group.num_columns):
            chunk = row_group.column(number)
            if columns is None or _is_below(chunk.path_in_schema, columns):
                first = chunk.data_page_offset
                if chunk.has_dictionary_page:
                    first = min(first, chunk.dictionary_page_offset)
                yield first, chunk.total_compressed_size


def _is_below(path: str, columns: Sequence[str]) -> bool:
    return any(path == name or path.startswith(f"{name}.") for name in columns)


def _groups(metadata: pq.FileMetaData, shard: Shard) -> Sequence[int]:
    if shard.slicing is Slicing.ROW_GROUPS:
        return range(shard.start, min(shard.stop, metadata.num_row_groups))
    if shard.slicing is Slicing.FILE:
        return range(metadata.num_row_groups)
    rows = [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)]
    ends = list(accumulate(rows))
    return [
        group
        for group, end in enumerate(ends)
        if end > shard.start and end - rows[group] < shard.stop
    ]
