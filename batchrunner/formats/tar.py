"""Tar files as WebDataset has them: one row for each sample, with a member's bytes in each column."""

from __future__ import annotations

import io
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from itertools import islice
from typing import BinaryIO

from batchrunner.errors import ShardFailedError, StorageError
from batchrunner.formats.chunk import Chunk, Row
from batchrunner.formats.compression import SUFFIXES, open_compressed
from batchrunner.formats.contract import (
    Cut,
    Opener,
    PartWriter,
    RecordReader,
    Restart,
    RowFormat,
    Settle,
    Sharding,
)
from batchrunner.formats.partitions import Partition
from batchrunner.shard import Slice, Slicing


class Tar(RowFormat):
    """Samples: neighbouring members whose names are the same up to the first dot of the base name.

    A row has that name as `__key__`, and the bytes of each member by the rest of its name, in lower case:
    `cat/01.jpg` and `cat/01.cls` are a row with `__key__`, `jpg` and `cls`. A row's position is the offset of
    the first header of its first member, in the uncompressed file. Where samples begin is only found by
    reading: a file is one shard, unless `source.shard.rows` has its headers read when it is planned.
    """

    suffixes = (".tar",)
    outer = tuple(SUFFIXES.values())
    cuts_by_bytes = False
    needs_bytes = True
    compressions = ("none", "gz", "zst")
    written_as = "parquet"  # most rows that are made of samples have texts and numbers, too

    def cut(
        self,
        size: int,
        *,
        compression: str | None,
        sharding: Sharding,
        limit: int | None,
        opened: Opener,
    ) -> list[Cut]:
        whole = Cut(Slicing.FILE, 0, size, None, size)
        if limit is None and (compression or sharding.unit != "rows"):
            return [whole]
        try:
            with opened() as file:
                if compression:
                    return [_head(file, whole, compression, limit=limit or 0)]
                every = sharding.count if sharding.unit == "rows" else size
                return _runs(file, every=every, limit=limit)
        except StorageError:
            raise
        except (ShardFailedError, OSError):
            return [whole]  # the worker that reads it says why

    def read(
        self,
        file: BinaryIO,
        piece: Slice,
        *,
        compression: str | None,
        columns: tuple[str, ...] | None,
        partition: Partition,
    ) -> Iterator[Chunk]:
        from batchrunner.formats.tar_reader import read_tar

        return read_tar(file, piece, compression=compression, columns=columns, partition=partition)

    def span(self, piece: Slice, positions: Collection[int], *, compression: str | None) -> Slice:
        if compression:
            return replace(piece, slicing=Slicing.FILE, start=0, stop=piece.size)
        return replace(piece, slicing=Slicing.BYTES, start=min(positions), stop=max(positions) + 1)

    def encode(self, rows: Sequence[Row]) -> bytes:
        from batchrunner.formats.tar_part import encode_samples

        return encode_samples(rows)

    def writer(
        self, file: io.RawIOBase, *, compression: str, settle: Settle, restart: Restart
    ) -> PartWriter:
        from batchrunner.formats.tar_part import TarPart

        return TarPart(file, compression=compression)

    def second_reader(self) -> RecordReader:
        from batchrunner.formats.tar_second_reader import HeaderReader

        return HeaderReader()


def _runs(file: BinaryIO, *, every: int, limit: int | None) -> list[Cut]:
    """Return slices of *every* samples each, of at most *limit* samples in all."""
    from batchrunner.formats.tar_members import samples

    slices: list[Cut] = []
    start = rows = end = 0
    for sample in islice(samples(file, skips=True), limit):
        rows, end = rows + 1, sample.end
        if rows == every:
            slices.append(Cut(Slicing.BYTES, start, end, rows, end - start))
            start, rows = end, 0
    return [*slices, Cut(Slicing.BYTES, start, end, rows, end - start)] if rows else slices


def _head(file: BinaryIO, whole: Cut, compression: str, *, limit: int) -> Cut:
    from batchrunner.formats.tar_members import samples

    found = samples(open_compressed(file, compression))
    rows = sum(1 for _ in islice(found, limit + 1))
    if rows <= limit:
        return replace(whole, rows=rows)
    return replace(whole, slicing=Slicing.HEAD, stop=limit, rows=limit)
