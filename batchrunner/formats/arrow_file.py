"""Arrow IPC: files with a footer (Feather 2), and streams without one."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from itertools import accumulate, pairwise
from typing import BinaryIO

from batchrunner.formats.chunk import Chunk
from batchrunner.formats.contract import (
    Cut,
    Opener,
    Sharding,
    SourceOnly,
    TableFormat,
    TableReader,
)
from batchrunner.formats.hashing import HashOfReads, SourceHash
from batchrunner.formats.partitions import Partition
from batchrunner.shard import Slice, Slicing


class Arrow(SourceOnly, TableFormat):
    """Arrow IPC. A row's position is its number in the file, from 0."""

    suffixes = (".arrow", ".feather", ".arrows")
    needs_bytes = True
    written_as = "parquet"

    def cut(
        self,
        size: int,
        *,
        compression: str | None,
        sharding: Sharding,
        limit: int | None,
        opened: Opener,
    ) -> list[Cut]:
        """Cut between record batches, or rows: by the footer, or by what precedes each in a stream."""
        whole = Cut(Slicing.FILE, 0, size, None, size)
        is_small = sharding.unit == "bytes" and size <= sharding.count * 1.5
        if limit is None and (is_small or sharding.unit == "files"):
            return [whole]
        with opened() as file:
            return _cut(file, whole, sharding, limit)

    def read(
        self,
        file: BinaryIO,
        piece: Slice,
        *,
        compression: str | None,
        columns: tuple[str, ...] | None,
        partition: Partition,
    ) -> Iterator[Chunk]:
        from batchrunner.formats.arrow_reader import read_arrow

        return read_arrow(file, piece, columns=columns, partition=partition)

    def span(self, piece: Slice, positions: Collection[int], *, compression: str | None) -> Slice:
        return replace(piece, slicing=Slicing.ROWS, start=min(positions), stop=max(positions) + 1)

    def source_hash(self, piece: Slice, *, columns: Sequence[str] | None) -> SourceHash:
        from batchrunner.formats.arrow_hash import PlacedReads

        return HashOfReads(PlacedReads)

    def has_same_bytes(
        self, file: BinaryIO, piece: Slice, *, columns: Sequence[str] | None, hashed: str
    ) -> bool:
        from batchrunner.formats.arrow_hash import has_same_reads

        return has_same_reads(file, piece, columns=columns, hashed=hashed)

    def second_reader(self) -> TableReader:
        from batchrunner.formats.arrow_second_reader import MessageReader

        return MessageReader()


def _cut(file: BinaryIO, whole: Cut, sharding: Sharding, limit: int | None) -> list[Cut]:
    from batchrunner.formats.arrow_layout import MAGIC, messages, record_batches, row_counts

    try:
        if file.read(len(MAGIC)) == MAGIC:
            blocks, rows = record_batches(file, size=whole.stop), None
        else:
            batches = [m for m in messages(file, size=whole.stop) if m.rows is not None]
            blocks, rows = [m.block for m in batches], [m.rows or 0 for m in batches]
        runs = _runs([block.nbytes for block in blocks], every=sharding.count)
        if limit is None and sharding.unit == "bytes":
            return runs or [whole]
        ends = list(accumulate(rows or row_counts(file, blocks), initial=0))
    except ValueError:
        return [whole]
    cuts = {"rows": range(0, ends[-1], sharding.count), "bytes": [ends[run.stop] for run in runs]}
    last = ends[-1] if limit is None else min(ends[-1], limit)
    return _by_rows(
        whole, ends[-1], [*(at for at in cuts.get(sharding.unit, ()) if at < last), last]
    )


def _runs(sizes: Sequence[int], *, every: int) -> list[Cut]:
    """Return slices of neighbouring record batches of about *every* bytes; *sizes* are the batches'."""
    slices: list[Cut] = []
    start = weight = 0
    for stop, size in enumerate(sizes, start=1):
        weight += size
        if weight >= every or stop == len(sizes):
            slices.append(Cut(Slicing.ROW_GROUPS, start, stop, None, weight))
            start, weight = stop, 0
    return slices


def _by_rows(whole: Cut, total: int, ends: Sequence[int]) -> list[Cut]:
    """Return slices of the rows of a file of *total* rows, each up to one of *ends*."""
    return [
        Cut(Slicing.ROWS, a, b, b - a, whole.weight * (b - a) // total)
        for a, b in pairwise([0, *ends])
        if b > a
    ]
