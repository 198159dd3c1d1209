"""Hashes of the source bytes of Parquet shards; see `hashing.py` for what they are good for.

A hash covers the footer, and the column chunks of the slice's row groups that are read. If the slice
is a whole file with all its columns, it covers the file.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import TYPE_CHECKING, BinaryIO, cast

import xxhash

from batchrunner.formats.hashing import digest_text, extents_hash
from batchrunner.shard import Slice, Slicing

if TYPE_CHECKING:
    import pyarrow.parquet as pq

_HELD_BYTES = 48 << 20
"""Files up to this size are read into memory as a whole. The reader holds row groups anyway."""

_TRAILER_BYTES = 8  # length of the footer, "PAR1"


class ParquetHash:
    """Hashes the source of one slice; `text` is "" until `finish`, or `over` for small files."""

    def __init__(self, piece: Slice, *, columns: Sequence[str] | None) -> None:
        self._slice, self._columns = piece, columns
        self.text = ""

    def over(self, file: BinaryIO) -> BinaryIO:
        """Return *file*; if it is small and read as a whole, hash it and return its bytes."""
        if not _is_whole(self._slice, self._columns) or self._slice.size > _HELD_BYTES:
            return file
        import pyarrow as pa

        data = file.read(self._slice.size)
        self.text = digest_text(xxhash.xxh3_128(data), len(data))
        return cast(BinaryIO, pa.BufferReader(data))

    def finish(self, file: BinaryIO) -> None:
        """Read the slice's bytes of a large *file* again, to hash them.

        They cannot be hashed while pyarrow decodes them, since it chooses the order of the pages.
        """
        if not self.text:
            self.text = _parquet_hash(file, self._slice, self._columns)


def _parquet_hash(file: BinaryIO, piece: Slice, columns: Sequence[str] | None) -> str:
    if _is_whole(piece, columns):
        return extents_hash(file, [(0, piece.size)])
    return f"{_footer_hash(file, piece)}+{_chunks_hash(file, piece, columns)}"


def has_same_chunks(
    file: BinaryIO, piece: Slice, *, columns: Sequence[str] | None, hashed: str
) -> bool:
    """Return whether the bytes of *file* that *piece* reads have the hash *hashed*."""
    if _is_whole(piece, columns):
        return extents_hash(file, [(0, piece.size)]) == hashed
    footer, _, chunks = hashed.partition("+")
    # The footer first: changed bytes may be no footer, and some make Arrow abort the process.
    return _footer_hash(file, piece) == footer and _chunks_hash(file, piece, columns) == chunks


def _is_whole(piece: Slice, columns: Sequence[str] | None) -> bool:
    return piece.slicing is Slicing.FILE and columns is None


def _footer_hash(file: BinaryIO, piece: Slice) -> str:
    file.seek(max(piece.size - _TRAILER_BYTES, 0))
    length = int.from_bytes(file.read(4), "little") + _TRAILER_BYTES
    return extents_hash(file, [(max(piece.size - length, 0), min(length, piece.size))])


def _chunks_hash(file: BinaryIO, piece: Slice, columns: Sequence[str] | None) -> str:
    return extents_hash(file, list(_column_chunks(file, piece, columns)))


def _column_chunks(
    file: BinaryIO, piece: Slice, columns: Sequence[str] | None
) -> Iterator[tuple[int, int]]:
    import pyarrow.parquet as pq

    file.seek(0)
    metadata = pq.read_metadata(file)
    for group in _groups(metadata, piece):
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


def _groups(metadata: pq.FileMetaData, piece: Slice) -> Sequence[int]:
    if piece.slicing is Slicing.ROW_GROUPS:
        return range(piece.start, min(piece.stop, metadata.num_row_groups))
    if piece.slicing is Slicing.FILE:
        return range(metadata.num_row_groups)
    rows = [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)]
    ends = list(accumulate(rows))
    return [
        group
        for group, end in enumerate(ends)
        if end > piece.start and end - rows[group] < piece.stop
    ]
