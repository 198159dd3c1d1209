"""Reads Arrow IPC for `verify`, as a stream of messages from its start, without code of the run.

A file is a stream between a magic number and a footer. The run goes by the footer, this reader without.
"""

from __future__ import annotations

import threading
from collections.abc import Collection, Iterator, Sequence
from itertools import accumulate
from typing import Any

import pyarrow as pa

from batchrunner.formats.contract import Opener, TableReader
from batchrunner.shard import Slice, Slicing

_MAGIC = b"ARROW1"
_STREAM_AT = 8


class MessageReader(TableReader):
    """The second reader of Arrow IPC. It counts the batches of a file once, however many slices it has."""

    def __init__(self) -> None:
        self._counts: dict[str, tuple[int, ...]] = {}
        self._lock = threading.Lock()

    def count_part(self, file: Any, *, compression: str) -> int:
        return sum(batch.num_rows for batch in _batches(file))

    def count_rows(
        self, piece: Slice, opened: Opener, *, compression: str | None, after: bool = False
    ) -> int:
        with self._lock:
            if piece.uri not in self._counts:
                with opened() as file:
                    self._counts[piece.uri] = tuple(batch.num_rows for batch in _batches(file))
        counts = self._counts[piece.uri]
        start, stop = _span(piece, counts)
        return sum(counts) - stop if after else stop - start

    def tables(
        self,
        file: Any,
        piece: Slice | None,
        *,
        wanted: Collection[int] | None,
        columns: Sequence[str] | None,
    ) -> Iterator[tuple[int, pa.Table]]:
        at = 0
        counts: list[int] = []
        for batch in _batches(file):
            counts.append(batch.num_rows)
            start, stop = _rows(piece, wanted, counts)
            begin, end = max(start - at, 0), min(stop - at, batch.num_rows)
            if begin < end:
                names = [name for name in batch.schema.names if columns is None or name in columns]
                # A table without columns has no rows: one is kept, even if none is wanted.
                table = pa.Table.from_batches([batch.select(names or batch.schema.names[:1])])
                yield at + begin, table.slice(begin, end - begin)
            at += batch.num_rows


def _batches(file: Any) -> Iterator[pa.RecordBatch]:
    file.seek(0)
    is_file = file.read(len(_MAGIC)) == _MAGIC
    file.seek(_STREAM_AT if is_file else 0)
    yield from pa.ipc.open_stream(pa.PythonFile(file, mode="r"))


def _rows(
    piece: Slice | None, wanted: Collection[int] | None, counts: Sequence[int]
) -> tuple[int, int]:
    if wanted:
        return min(wanted), max(wanted) + 1
    return (0, sum(counts)) if piece is None else _span(piece, counts)


def _span(piece: Slice, counts: Sequence[int]) -> tuple[int, int]:
    """Return the first row of *piece* and one past its last; *counts* are of the batches so far."""
    ends = [0, *accumulate(counts)]
    if piece.slicing is Slicing.FILE:
        return 0, ends[-1]
    if piece.slicing is Slicing.ROW_GROUPS:
        return ends[min(piece.start, len(counts))], ends[min(piece.stop, len(counts))]
    return min(piece.start, ends[-1]), min(piece.stop, ends[-1])
