"""What formats of a row a line share: how their files are cut, and what of them is hashed."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import chain, islice, pairwise
from typing import BinaryIO, ClassVar

from batchrunner.formats.compression import OUTER, ByteStream, open_compressed
from batchrunner.formats.contract import Cut, Opener, RowFormat, Sharding
from batchrunner.formats.hashing import ReadHash, SourceHash, has_same_extent
from batchrunner.formats.lines import MARK_BYTES, read_lines, row_ends
from batchrunner.shard import Slice, Slicing


class LineFormat(RowFormat):
    """A row a line. Its position is the offset of the line in the uncompressed file.

    Attributes:
        has_blank_rows: Whether a blank line is a row.
    """

    outer = OUTER
    compressions: ClassVar[tuple[str, ...]] = ("none", "gz", "zst")
    reads_to_cut = False
    has_blank_rows: ClassVar[bool] = False

    def cut(
        self,
        size: int,
        *,
        compression: str | None,
        sharding: Sharding,
        limit: int | None,
        opened: Opener,
    ) -> list[Cut]:
        """Cut by size alone; read lines only to count rows, all of them or up to the *limit*."""
        if compression:
            whole = Cut(Slicing.FILE, 0, size, None, size)
            return [
                whole if limit is None else self._head(whole, compression, limit, opened=opened)
            ]
        if sharding.unit == "rows":
            return self._row_counts(size, opened, every=sharding.count, limit=limit)
        ranges = _byte_ranges(size, step=size if sharding.unit == "files" else sharding.count)
        return ranges if limit is None else self._cut_at(ranges, opened, limit=limit)

    def _row_counts(self, size: int, opened: Opener, *, every: int, limit: int | None) -> list[Cut]:
        slices: list[Cut] = []
        start = rows = end = 0
        with opened() as file:
            for end in islice(self._row_ends(file, stop=size), limit):
                rows += 1
                if rows == every:
                    slices.append(Cut(Slicing.BYTES, start, end, rows, end - start))
                    start, rows = end, 0
        return [*slices, Cut(Slicing.BYTES, start, end, rows, end - start)] if rows else slices

    def _cut_at(self, ranges: Sequence[Cut], opened: Opener, *, limit: int) -> list[Cut]:
        """Return the ranges with the first *limit* rows, and their counts; the last is cut to fit."""
        slices: list[Cut] = []
        with opened() as file:
            for piece in ranges:
                file.seek(max(piece.start - 1, 0))
                ends = list(islice(self._row_ends(file, start=piece.start, stop=piece.stop), limit))
                limit -= len(ends)
                if limit:
                    slices.append(replace(piece, rows=len(ends)))
                else:
                    stop = min(ends[-1], piece.stop)
                    return [
                        *slices,
                        replace(piece, stop=stop, rows=len(ends), weight=stop - piece.start),
                    ]
        return slices

    def _head(self, whole: Cut, compression: str, limit: int, *, opened: Opener) -> Cut:
        with opened() as file:
            ends = self._row_ends(open_compressed(file, compression), stop=None)
            rows = sum(1 for _ in islice(ends, limit + 1))
        if rows <= limit:
            return replace(whole, rows=rows)
        return replace(whole, slicing=Slicing.HEAD, stop=limit, rows=limit)

    def _row_ends(self, stream: ByteStream, *, start: int = 0, stop: int | None) -> Iterator[int]:
        ends = partial(row_ends, blanks=self.has_blank_rows)
        return chain.from_iterable(map(ends, read_lines(stream, start=start, stop=stop)))

    def span(self, piece: Slice, positions: Collection[int], *, compression: str | None) -> Slice:
        if compression:
            return replace(piece, slicing=Slicing.FILE, start=0, stop=piece.size)
        # A byte order mark belongs to no row: the first row begins after it, and its line before it.
        start = min(positions) if min(positions) > MARK_BYTES else 0
        return replace(piece, slicing=Slicing.BYTES, start=start, stop=max(positions) + 1)

    def source_hash(self, piece: Slice, *, columns: Sequence[str] | None) -> SourceHash:
        return ReadHash(
            _first_byte(piece), line_at=piece.stop if piece.slicing is Slicing.BYTES else None
        )

    def has_same_bytes(
        self, file: BinaryIO, piece: Slice, *, columns: Sequence[str] | None, hashed: str
    ) -> bool:
        return has_same_extent(file, _first_byte(piece), hashed=hashed)


def _first_byte(piece: Slice) -> int:
    """Return the first byte to hash: the one before a range decides whether a line begins there."""
    return max(piece.start - 1, 0) if piece.slicing is Slicing.BYTES else 0


def _byte_ranges(size: int, *, step: int) -> list[Cut]:
    if size <= step:
        return [Cut(Slicing.BYTES, 0, size, None, size)]
    pieces = max(1, round(size / step))
    cuts = [size * piece // pieces for piece in range(pieces + 1)]
    return [Cut(Slicing.BYTES, a, b, None, b - a) for a, b in pairwise(cuts)]
