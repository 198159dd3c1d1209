"""Picks a few rows from all over a source, for a trial: the same ones each time, and by reading little.

Rows are taken from the head of slices that lie evenly over the bytes of the source. Of the other
slices nothing is read, not even a footer.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import accumulate
from typing import Protocol

from batchrunner.driver.file_table import SourceFile
from batchrunner.driver.sample import Sample
from batchrunner.driver.source_files import Opener, slice_of
from batchrunner.errors import ShardFailedError
from batchrunner.formats.contract import Cut, Format, Sharding
from batchrunner.formats.format_error import refused
from batchrunner.shard import Slicing

_PLACES = 32
_LEAST = 4096
"""Least bytes of a place, where a share is asked for: each place has at least one row."""

_CUT_UNREAD = 1 << 20
"""From this size on, a range of bytes is cut without looking for the rows in it."""

Picked = tuple[SourceFile, Cut]
Place = tuple[int, int]
"""Numbers of a file, and of one of its slices."""

Take = Callable[[Place, float], list[Cut]]
Measure = Callable[[Sequence[Cut]], float]


class Cutter(Protocol):
    """What cuts a file into slices, as `plan.Slicer.slices` does."""

    def __call__(self, file: SourceFile, sharding: Sharding, limit: int | None, /) -> list[Cut]: ...


def picked(
    files: Sequence[SourceFile], sample: Sample, *, cut: Cutter, opener: Opener
) -> list[Picked]:
    """Return slices of *files*, in their order, that hold the *sample*.

    Of rows, exactly as many as asked for, if the source has them; of a share, about as many bytes.

    Raises:
        InvalidSpecError: A file cannot be cut.
        StorageError: A file cannot be read.
    """
    filled = [file for file in files if file.size]
    if not filled:
        return []
    source = _Source(filled, cut, opener, sample)
    return source.rows(sample.rows) if sample.rows else source.share(sample.share or 1.0)


class _Source:
    """The files of a source, of which slices are cut when a place in them is looked at."""

    def __init__(
        self, files: Sequence[SourceFile], cut: Cutter, opener: Opener, sample: Sample
    ) -> None:
        self._files, self._cut, self._opener = files, cut, opener
        self._ends = list(accumulate(file.size for file in files))
        self._places = min(sample.rows or self._places_of(sample.share or 1.0), _PLACES)
        if sample.share:  # of many small files, whole ones
            self._places = max(self._places, math.ceil(sample.share * len(files)))

    def _places_of(self, share: float) -> int:
        return max(1, int(share * self._ends[-1]) // _LEAST)

    def rows(self, count: int) -> list[Picked]:
        """Return slices with *count* rows in all."""
        amounts = [
            count // self._places + (number < count % self._places)
            for number in range(self._places)
        ]
        return self._taken(amounts, self._head, _count, enough=0)

    def share(self, share: float) -> list[Picked]:
        """Return slices with about *share* of the bytes."""
        each = share * self._ends[-1] / self._places
        return self._taken([each] * self._places, self._bytes, _weight, enough=each / 2)

    def _taken(
        self, amounts: Sequence[float], take: Take, measure: Measure, *, enough: float
    ) -> list[Picked]:
        wanted: dict[Place, float] = {}
        for place, amount in zip(self._spread(), amounts, strict=False):
            wanted[place] = wanted.get(place, 0) + amount
        found: dict[Place, list[Cut]] = {}
        missing = 0.0
        for place, amount in wanted.items():
            found[place] = take(place, amount + missing)
            missing += amount - measure(found[place])
        # Where the places have too little: more of them, and then of the rest, from the start.
        for place in self._again(list(wanted)):
            if missing <= enough:
                break
            had = measure(found.get(place, []))
            found[place] = take(place, had + missing)
            missing -= measure(found[place]) - had
        return self._in_order(found)

    def _spread(self) -> Iterator[Place]:
        """Yield file and slice of each place, in order; large slices several times."""
        for number in range(self._places):
            at = (2 * number + 1) * self._ends[-1] // (2 * self._places)
            index = bisect_right(self._ends, at)
            file = self._files[index]
            slices = self._slices(index)
            ends = list(accumulate(max(piece.weight, 1) for piece in slices))
            inside = (at - (self._ends[index] - file.size)) / file.size
            if slices:
                yield index, min(bisect_right(ends, inside * ends[-1]), len(slices) - 1)

    def _again(self, places: Sequence[Place]) -> Iterator[Place]:
        yield from places
        known = set(places)
        for index in range(len(self._files)):
            places_of_file = ((index, number) for number in range(len(self._slices(index))))
            yield from (place for place in places_of_file if place not in known)

    def _slices(self, index: int) -> list[Cut]:
        file = self._files[index]
        step = max(self._ends[-1] // self._places, 1)
        groups = _format(file).has_row_groups
        return self._cut(
            file, Sharding("row_groups", 1) if groups else Sharding("bytes", step), None
        )

    def _in_order(self, found: dict[Place, list[Cut]]) -> list[Picked]:
        return [
            (self._files[place[0]], piece)
            for place, pieces in sorted(found.items())
            for piece in pieces
        ]

    def _head(self, place: Place, amount: float) -> list[Cut]:
        """Return the first *amount* rows of the slice at *place*, or all, with their number."""
        count = int(amount)
        if count <= 0:
            return []
        file, slices = self._files[place[0]], self._slices(place[0])
        piece = slices[place[1]]
        if piece.rows is not None and piece.rows <= count:
            return [piece]
        if piece.slicing in (Slicing.ROW_GROUPS, Slicing.ROWS):
            return [_row_run(slices, place[1], count)]
        if piece.slicing is not Slicing.BYTES:
            return self._cut(file, Sharding("files", 1), count)
        return self._first_lines(file, piece, count)

    def _first_lines(self, file: SourceFile, piece: Cut, count: int) -> list[Cut]:
        positions: list[int] = []
        for _, found in self._read(file, piece):
            positions += found
            if len(positions) > count:
                break
        if not positions:
            return []
        if len(positions) <= count:
            return [replace(piece, rows=len(positions))]
        span = _format(file).span(
            slice_of(file, piece), positions[:count], compression=file.kind.compression
        )
        weight = positions[count] - span.start
        return [Cut(span.slicing, span.start, span.stop, count, weight)]

    def _bytes(self, place: Place, size: float) -> list[Cut]:
        """Return about *size* bytes from the head of the slice at *place*, at least one row."""
        if size <= 0:
            return []
        file, slices = self._files[place[0]], self._slices(place[0])
        piece = slices[place[1]]
        if piece.weight <= size:
            return [piece]
        if piece.slicing is Slicing.BYTES and size >= _CUT_UNREAD:
            return [replace(piece, stop=piece.start + int(size), rows=None, weight=int(size))]
        if piece.rows is not None:
            return self._head(place, math.ceil(piece.rows * size / piece.weight))
        return self._head(place, self._rows_in(file, piece, size))

    def _rows_in(self, file: SourceFile, piece: Cut, size: float) -> int:
        """Return about how many rows the first *size* bytes of *piece* hold, at least 1."""
        rows, read = 0, 0
        for read, found in self._read(file, piece):
            rows += len(found)
            if read >= size:
                break
        return max(1, round(rows * min(size / read, 1))) if read else 1

    def _read(self, file: SourceFile, piece: Cut) -> Iterator[tuple[int, list[int]]]:
        """Yield, for each chunk, the bytes read so far and the positions of its rows, bad ones too.

        Ends before damage: the worker that reads the slice reports it.
        """
        name = file.kind.format
        with refused(f"{file.uri} cannot be sampled", name), self._opener(file) as opened:
            chunks = _format(file).read(
                opened,
                slice_of(file, piece),
                compression=file.kind.compression,
                columns=None,
                partition=(),
            )
            begin = piece.start if piece.slicing is Slicing.BYTES else 0
            try:
                for chunk in chunks:
                    bad = [row.position.at for row in chunk.bad]
                    read = min(opened.tell() - begin, piece.weight)
                    yield max(read, 1), sorted([*chunk.positions(), *bad])
            except ShardFailedError:
                return


def _format(file: SourceFile) -> Format:
    return file.kind.reader


def _count(pieces: Sequence[Cut]) -> int:
    return sum(piece.rows or 0 for piece in pieces)


def _weight(pieces: Sequence[Cut]) -> int:
    return sum(piece.weight for piece in pieces)


def _row_run(slices: Sequence[Cut], number: int, count: int) -> Cut:
    """Return the first *count* rows of slice *number*, by their numbers in the file."""
    piece = slices[number]
    first = _count(slices[:number])
    weight = piece.weight * count // max(piece.rows or 1, 1)
    return Cut(Slicing.ROWS, first, first + count, count, weight)
