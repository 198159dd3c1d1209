"""Parquet: columns with types, in row groups."""

from __future__ import annotations

import io
import os
import struct
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import BinaryIO

from batchrunner.errors import StorageError
from batchrunner.formats.chunk import Chunk
from batchrunner.formats.contract import (
    Cut,
    Opener,
    PartWriter,
    Restart,
    Settle,
    Sharding,
    TableFormat,
    TableReader,
)
from batchrunner.formats.hashing import SourceHash
from batchrunner.formats.partitions import Partition
from batchrunner.shard import Slice, Slicing

_TAIL = struct.Struct("<I4s")
"""The end of a file: the length of its footer, signature included, and "PAR1"."""
_SIGNATURE_BYTES = 28  # the nonce and the tag of AES-GCM, as Parquet's format of encryption has it


class Parquet(TableFormat):
    """Parquet. A row's position is its number in the file, from 0."""

    suffixes = (".parquet", ".pq")
    compressions = ("none", "snappy", "zstd", "gzip")
    default_compression = "snappy"
    has_row_groups = True
    needs_bytes = True

    def cut(
        self,
        size: int,
        *,
        compression: str | None,
        sharding: Sharding,
        limit: int | None,
        opened: Opener,
    ) -> list[Cut]:
        """Cut by the footer, which is not read if the whole file becomes one slice anyway."""
        whole = Cut(Slicing.FILE, 0, size, None, size)
        fits = sharding.unit == "bytes" and size <= sharding.count * 1.5
        if limit is None and (fits or sharding.unit == "files"):
            return [whole]
        groups = _row_groups(opened)
        if groups is None:
            return [whole]
        if sharding.unit == "rows":
            slices = _row_runs(sum(rows for rows, _ in groups), size, every=sharding.count)
        else:
            slices = _group_runs(groups, sharding=sharding)
        return slices if limit is None else _first_rows(slices, limit=limit)

    def read(
        self,
        file: BinaryIO,
        piece: Slice,
        *,
        compression: str | None,
        columns: tuple[str, ...] | None,
        partition: Partition,
    ) -> Iterator[Chunk]:
        from batchrunner.formats.parquet_reader import read_parquet

        return read_parquet(file, piece, columns=columns, partition=partition)

    def span(self, piece: Slice, positions: Collection[int], *, compression: str | None) -> Slice:
        return replace(piece, slicing=Slicing.ROWS, start=min(positions), stop=max(positions) + 1)

    def source_hash(self, piece: Slice, *, columns: Sequence[str] | None) -> SourceHash:
        from batchrunner.formats.parquet_hash import ParquetHash

        return ParquetHash(piece, columns=columns)

    def has_same_bytes(
        self, file: BinaryIO, piece: Slice, *, columns: Sequence[str] | None, hashed: str
    ) -> bool:
        from batchrunner.formats.parquet_hash import has_same_chunks

        return has_same_chunks(file, piece, columns=columns, hashed=hashed)

    def writer(
        self, file: io.RawIOBase, *, compression: str, settle: Settle, restart: Restart
    ) -> PartWriter:
        from batchrunner.formats.parquet_part import ParquetPart

        return ParquetPart(file, compression=compression, settle=settle, restart=restart)

    def rows_in_part(self, file: BinaryIO) -> int:
        from batchrunner.formats.parquet_reader import count_rows

        return count_rows(file)

    def second_reader(self) -> TableReader:
        from batchrunner.formats.parquet_second_reader import RowGroupReader

        return RowGroupReader()


def _row_groups(opened: Opener) -> list[tuple[int, int]] | None:
    """Return (rows, compressed bytes) of each row group; None if the footer cannot be read."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    with opened() as file:
        try:
            source = pq.ParquetFile(file)
            metadata = source.metadata
            if _is_signed(file, metadata.serialized_size):
                return None
        except (pa.ArrowException, OSError) as error:
            if isinstance(error, StorageError):
                raise
            return None
    groups = (metadata.row_group(index) for index in range(metadata.num_row_groups))
    return [
        (g.num_rows, sum(g.column(c).total_compressed_size for c in range(g.num_columns)))
        for g in groups
    ]


def _is_signed(file: BinaryIO, size: int) -> bool:
    """Return whether a signature follows the footer of *size* bytes: some columns are encrypted then.

    pyarrow ends the process when it is asked how large such a column is. The worker that reads the file
    says which column it cannot decrypt.
    """
    file.seek(-_TAIL.size, os.SEEK_END)
    length, _ = _TAIL.unpack(file.read(_TAIL.size))
    return bool(length == size + _SIGNATURE_BYTES)


def _row_runs(total: int, size: int, *, every: int) -> list[Cut]:
    cuts = [*range(0, total, every), total]
    weight = size // max(len(cuts) - 1, 1)
    return [Cut(Slicing.ROWS, a, b, b - a, weight) for a, b in pairwise(cuts) if b > a]


def _group_runs(groups: Sequence[tuple[int, int]], *, sharding: Sharding) -> list[Cut]:
    slices: list[Cut] = []
    start = rows = weight = 0
    for stop, (group_rows, group_bytes) in enumerate(groups, start=1):
        rows, weight = rows + group_rows, weight + group_bytes
        measure = {"bytes": weight, "row_groups": stop - start}.get(sharding.unit, 0)
        if stop == len(groups) or measure >= sharding.count:
            slices.append(Cut(Slicing.ROW_GROUPS, start, stop, rows, weight))
            start, rows, weight = stop, 0, 0
    return slices


def _first_rows(slices: Sequence[Cut], *, limit: int) -> list[Cut]:
    first_slices: list[Cut] = []
    first = 0
    for piece in slices:
        rows = piece.rows or 0
        if first + rows >= limit:
            last = Cut(Slicing.ROWS, first, limit, limit - first, piece.weight)
            return [*first_slices, last]
        first_slices.append(piece)
        first += rows
    return first_slices
