"""Cuts CSV files at the ends of records: the quotes are followed from the first byte to the last."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from batchrunner.errors import StorageError
from batchrunner.formats.compression import open_compressed
from batchrunner.formats.contract import Cut, Opener, Sharding
from batchrunner.formats.csv_dialect import Dialect
from batchrunner.formats.csv_header import Prepended, read_header
from batchrunner.formats.csv_records import CsvError, Ends, Records
from batchrunner.shard import Slicing


def cut(rows: FileRows, size: int, *, sharding: Sharding, limit: int | None) -> list[Cut]:
    """Cut the file of *rows*, of *size* bytes, as `Format.cut` says. Counts the rows of each slice."""
    if rows.compression:  # only the limit needs a look into it
        return [_head(Cut(Slicing.FILE, 0, size, None, size), rows, limit or 0)]
    slices = _slices(rows, sharding, size, limit)
    if rows.is_damaged:  # what cannot be counted is of the last slice, whose reader says why
        start = slices[-1].stop if slices else 0
        return [*slices, Cut(Slicing.BYTES, start, size, None, size - start)]
    if limit is None and slices:
        last = slices[-1]
        slices[-1] = replace(last, stop=size, weight=size - last.start)
    return slices


class FileRows:
    """The ends of the rows of one file.

    Attributes:
        compression: The compression of the file, or None.
        is_damaged: Whether the file could not be read to its end.
    """

    def __init__(self, dialect: Dialect, compression: str | None, opened: Opener) -> None:
        self._dialect, self.compression, self._opened = dialect, compression, opened
        self.is_damaged = False

    def ends(self) -> Iterator[Ends]:
        """Yield the offset behind each row, of some rows at a time."""
        try:
            yield from self._ends()
        except StorageError:
            raise
        except (CsvError, OSError):
            self.is_damaged = True

    def _ends(self) -> Iterator[Ends]:
        with self._opened() as file:
            stream = open_compressed(file, self.compression)
            header = read_header(stream, self._dialect)
            rest = Prepended(header.rest, stream)
            for block in Records(self._dialect).blocks(rest, start=header.end):
                if block.overlong:
                    yield np.array([block.offset + block.overlong])
                else:
                    found = block if len(header.names) == 1 else block.without_blanks()
                    yield found.ends + found.offset


def _head(whole: Cut, rows: FileRows, limit: int) -> Cut:
    count = 0
    for ends in rows.ends():
        count += len(ends)
        if count > limit:
            return replace(whole, slicing=Slicing.HEAD, stop=limit, rows=limit)
    return whole if rows.is_damaged else replace(whole, rows=count)


def _slices(rows: FileRows, sharding: Sharding, size: int, limit: int | None) -> list[Cut]:
    slices: list[Cut] = []
    start = count = end = 0
    for some in _limited(rows.ends(), limit):
        ends = some
        while len(ends):
            taken = _filling(ends, sharding, size, start=start, count=count)
            end = int(ends[: taken + 1][-1])
            count += len(ends[: taken + 1])
            if taken < len(ends):
                slices.append(Cut(Slicing.BYTES, start, end, count, end - start))
                start, count = end, 0
            ends = ends[taken + 1 :]
    if count:
        slices.append(Cut(Slicing.BYTES, start, end, count, end - start))
    return slices


def _limited(found: Iterator[Ends], limit: int | None) -> Iterator[Ends]:
    for ends in found:
        yield ends if limit is None else ends[:limit]
        if limit is not None:
            limit -= len(ends)
            if limit <= 0:
                return


def _filling(ends: Ends, sharding: Sharding, size: int, *, start: int, count: int) -> int:
    """Return the index in *ends* of the row that completes a slice that has *count* rows so far."""
    if sharding.unit == "rows":
        return sharding.count - count - 1
    if sharding.unit == "bytes":
        step = size / max(1, round(size / sharding.count))
        return int(np.searchsorted(ends, (start // step + 1) * step))
    return len(ends)
