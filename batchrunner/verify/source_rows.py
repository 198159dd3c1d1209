"""How many rows each shard's slice of the source has, by a count of our own."""

from __future__ import annotations

import threading
from itertools import accumulate
from typing import Any

from batchrunner.errors import ObjectChangedError, ObjectNotFoundError, StorageError
from batchrunner.formats.naming import PARQUET, FileKind, file_kind
from batchrunner.shard import Shard, Slicing
from batchrunner.spec import SourceSpec
from batchrunner.storage import Entry, locate
from batchrunner.verify.counting import count_in_range, count_lines, uncompressed, unreadable

GONE = (ObjectChangedError, ObjectNotFoundError)
"""What says that the file is not the one that was read, so that nothing can be counted."""


class UncountableError(StorageError):
    """The file is the one that was read, and cannot be read now."""


class SourceRows:
    """Counts in the files of *source*. Safe in several threads."""

    def __init__(self, source: SourceSpec) -> None:
        self._source = source
        self._groups: dict[str, tuple[int, ...]] = {}
        self._lock = threading.Lock()

    def of(self, shard: Shard) -> int:
        """Return the rows of *shard*, which must not be one of dead letters.

        Raises:
            ObjectChangedError: Its file was written since.
            ObjectNotFoundError: Its file is gone.
            UncountableError: Its file cannot be read.
        """
        return self._count(shard, after=False)

    def after(self, shard: Shard) -> int:
        """Return the rows of the file of *shard* that come after it. Raises as `of` does."""
        return self._count(shard, after=True)

    def _count(self, shard: Shard, *, after: bool) -> int:
        kind = file_kind(shard.uri, format=self._source.format) or FileKind("jsonl")
        try:
            if kind.format == PARQUET:
                return _in_groups(self._row_groups(shard), shard, after=after)
            return self._lines(shard, kind, after=after)
        except StorageError:
            raise
        except unreadable() as error:
            raise UncountableError(f"{shard.uri} cannot be read: {error}") from error

    def _lines(self, shard: Shard, kind: FileKind, *, after: bool) -> int:
        if after and shard.slicing is not Slicing.BYTES:
            return 0
        with self._open(shard) as file:
            if shard.slicing is Slicing.BYTES:
                span = (shard.stop, shard.size) if after else (shard.start, shard.stop)
                return count_in_range(file, *span)
            most = shard.stop if shard.slicing is Slicing.HEAD else None
            return count_lines(uncompressed(file, kind.compression), most=most)

    def _row_groups(self, shard: Shard) -> tuple[int, ...]:
        import pyarrow.parquet as pq

        with self._lock:
            if shard.uri not in self._groups:
                with self._open(shard) as file:
                    footer = pq.ParquetFile(file).metadata
                rows = (footer.row_group(i).num_rows for i in range(footer.num_row_groups))
                self._groups[shard.uri] = tuple(rows)
            return self._groups[shard.uri]

    def _open(self, shard: Shard) -> Any:
        storage, key = locate(shard.uri, storage_options=self._source.storage_options)
        return storage.open(Entry(key, shard.size, shard.identity))


def _in_groups(groups: tuple[int, ...], shard: Shard, *, after: bool) -> int:
    """Return the rows of *shard*, or those after it, in a file of row groups of these sizes."""
    ends = [0, *accumulate(groups)]
    if shard.slicing is Slicing.FILE:
        first, end = 0, ends[-1]
    elif shard.slicing is Slicing.ROW_GROUPS:
        first, end = (ends[min(at, len(groups))] for at in (shard.start, shard.stop))
    else:
        first, end = (min(at, ends[-1]) for at in (shard.start, shard.stop))
    return ends[-1] - end if after else end - first
