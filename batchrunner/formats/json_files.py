"""JSON: files of one document each, which is a row, or of one array, whose elements are rows."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, BinaryIO

from batchrunner.errors import StorageError
from batchrunner.formats.chunk import Chunk
from batchrunner.formats.compression import OUTER, open_compressed
from batchrunner.formats.contract import (
    Cut,
    Opener,
    RecordReader,
    RowFormat,
    Sharding,
    SourceOnly,
)
from batchrunner.formats.partitions import Partition
from batchrunner.shard import Slice, Slicing

if TYPE_CHECKING:
    from batchrunner.formats.json_elements import ElementBlock


class Json(SourceOnly, RowFormat):
    """JSON. A row's position is the offset of its element in the uncompressed file; a document's is 0."""

    suffixes = (".json",)
    outer = OUTER
    gives_way = True
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
        """Cut a large array between elements, which takes one read of the file.

        Where elements begin can only be known by reading all that comes before them.
        """
        from batchrunner.formats.json_elements import UndividedError, read_elements

        whole = Cut(Slicing.FILE, 0, size, None, size)
        is_small = sharding.unit == "bytes" and size <= sharding.count * 1.5
        if limit is None and (compression or is_small or sharding.unit == "files"):
            return [whole]
        try:
            with opened() as file:
                if compression:
                    blocks = read_elements(open_compressed(file, compression))
                    return [_head(whole, blocks, limit=limit or 0)]
                return _slices(read_elements(file), size, sharding=sharding, limit=limit)
        except (UndividedError, OSError) as error:
            if isinstance(error, StorageError):
                raise
            return [whole]

    def read(
        self,
        file: BinaryIO,
        piece: Slice,
        *,
        compression: str | None,
        columns: tuple[str, ...] | None,
        partition: Partition,
    ) -> Iterator[Chunk]:
        from batchrunner.formats.json_reader import read_json

        return read_json(file, piece, compression=compression, columns=columns, partition=partition)

    def span(self, piece: Slice, positions: Collection[int], *, compression: str | None) -> Slice:
        if compression or min(positions) == 0:
            return replace(piece, slicing=Slicing.FILE, start=0, stop=piece.size)
        return replace(piece, slicing=Slicing.BYTES, start=min(positions), stop=max(positions) + 1)

    def second_reader(self) -> RecordReader:
        from batchrunner.formats.json_second_reader import ElementReader

        return ElementReader()


def _slices(
    blocks: Iterable[ElementBlock], size: int, *, sharding: Sharding, limit: int | None
) -> list[Cut]:
    slices: list[Cut] = []
    start = rows = left = 0
    left = limit or -1
    for end in (end for block in blocks for end in block.nexts):
        rows, left = rows + 1, left - 1
        measure = {"rows": rows, "bytes": end - start}.get(sharding.unit, 0)
        if measure >= sharding.count or left == 0:
            stop = min(end, size)
            slices.append(Cut(Slicing.BYTES, start, stop, rows, stop - start))
            start, rows = stop, 0
        if left == 0:
            return slices
    if rows or not slices:
        return [*slices, Cut(Slicing.BYTES, start, size, rows, size - start)]
    last = slices.pop()
    return [*slices, replace(last, stop=size, weight=size - last.start)]


def _head(whole: Cut, blocks: Iterable[ElementBlock], *, limit: int) -> Cut:
    rows = 0
    for block in blocks:
        rows += len(block.ends)
        if rows > limit:
            return replace(whole, slicing=Slicing.HEAD, stop=limit, rows=limit)
    return replace(whole, rows=rows)
