"""Whole files: one row for each, with its path, size, bytes and time."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import BinaryIO

from batchrunner.formats.chunk import Chunk
from batchrunner.formats.contract import (
    Cut,
    Format,
    Opener,
    Sharding,
    SourceOnly,
    TableFormat,
    TableReader,
)
from batchrunner.formats.partitions import Partition
from batchrunner.shard import Slice, Slicing


class Files(SourceOnly, TableFormat):
    """Files of any name and content. Each is one row, whose position is 0.

    The columns are `path` (the absolute URI), `size`, `bytes` and `modified` (UTC, as listed when the file
    was planned; null if the store has no time). A file is opened only if `bytes` is read. A sink of this
    format has parts of another: they list the files that are published (`Listing`).
    """

    suffixes = ()
    reads_to_cut = False
    written_as = "parquet"
    has_empty_files = True

    def cut(
        self,
        size: int,
        *,
        compression: str | None,
        sharding: Sharding,
        limit: int | None,
        opened: Opener,
    ) -> list[Cut]:
        return [Cut(Slicing.FILE, 0, size, 1, size)]

    def read(
        self,
        file: BinaryIO,
        piece: Slice,
        *,
        compression: str | None,
        columns: tuple[str, ...] | None,
        partition: Partition,
    ) -> Iterator[Chunk]:
        from batchrunner.formats.files_reader import read_file

        return read_file(file, piece, columns=columns, partition=partition)

    def span(self, piece: Slice, positions: Collection[int], *, compression: str | None) -> Slice:
        return piece

    @property
    def of_parts(self) -> Format:
        from batchrunner.formats.listing import Listing

        return Listing()

    def second_reader(self) -> TableReader:
        from batchrunner.formats.files_second_reader import FileReader

        return FileReader()
