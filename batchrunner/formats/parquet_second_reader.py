"""Reads Parquet for `verify`, by the row counts in the footer, without code of the run."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterator, Sequence
from itertools import accumulate
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from batchrunner.formats.contract import Opener, TableReader
from batchrunner.shard import Slice, Slicing

_ROWS_AT_ONCE = 16_384


class RowGroupReader(TableReader):
    """The second reader of Parquet. It reads a footer once, however many shards a file has."""

    def __init__(self) -> None:
        self._groups: dict[str, tuple[int, ...]] = {}
        self._lock = threading.Lock()

    def count_part(self, file: Any, *, compression: str) -> int:
        batches = pq.ParquetFile(file).iter_batches(_ROWS_AT_ONCE, use_threads=False)
        return sum(batch.num_rows for batch in batches)

    def count_rows(
        self, piece: Slice, opened: Opener, *, compression: str | None, after: bool = False
    ) -> int:
        with self._lock:
            if piece.uri not in self._groups:
                with opened() as file:
                    footer = pq.ParquetFile(file).metadata
                rows = (footer.row_group(i).num_rows for i in range(footer.num_row_groups))
                self._groups[piece.uri] = tuple(rows)
        return _in_groups(self._groups[piece.uri], piece, after=after)

    def tables(
        self,
        file: Any,
        piece: Slice | None,
        *,
        wanted: Collection[int] | None,
        columns: Sequence[str] | None,
    ) -> Iterator[tuple[int, pa.Table]]:
        if piece is None:
            return _tables_in(file, columns, span=lambda ends: (0, ends[-1]))
        return _tables_in(file, columns, span=lambda ends: _row_span(piece, wanted, ends))


def _tables_in(
    file: Any,
    columns: Sequence[str] | None,
    *,
    span: Callable[[list[int]], tuple[int, int]],
) -> Iterator[tuple[int, pa.Table]]:
    """Yield the rows of a Parquet file, each table with the number of its first row.

    Args:
        file: Open for reading.
        columns: The columns to decode, if the file has them; None for all.
        span: Given 0 and the number of the row after each row group, returns the first row and the
            one after the last.
    """
    source = pq.ParquetFile(file, coerce_int96_timestamp_unit="us")
    ends = _group_ends(source.metadata)
    first, stop = span(ends)
    groups = [n for n in range(len(ends) - 1) if ends[n] < stop and ends[n + 1] > first]
    names = source.schema_arrow.names
    # A table without columns has no rows either, so one column is read even if none is wanted.
    read = None if columns is None else [name for name in columns if name in names] or names[:1]
    at = ends[groups[0]] if groups else 0
    for batch in source.iter_batches(_ROWS_AT_ONCE, groups, read, use_threads=False):
        begin, end = max(first - at, 0), min(stop - at, batch.num_rows)
        if begin < end:
            yield at + begin, pa.Table.from_batches([batch]).slice(begin, end - begin)
        at += batch.num_rows


def _group_ends(footer: Any) -> list[int]:
    sizes = (footer.row_group(n).num_rows for n in range(footer.num_row_groups))
    return list(accumulate(sizes, initial=0))


def _row_span(piece: Slice, wanted: Collection[int] | None, ends: Sequence[int]) -> tuple[int, int]:
    if wanted:
        return min(wanted), max(wanted) + 1
    if piece.slicing is Slicing.FILE:
        return 0, ends[-1]
    if piece.slicing is Slicing.ROW_GROUPS:
        return ends[min(piece.start, len(ends) - 1)], ends[min(piece.stop, len(ends) - 1)]
    return piece.start, min(piece.stop, ends[-1])


def _in_groups(groups: tuple[int, ...], piece: Slice, *, after: bool) -> int:
    """Return the row count of *piece*, or *after* it; *groups* are its file's row counts."""
    ends = [0, *accumulate(groups)]
    if piece.slicing is Slicing.FILE:
        first, end = 0, ends[-1]
    elif piece.slicing is Slicing.ROW_GROUPS:
        first, end = (ends[min(at, len(groups))] for at in (piece.start, piece.stop))
    else:
        first, end = (min(at, ends[-1]) for at in (piece.start, piece.stop))
    return ends[-1] - end if after else end - first
